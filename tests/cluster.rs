//! A cluster of the bundled store under `brolga run`: it starts, says how it is, survives, stops.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;

use harness::{Client, Cluster, eventually, finish, free_port, replica, runs, signal, store};
use serde_json::Value;

/// The process of the node that leads.
fn leader(status: &Value) -> (u64, u64) {
    let id = status["leader"].as_u64().unwrap();
    let replicas = status["replicas"].as_array().unwrap();
    let leader = replicas.iter().find(|replica| replica["id"] == id).unwrap();
    (id, leader["status"]["pid"].as_u64().unwrap())
}

#[test]
fn a_cluster_serves_says_how_it_is_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let cluster = Cluster::start(&dir.path().join("data"), &[], &store(port));
    for number in 1..=3 {
        let mut client = Client::connect(replica(number, port));
        assert_eq!(client.ask(&["INCR", "counter"]), format!(":{number}"));
    }
    let status = cluster.wait_until_equal();
    assert!(status["leader"].is_u64(), "{status:#}");
    let table = finish(&["status", "--data", cluster.data.to_str().unwrap()]);
    assert!(table.stdout.contains(": equal"), "{}", table.stdout);
    assert_eq!(
        table.stdout.matches("running").count(),
        3,
        "{}",
        table.stdout
    );

    let processes = cluster.processes();
    assert_eq!(processes.len(), 3);
    let data = cluster.data.clone();
    assert_eq!(cluster.stop(), Some(0));
    for (node, server) in processes {
        assert!(
            !runs(node) && !runs(server),
            "process {node} or {server} is left"
        );
    }
    let down = finish(&["status", "--data", data.to_str().unwrap()]);
    assert_eq!(down.code, Some(0), "{down:?}");
    assert!(
        down.stdout.contains("3 of 3 replicas down: requests wait"),
        "{}",
        down.stdout
    );
}

#[test]
fn nothing_acknowledged_is_missing_after_all_were_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, port) = (dir.path().join("data"), free_port());
    let cluster = Cluster::start(&data, &["--perturb-us", "50"], &store(port));
    let mut client = Client::connect(replica(2, port));
    for count in 1..=200 {
        assert_eq!(client.ask(&["INCR", "counter"]), format!(":{count}"));
    }
    let processes = cluster.processes();
    signal(cluster.pid(), "KILL");
    for (node, server) in processes {
        assert!(
            eventually(|| !runs(node) && !runs(server)),
            "{node} or {server} is left"
        );
    }
    drop(cluster);

    let cluster = Cluster::start(&data, &[], &store(port));
    for number in 1..=3 {
        let mut client = Client::connect(replica(number, port));
        assert_eq!(
            client.ask(&["INCR", "counter"]),
            format!(":{}", 200 + u32::from(number))
        );
    }
    cluster.wait_until_equal();
    assert_eq!(cluster.stop(), Some(0));
}

#[test]
fn a_killed_leader_comes_back_and_its_clients_elsewhere_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut cluster = Cluster::start(&dir.path().join("data"), &[], &store(port));
    let (id, pid) = leader(&cluster.wait_until_equal());
    let survivor = if id == 1 { 2 } else { 1 };
    let mut client = Client::connect(replica(survivor, port));
    for count in 1..=100 {
        client.send(&["INCR", "counter"]);
        if count == 50 {
            signal(pid, "KILL");
        }
        assert_eq!(client.reply(), format!(":{count}"));
    }
    cluster.line_with(&format!(
        "replica {id} killed by SIGKILL; starting it again"
    ));
    cluster.wait_until_equal();
    assert_eq!(cluster.stop(), Some(0));
}

#[test]
fn with_too_few_replicas_requests_wait_and_status_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let cluster = Cluster::start(&dir.path().join("data"), &["--no-restart"], &store(port));
    let mut client = Client::connect(replica(1, port));
    assert_eq!(client.ask(&["INCR", "counter"]), ":1");
    let processes = cluster.processes();
    for (node, server) in &processes[1..] {
        signal(*node, "KILL");
        assert!(eventually(|| !runs(*node) && !runs(*server)));
    }
    let status = cluster.status();
    assert_eq!(status["alive"], 1, "{status:#}");
    let warning = status["warning"].as_str().unwrap();
    assert!(
        warning.contains("2 of 3 replicas down: requests wait"),
        "{warning}"
    );
    let table = finish(&["status", "--data", cluster.data.to_str().unwrap()]);
    assert_eq!(
        (table.code, table.stdout.matches("down\n").count()),
        (Some(0), 2),
        "{table:?}"
    );
    assert_eq!(cluster.stop(), Some(0));
}
