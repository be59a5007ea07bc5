//! `redis-benchmark`, as it comes, against a follower and against the leader.

use crate::chance::scaled;
use crate::cluster::{Cluster, Setup, say};
use std::net::SocketAddr;
use std::process::Command;

const TESTS: [&str; 6] = ["set", "get", "incr", "lpush", "spop", "zadd"];

#[test]
fn redis_benchmark_runs_against_any_node() {
    let name = "redis_benchmark_runs_against_any_node";
    let Some(setup) = Setup::redis(name, &[]) else {
        return;
    };
    let cluster = Cluster::start(setup);
    let view = cluster.settle();
    let targets = [("leader", view.leader()), ("follower", view.followers()[0])];
    for (role, node) in targets {
        let rates = benchmark(cluster.address(node));
        say(&format!("{name}: {role}, requests/s: {rates}"));
    }
    say(&format!("{name}: {}", cluster.settle().hashes()));
    cluster.stop();
}

fn benchmark(address: SocketAddr) -> String {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let requests = scaled(20_000).to_string();
    let output = Command::new("redis-benchmark")
        .args(["-h", &host, "-p", &port, "-n", &requests, "-c", "50"])
        .args(["-t", &TESTS.join(","), "--csv"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // "test","rps",…; the first line names the columns.
    let rows = text.lines().skip(1).map(|line| {
        let mut cells = line.split(',').map(|cell| cell.trim_matches('"'));
        let name = cells.next().unwrap_or_default().to_lowercase();
        format!("{name} {}", cells.next().unwrap_or_default())
    });
    let rows: Vec<String> = rows.collect();
    for test in TESTS {
        assert!(
            rows.iter().any(|row| row.starts_with(test)),
            "no {test}: {text}"
        );
    }
    rows.join(", ")
}
