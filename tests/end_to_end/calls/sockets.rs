//! Sockets behave as they do natively: connections of a server to itself, ends and resets, options,
//! splicing, epoll instances in others, descriptors passed to other processes.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::native::{Native, ask, build};
use crate::fixture::settings::scaled;

/// Enough for replicas on one machine to meet, if there is a name under which they could.
const ROUNDS: usize = 10;

#[test]
fn sockets_do_what_they_do_natively() {
    let program = build("sockets");
    let directory = tempfile::tempdir().unwrap();
    let native = Native::start_in(&program, &[], directory.path());
    let expected = ask(native.address, "r");
    assert!(expected.ends_with("nobody ECONNREFUSED\n"), "{expected}");
    let command = |port: u16| vec![program.to_str().unwrap().to_owned(), port.to_string()];
    let cluster = Cluster::start(Setup::new(command).perturbed(300));
    let view = cluster.settle();
    for round in 0..scaled(ROUNDS) {
        let homes = view.followers();
        let wrapped = ask(cluster.address(homes[round % homes.len()]), "r");
        let mut lines = wrapped.lines().zip(expected.lines());
        let differing = lines.find(|(ours, native)| ours != native);
        assert_eq!(differing, None);
        assert_eq!(wrapped.len(), expected.len());
    }
    let hashes = cluster.settle().hashes();
    say(&format!(
        "sockets: {} rounds of {} lines as native, {hashes}",
        scaled(ROUNDS),
        expected.lines().count()
    ));
    cluster.stop();
}
