//! Replicas in one process, over loopback TCP and real files.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod cluster;
mod disks;
mod learners;
mod links;

use brolga_consensus::{OpenError, ReplicaConfig, Slot};
use bytes::Bytes;
use cluster::{Cluster, values};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const CLUSTER: u128 = 0x00b4_016a;
/// Far beyond what any of it takes: it only tells a hang from a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Long, so that no slow disk costs a leader its office: all nodes share one thread.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

#[test]
fn a_restarted_replica_catches_up_from_the_leaders_disk() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let last = cluster.propose(leader, values(0..10_000));
    cluster.wait_chosen(last);
    let away = leader % 3 + 1;
    cluster.stop(away);
    // More than the leader keeps in memory.
    let last = cluster.propose(leader, values(10_000..40_000));
    cluster.wait_chosen(last);
    cluster.start(away);
    // It has to catch up while the leader goes on.
    let last = cluster.propose(leader, values(40_000..50_000));
    cluster.wait_chosen(last);
    let expected = values(0..50_000);
    for id in 1..=3 {
        assert!(cluster.log(id) == expected, "the log of node {id} differs");
    }
}

#[test]
fn a_lost_leader_is_replaced_and_nothing_chosen_is_lost() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let last = cluster.propose(leader, values(0..1000));
    cluster.wait_chosen(last);
    // The sockets close as they do when the process is killed.
    cluster.stop(leader);
    let before = Instant::now();
    let next = cluster.elect();
    let took = before.elapsed();
    println!("fail-over took {took:?}");
    assert_ne!(next, leader);
    assert!(
        took < ELECTION_TIMEOUT,
        "fail-over waited for a timeout: {took:?}"
    );
    let last = cluster.propose(next, values(1000..2000));
    cluster.start(leader);
    cluster.wait_chosen(last);
    for id in 1..=3 {
        assert!(
            cluster.log(id) == values(0..2000),
            "the log of node {id} differs"
        );
    }
}

#[test]
fn all_may_stop_and_start_again() {
    for size in [1, 2, 3, 5] {
        let mut cluster = Cluster::new(size);
        let leader = cluster.elect();
        let last = cluster.propose(leader, values(0..500));
        cluster.wait_chosen(last);
        for id in 1..=size {
            cluster.stop(id);
        }
        for id in 1..=size {
            cluster.start(id);
        }
        let leader = cluster.elect();
        let last = cluster.propose(leader, values(500..600));
        cluster.wait_chosen(last);
        for id in 1..=size {
            assert!(
                cluster.log(id) == values(0..600),
                "the log of node {id} of {size} differs"
            );
        }
    }
}

#[test]
fn an_idle_cluster_sleeps() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    let settled = Instant::now() + Duration::from_millis(300);
    cluster.run_until("calm", |_| Instant::now() >= settled);
    let (mut turns, end) = (0, Instant::now() + Duration::from_secs(1));
    while Instant::now() < end {
        cluster.turn();
        turns += 1;
    }
    // 20 heartbeats to each of two followers, their echoes, some pings.
    assert!(turns < 200, "{turns} turns in an idle second");
}

#[test]
fn senseless_configurations_are_refused() {
    let mut cluster = Cluster::new(1);
    cluster.stop(1);
    let good = cluster.config(1);
    let bad = [
        ReplicaConfig {
            id: 2,
            ..good.clone()
        },
        ReplicaConfig {
            members: vec![good.members[0]; 2],
            ..good.clone()
        },
        ReplicaConfig {
            election_timeout_min: Duration::from_secs(9),
            ..good.clone()
        },
        ReplicaConfig {
            heartbeat: Duration::from_secs(9),
            ..good.clone()
        },
    ];
    for config in bad {
        assert!(matches!(cluster.open(config), Err(OpenError::Config(_))));
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let members = vec![(1, taken.local_addr().unwrap())];
    let error = cluster.open(ReplicaConfig { members, ..good }).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot listen on 127.0.0.1:"),
        "{error}"
    );
}

/// Not a test but a figure: `cargo test --release -- --ignored --nocapture throughput`.
#[test]
#[ignore = "measures"]
fn throughput() {
    for size in [1, 3] {
        let mut cluster = Cluster::new(size);
        let leader = cluster.elect();
        let value = Bytes::from(vec![b'x'; 256]);
        let begin = Instant::now();
        let count = 300_000;
        cluster.propose(leader, std::iter::repeat_n(value.clone(), count));
        cluster.wait_chosen(count as Slot);
        let rate = count as f64 / begin.elapsed().as_secs_f64();
        println!("{size} nodes in one thread: {rate:.0} values of 256 bytes per second");
        let mut times = Vec::new();
        for _ in 0..500 {
            let begin = Instant::now();
            let slot = cluster.propose(leader, [value.clone()]);
            cluster.run_until("commit", |c| c.get(leader).chosen_upto() >= slot);
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        println!(
            "one at a time: median {:?}, 99% {:?}",
            times[250], times[495]
        );
    }
}
