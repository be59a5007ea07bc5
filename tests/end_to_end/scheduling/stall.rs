//! A thread that computes without an ordered operation while others wait for their turn is named; a tree
//! of which a process was killed from outside starts again.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::native::{ask, build};
use crate::harness::{eventually, signal};
use std::fs;
use std::io::Write;
use std::net::TcpStream;

#[test]
fn a_thread_that_spins_is_named() {
    let cluster = Cluster::start(spin_setup());
    let homes = cluster.settle().followers();
    assert_eq!(ask(cluster.address(homes[0]), "h"), "hello\n");
    let mut stream = TcpStream::connect(cluster.address(homes[0])).unwrap();
    stream.write_all(b"s").unwrap();
    let told = |why: &Option<String>| {
        let told = "thread 1000 of process 1000 has computed for more than ";
        why.as_ref()
            .is_some_and(|why| why.starts_with(told) && why.ends_with("1 other waits for its turn"))
    };
    let everywhere = eventually(|| {
        let view = cluster.any_view();
        let all = view.all();
        all.is_some_and(|all| all.iter().all(|status| told(&status.waiting)))
    });
    assert!(everywhere, "{:#?}", cluster.any_view());
    for node in 1..=3 {
        let log = fs::read_to_string(cluster.node_dir(node).join("node.log")).unwrap();
        assert!(
            log.contains("thread 1000 of process 1000 has computed"),
            "{log}"
        );
    }
    cluster.stop();
}

fn spin_setup() -> Setup {
    let program = build("spin");
    Setup::new(|port| vec![program.to_str().unwrap().to_owned(), port.to_string()])
}

/// As the kernel does when memory is short: the rest of the tree would wait for it for ever.
#[test]
fn a_process_that_is_killed_from_outside_comes_back() {
    let name = "a_process_that_is_killed_from_outside_comes_back";
    let cluster = Cluster::start(spin_setup());
    let view = cluster.settle();
    let homes = view.followers();
    let (victim, other) = (homes[0], homes[1]);
    assert_eq!(ask(cluster.address(other), "n"), "1\nhello\n");
    let before = cluster.settle();
    let status = before.node(victim).unwrap();
    let (server, starts) = (status.server_pid.unwrap(), status.server_starts);
    let children = format!("/proc/{server}/task/{server}/children");
    let children = fs::read_to_string(children).unwrap();
    let child: u64 = children.trim().parse().expect("one child");
    signal(child, "KILL");
    assert_eq!(ask(cluster.address(other), "n"), "2\nhello\n");
    let again = eventually(|| {
        let now = cluster.any_view();
        now.node(victim).is_some_and(|it| it.server_starts > starts)
    });
    assert!(again, "{:#?}", cluster.any_view());
    let after = cluster.settle();
    assert_eq!(ask(cluster.address(victim), "n"), "3\nhello\n");
    say(&format!("{name}: started again, {}", after.hashes()));
    let log = fs::read_to_string(cluster.node_dir(victim).join("node.log")).unwrap();
    assert!(log.contains("was killed from outside"), "{log}");
    cluster.stop();
}
