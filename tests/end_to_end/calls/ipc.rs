//! Locks on files, FIFOs and System V IPC do what they do natively, the same on every replica: calls that
//! would block in the kernel wait in the schedule, and replicas on one machine do not meet.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::native::{Native, ask, build};

/// Asks a native and a wrapped server of `tests/servers/ipc.c` the same, twice, and wants the same lines.
#[track_caller]
fn as_native(letter: &str, last_line: &str) {
    let program = build("ipc");
    let native = Native::start(&program, &[]);
    let cluster = Cluster::start(
        Setup::new(|port| vec![program.to_str().unwrap().to_owned(), port.to_string()])
            .perturbed(300),
    );
    let homes = cluster.settle().followers();
    for _ in 0..2 {
        let expected = ask(native.address, letter);
        let wrapped = ask(cluster.address(homes[0]), letter);
        assert_eq!(wrapped, expected);
        assert!(expected.ends_with(last_line), "{expected}");
    }
    let hashes = cluster.settle().hashes();
    say(&format!("ipc `{letter}`: as native, {hashes}"));
    cluster.stop();
}

#[test]
fn locks_on_whole_files_wait_in_the_schedule() {
    as_native("f", "and then 0 0\n");
}

#[test]
fn record_locks_wait_in_the_schedule() {
    as_native("r", "own: refused 1 held by -1, then 0\n");
}

#[test]
fn fifos_are_opened_in_the_schedule() {
    as_native("p", "a pipe again: kept, end 0\n");
}

#[test]
fn semaphore_sets_belong_to_the_tree() {
    as_native("s", "sleeper 43 gone 1\n");
}

#[test]
fn message_queues_belong_to_the_tree() {
    as_native("m", "sender 1\n");
}

#[test]
fn shared_memory_segments_belong_to_the_tree() {
    as_native("h", "zeros 1\n");
}
