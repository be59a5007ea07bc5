//! A relay that connects to itself, to nobody, and to a server outside.

use crate::clients::echo::{BYTES_EACH, send_and_compare};
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::outside::{Numberer, Outside, all_of};
use crate::fixture::settings::{random, scaled};
use crate::harness::{eventually, free_port};
use fastrand::Rng;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Not the one of a version manager, which is a shell script.
const PYTHON: &str = "/usr/bin/python3";
const CLIENTS: usize = 6;
/// Tries to depose a leader quickly enough, on a machine that may be busy.
const TRIES: usize = 10;

/// The relay; `kind` is `events` or `threads`. `None`, and said so, when there is no python3.
fn setup(test: &str, kind: &str, target: &str, echo: Option<u16>) -> Option<Setup> {
    if !Path::new(PYTHON).exists() {
        say(&format!(
            "{test}: SKIPPED, python3 is not installed (tests/setup.sh)"
        ));
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/python/relay.py");
    Some(Setup::new(|port| {
        let port = port.to_string();
        let fixed = [PYTHON, script, kind, &port, target];
        let echo = echo.map(|echo| echo.to_string());
        let words = fixed.map(str::to_owned).into_iter();
        words.chain(echo).collect()
    }))
}

/// The same, with a target on this machine's loopback that is not wrapped.
fn setup_outside(test: &str, kind: &str, target: SocketAddr) -> Option<Setup> {
    setup(test, kind, &target.to_string(), None).map(|setup| setup.flag("--host-loopback"))
}

#[test]
fn an_event_loop_that_connects_to_itself_relays_every_byte() {
    relay_to_itself(
        "an_event_loop_that_connects_to_itself_relays_every_byte",
        "events",
    );
}

#[test]
fn threads_that_connect_to_their_own_process_relay_every_byte() {
    relay_to_itself(
        "threads_that_connect_to_their_own_process_relay_every_byte",
        "threads",
    );
}

fn relay_to_itself(test: &str, kind: &str) {
    let echo = free_port();
    // Over version 6, where nobody listens, and then over version 4.
    let target = format!("localhost:{echo}");
    if let Some(setup) = setup(test, kind, &target, Some(echo)) {
        let cluster = Cluster::start(setup.perturbed(200));
        relay_bytes(test, &cluster);
        cluster.stop();
    }
}

/// Sends bytes through all nodes and compares what comes back.
fn relay_bytes(test: &str, cluster: &Cluster) {
    let mut rng = random(test);
    let back = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let address = cluster.address(1 + number as u64 % 3);
            let rng = Rng::with_seed(rng.u64(..));
            let back = &back;
            scope.spawn(move || send_and_compare(address, rng, back));
        }
    });
    let bytes = back.load(Ordering::Relaxed);
    assert_eq!(bytes, CLIENTS * scaled(BYTES_EACH));
    let hashes = cluster.settle().hashes();
    say(&format!(
        "{test}: {CLIENTS} clients, {bytes} bytes right, {hashes}"
    ));
}

#[test]
fn nobody_is_found_on_loopback_whatever_runs_on_the_machine() {
    let test = "nobody_is_found_on_loopback_whatever_runs_on_the_machine";
    let other = Outside::echo();
    let Some(setup) = setup(test, "events", &other.address.to_string(), None) else {
        return;
    };
    let cluster = Cluster::start(setup);
    let client = TcpStream::connect(cluster.address(2)).unwrap();
    assert_eq!(all_of(client), "Connection refused\n");
    cluster.settle();
    assert_eq!(other.connections(), 0);
    cluster.stop();
}

#[test]
fn a_name_that_no_file_knows_is_unknown() {
    let test = "a_name_that_no_file_knows_is_unknown";
    let Some(setup) = setup(test, "threads", "database.invalid:5432", None) else {
        return;
    };
    let cluster = Cluster::start(setup);
    for node in 1..=3 {
        let client = TcpStream::connect(cluster.address(node)).unwrap();
        assert_eq!(all_of(client), "Name or service not known\n");
    }
    cluster.settle();
    cluster.stop();
}

#[test]
fn an_event_loop_relays_every_byte_to_a_server_outside() {
    relay_to_outside(
        "an_event_loop_relays_every_byte_to_a_server_outside",
        "events",
    );
}

#[test]
fn threads_relay_every_byte_to_a_server_outside() {
    relay_to_outside("threads_relay_every_byte_to_a_server_outside", "threads");
}

fn relay_to_outside(test: &str, kind: &str) {
    let outside = Outside::echo();
    if let Some(setup) = setup_outside(test, kind, outside.address) {
        let cluster = Cluster::start(setup.perturbed(200));
        relay_bytes(test, &cluster);
        assert_eq!(outside.connections(), CLIENTS, "each is made once");
        cluster.stop();
    }
}

