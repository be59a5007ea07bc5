//! The bundled store, a server with several threads: writers on many connections, delays at random,
//! and a leader that dies in the middle.

use crate::clients::resp::Client;
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::{random, scaled};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const WRITERS: usize = 8;
const WRITES: usize = 300;

#[test]
fn writers_of_the_store_survive_its_leader() {
    survive("writers_of_the_store_survive_its_leader", Setup::store());
}

#[test]
fn writers_survive_when_delayed_at_random() {
    let setup = Setup::store().perturbed(300);
    survive("writers_survive_when_delayed_at_random", setup);
}

fn survive(name: &str, setup: Setup) {
    let mut rng = random(name);
    let cluster = Cluster::start(setup);
    let view = cluster.settle();
    let (leader, homes) = (view.leader(), view.followers());
    let done = AtomicUsize::new(0);
    let all = scaled(WRITES) * WRITERS;
    let kill_at = all / 4 + rng.usize(..all / 2);
    thread::scope(|scope| {
        for number in 0..WRITERS {
            let address = cluster.address(homes[number % homes.len()]);
            let done = &done;
            scope.spawn(move || write(number, address, done));
        }
        let reached = crate::harness::eventually(|| done.load(Ordering::Relaxed) >= kill_at);
        assert!(reached, "the writers are stuck");
        cluster.kill(&view, leader);
    });
    assert_eq!(done.load(Ordering::Relaxed), all);
    cluster.settle();
    for node in 1..=3 {
        read_back(cluster.address(node));
    }
    let hashes = cluster.settle().hashes();
    say(&format!(
        "{name}: leader killed after {kill_at} of {all} writes, {hashes}"
    ));
    cluster.stop();
}

fn write(writer: usize, address: SocketAddr, done: &AtomicUsize) {
    let mut client = Client::connect(address);
    for number in 1..=scaled(WRITES) {
        let key = format!("writer{writer}:{number}");
        match number % 3 {
            0 => client.exchange(&["SET", &key, &value(writer, number)], "+OK\r\n"),
            1 => {
                client.exchange(&["INCR", &key], ":1\r\n");
                client.exchange(&["DEL", &key], ":1\r\n");
            }
            _ => client.exchange(&["GET", &key], "$-1\r\n"),
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

fn value(writer: usize, number: usize) -> String {
    format!("{writer}/{number};").repeat(1 + number % 50)
}

fn read_back(address: SocketAddr) {
    let mut client = Client::connect(address);
    let kept = WRITERS * (scaled(WRITES) / 3);
    client.exchange(&["DBSIZE"], &format!(":{kept}\r\n"));
    for writer in 0..WRITERS {
        for number in (3..=scaled(WRITES)).step_by(3) {
            let value = value(writer, number);
            let expected = format!("${}\r\n{value}\r\n", value.len());
            client.exchange(&["GET", &format!("writer{writer}:{number}")], &expected);
        }
    }
}
