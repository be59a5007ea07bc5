//! Processes do what they do natively, the same on every replica: streams over pipes, programs that are
//! executed, waiting, locks, memory and messages between processes.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::native::{Native, ask, build};
use crate::harness::eventually;
use brolga_node::ServerState;
use std::io::Write;

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

#[test]
fn process_groups_and_sessions_are_as_posix_says() {
    as_native("g", "terminal 1 1\n");
}

#[test]
fn children_are_waited_for_as_posix_says() {
    as_native("wo", "orphans end, nobody waits 1\n");
}

#[test]
fn programs_are_executed_in_the_schedule() {
    as_native("e", "signals: reaped 1 exited 1 status 3 signal 0\n");
}

#[test]
fn children_that_libc_makes_are_in_the_schedule() {
    as_native("pc", "nobody left 1\n");
}

/// The program that is started ends at once, and the server goes on: it lives as long as its tree.
#[test]
fn a_daemon_outlives_the_program_that_started_it() {
    for how in ["daemon", "twice"] {
        let program = build("processes");
        let cluster = Cluster::start(
            Setup::new(|port| {
                let program = program.to_str().unwrap();
                [program, how, &port.to_string()]
                    .map(str::to_owned)
                    .to_vec()
            })
            .perturbed(300),
        );
        let view = cluster.settle();
        let homes = view.followers();
        let before = ask(cluster.address(homes[0]), "g");
        assert!(before.ends_with("terminal 1 1\n"), "{before}");
        let leader = view.leader();
        cluster.kill(&view, leader);
        let hashes = cluster.settle().hashes();
        assert_eq!(ask(cluster.address(homes[1]), "g"), before);
        // What it is told to do last, it does on every replica: its end is the server's end.
        assert_eq!(ask(cluster.address(homes[0]), "q"), "");
        wait_for_state(&cluster, |state| {
            let over = ServerState::Exited {
                how: "exit status 5".into(),
            };
            *state == over
        });
        say(&format!("{how}: alive after the leader's death, {hashes}"));
        cluster.stop();
    }
}

/// Waits until the servers of all replicas are in a state, whatever that means for the cluster.
#[track_caller]
fn wait_for_state(cluster: &Cluster, reached: impl Fn(&ServerState) -> bool) {
    let everywhere = eventually(|| {
        let view = cluster.any_view();
        let all = view.all();
        all.is_some_and(|all| all.iter().all(|status| reached(&status.server)))
    });
    assert!(everywhere, "{:#?}", cluster.any_view());
}

/// Such a program would run outside of the schedule, unnoticed.
#[test]
fn a_program_that_cannot_be_wrapped_ends_the_server_with_a_line() {
    let program = build("processes");
    let cluster = Cluster::start(Setup::new(|port| {
        vec![program.to_str().unwrap().to_owned(), port.to_string()]
    }));
    let homes = cluster.settle().followers();
    let mut stream = std::net::TcpStream::connect(cluster.address(homes[0])).unwrap();
    stream.write_all(b"u").unwrap();
    wait_for_state(&cluster, |state| match state {
        ServerState::Faulted { message } => {
            message.contains("/sbin/ldconfig") && message.contains("statically linked")
        }
        _ => false,
    });
    cluster.stop();
}