#[test]
fn nobody_listens_outside_and_the_server_is_told_so() {
    let test = "nobody_listens_outside_and_the_server_is_told_so";
    let target = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let Some(setup) = setup_outside(test, "threads", target) else {
        return;
    };
    let cluster = Cluster::start(setup);
    for node in 1..=3 {
        let client = TcpStream::connect(cluster.address(node)).unwrap();
        assert_eq!(all_of(client), "Connection refused\n");
    }
    cluster.settle();
    cluster.stop();
}

#[test]
fn nothing_is_sent_twice_to_a_server_outside_when_the_leader_dies() {
    let test = "nothing_is_sent_twice_to_a_server_outside_when_the_leader_dies";
    let outside = Outside::lines();
    let Some(setup) = setup_outside(test, "events", outside.address) else {
        return;
    };
    let cluster = Cluster::start(setup);
    let view = cluster.settle();
    let homes = view.followers();
    let done = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let numberers: Vec<Numberer> = thread::scope(|scope| {
        let names = ["a", "b", "c", "d"].into_iter().enumerate();
        let spawned: Vec<_> = names
            .map(|(at, name)| {
                let address = cluster.address(homes[at % homes.len()]);
                let (done, stop) = (&done, &stop);
                scope.spawn(move || {
                    let mut numberer = Numberer::new(name, address);
                    while !stop.load(Ordering::Relaxed) {
                        numberer.ask();
                        done.store(
                            done.load(Ordering::Relaxed).max(numberer.answered.len()),
                            Ordering::Relaxed,
                        );
                    }
                    numberer
                })
            })
            .collect();
        let progress = |more: usize| {
            let wanted = done.load(Ordering::Relaxed) + more;
            let moved = eventually(|| done.load(Ordering::Relaxed) >= wanted);
            assert!(moved, "the clients get no answers");
        };
        progress(50);
        cluster.kill(&view, view.leader());
        progress(100);
        stop.store(true, Ordering::Relaxed);
        let joined = spawned.into_iter().map(|numberer| numberer.join());
        joined.map(|it| it.expect("a client failed")).collect()
    });
    for numberer in &numberers {
        // Its relay's connection dies with the leader, its own with that; a connection that is opened
        // while nobody leads only waits.
        assert!(numberer.breaks >= 1, "{numberer:?}");
    }
    let hashes = cluster.settle().hashes();
    let answered = outside.check_lines(&numberers);
    say(&format!(
        "{test}: {answered} lines answered, none twice, {hashes}"
    ));
    cluster.stop();
}

#[test]
fn a_leader_that_is_deposed_keeps_its_connections_to_the_outside() {
    let test = "a_leader_that_is_deposed_keeps_its_connections_to_the_outside";
    let outside = Outside::lines();
    let Some(setup) = setup_outside(test, "events", outside.address) else {
        return;
    };
    let cluster = Cluster::start(setup);
    let mut numberers = Vec::new();
    let kept = (0..TRIES).any(|_| {
        let view = cluster.settle();
        let home = view.followers()[0];
        let mut numberer =
            Numberer::new(["a", "b", "c"][numberers.len() % 3], cluster.address(home));
        numberer.number = 1000 * numberers.len();
        for _ in 0..10 {
            numberer.ask();
        }
        assert_eq!(numberer.breaks, 0);
        cluster.pause_until_deposed(&view, view.leader());
        for _ in 0..10 {
            numberer.ask();
        }
        // Whoever is away for a second is given up, rightly.
        let kept = numberer.breaks == 0;
        numberers.push(numberer);
        kept
    });
    assert!(kept, "a leader that is deposed loses its connections");
    cluster.settle();
    outside.check_lines(&numberers);
    cluster.stop();
}

#[test]
fn a_replay_connects_to_nobody() {
    let test = "a_replay_connects_to_nobody";
    let outside = Outside::lines();
    let Some(setup) = setup_outside(test, "events", outside.address) else {
        return;
    };
    let mut cluster = Cluster::start(setup);
    let mut numberers = Vec::new();
    // Some that are closed, one that is not.
    for name in ["a", "b", "c", "d"] {
        let mut numberer = Numberer::new(name, cluster.address(1));
        for _ in 0..5 {
            numberer.ask();
        }
        if name != "d" {
            numberer.stream = None;
        }
        numberers.push(numberer);
    }
    cluster.settle();
    assert_eq!(outside.connections(), 4);
    cluster.kill_everything();
    cluster.start_again();
    cluster.settle();
    assert_eq!(outside.connections(), 4, "a replay has connected");
    let mut numberer = Numberer::new("e", cluster.address(2));
    numberer.ask();
    assert_eq!((numberer.breaks, outside.connections()), (0, 5));
    numberers.push(numberer);
    outside.check_lines(&numberers);
    let hashes = cluster.settle().hashes();
    say(&format!("{test}: {hashes}"));
    cluster.stop();
}
