//! `redis-benchmark`, as it comes: against the leader, against a follower, and through a sidecar
//! frontend while one leader after the other dies.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::scaled;
use crate::fixture::view::View;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;

/// `redis-benchmark` waits for ever for a reply that is lost.
const PATIENCE_SECONDS: &str = "300";
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

#[test]
fn redis_benchmark_does_not_notice_that_leaders_die() {
    let name = "redis_benchmark_does_not_notice_that_leaders_die";
    let Some(setup) = Setup::redis(name, &[]) else {
        return;
    };
    let mut cluster = Cluster::start(setup);
    let address = cluster.start_frontend();
    let mut killed = 0;
    let rates = thread::scope(|scope| {
        let running = scope.spawn(move || benchmark(address));
        while !running.is_finished() {
            let view = cluster.wait_for("all replicas", View::whole);
            cluster.kill(&view, view.leader());
            killed += 1;
        }
        running.join().expect("redis-benchmark failed")
    });
    assert!(killed > 1, "it was over too soon");
    let hashes = cluster.settle().hashes();
    say(&format!(
        "{name}: {killed} leaders killed, requests/s: {rates}; {hashes}"
    ));
    cluster.stop();
}

fn benchmark(address: SocketAddr) -> String {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let requests = scaled(20_000).to_string();
    let output = Command::new("timeout")
        .args([PATIENCE_SECONDS, "redis-benchmark"])
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
