//! Processes do what they do natively, the same on every replica: streams over pipes, programs that are
//! executed, waiting, locks, memory and messages between processes.

use crate::cluster::{Cluster, Setup, say};
use crate::native::{Native, ask, build};

/// Asks a native and a wrapped server of `tests/servers/processes.c` the same, and wants the same lines.
#[track_caller]
fn as_native(letters: &str, last_line: &str) {
    let program = build("processes");
    let native = Native::start(&program, &[]);
    let cluster = Cluster::start(
        Setup::new(|port| vec![program.to_str().unwrap().to_owned(), port.to_string()])
            .perturbed(300),
    );
    let homes = cluster.settle().followers();
    for letter in letters.chars() {
        let expected = ask(native.address, &letter.to_string());
        let wrapped = ask(cluster.address(homes[0]), &letter.to_string());
        assert_eq!(wrapped, expected);
        if letters.ends_with(letter) {
            assert!(expected.ends_with(last_line), "{expected}");
        }
    }
    let hashes = cluster.settle().hashes();
    say(&format!("processes `{letters}`: as native, {hashes}"));
    cluster.stop();
}

#[test]
fn streams_over_pipes_go_through_the_schedule() {
    as_native("sf", "the filter: reaped 1 exited 1 status 0 signal 0\n");
}
