//! Too few replicas: requests wait, and are answered when there are enough again.

use crate::clients::resp::{Client, request};
use crate::fixture::cluster::{Cluster, Setup, say};
use std::time::Duration;

#[test]
fn requests_wait_for_a_majority_and_are_answered_then() {
    let name = "requests_wait_for_a_majority_and_are_answered_then";
    let mut cluster = Cluster::start(Setup::store().never_restarting());
    let view = cluster.settle();
    let home = view.followers()[0];
    let others: Vec<u64> = (1..=3).filter(|node| *node != home).collect();
    let mut client = Client::connect(cluster.address(home));
    client.exchange(&["INCR", "counter"], ":1\r\n");

    for node in &others {
        cluster.kill(&view, *node);
    }
    client.send(&request(&["INCR", "counter"])).unwrap();
    client.silent_for(Duration::from_secs(1));
    let view = cluster.view();
    assert_eq!((view.alive, view.majority), (1, 2));
    let warning = view.warning.unwrap_or_default();
    assert!(
        warning.contains("2 of 3 replicas down: requests wait"),
        "{warning}"
    );

    cluster.start_node(others[0]);
    client.expect(b":2\r\n").unwrap();
    client.exchange(&["INCR", "counter"], ":3\r\n");
    cluster.start_node(others[1]);
    say(&format!("{name}: {}", cluster.settle().hashes()));
    client.exchange(&["INCR", "counter"], ":4\r\n");
}
