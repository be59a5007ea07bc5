//! A thread that computes without an ordered operation while others wait for their turn is named.

use crate::cluster::{Cluster, Setup};
use crate::harness::eventually;
use crate::native::{ask, build};
use std::fs;
use std::io::Write;
use std::net::TcpStream;

#[test]
fn a_thread_that_spins_is_named() {
    let program = build("spin");
    let cluster = Cluster::start(Setup::new(|port| {
        vec![program.to_str().unwrap().to_owned(), port.to_string()]
    }));
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
