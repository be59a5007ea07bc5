//! A relay that connects to itself, to nobody, and to outside servers.

use crate::chance::{Chance, scaled};
use crate::cluster::{Cluster, Setup, say};
use crate::echo::{BYTES_EACH, send_and_compare};
use crate::harness::free_port;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Not the one of a version manager, which is a shell script.
const PYTHON: &str = "/usr/bin/python3";
const CLIENTS: usize = 6;

/// The relay; `kind` is `events` or `threads`. `None`, and said so, when there is no python3.
fn setup(test: &str, kind: &str, target: SocketAddr, echo: Option<u16>) -> Option<Setup> {
    if !Path::new(PYTHON).exists() {
        say(&format!(
            "{test}: SKIPPED, python3 is not installed (tests/setup.sh)"
        ));
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/relay.py");
    let target = target.to_string();
    Some(Setup::new(|port| {
        let port = port.to_string();
        let fixed = [PYTHON, script, kind, &port, &target];
        let echo = echo.map(|echo| echo.to_string());
        let words = fixed.map(str::to_owned).into_iter();
        words.chain(echo).collect()
    }))
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
    let target = SocketAddr::from(([127, 0, 0, 1], echo));
    let Some(setup) = setup(test, kind, target, Some(echo)) else {
        return;
    };
    let mut chance = Chance::shown(test);
    let cluster = Cluster::start(setup.perturbed(200));
    let back = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let address = cluster.address(1 + number as u64 % 3);
            let chance = Chance::seeded(chance.next());
            let back = &back;
            scope.spawn(move || send_and_compare(address, chance, back));
        }
    });
    let bytes = back.load(Ordering::Relaxed);
    assert_eq!(bytes, CLIENTS * scaled(BYTES_EACH));
    let hashes = cluster.settle().hashes();
    say(&format!(
        "{test}: {CLIENTS} clients, {bytes} bytes right, {hashes}"
    ));
    cluster.stop();
}

#[test]
fn nobody_is_found_on_loopback_whatever_runs_on_the_machine() {
    let test = "nobody_is_found_on_loopback_whatever_runs_on_the_machine";
    // Of this machine, not of the server.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let Some(setup) = setup(test, "events", other.local_addr().unwrap(), None) else {
        return;
    };
    let cluster = Cluster::start(setup);
    let mut said = String::new();
    let mut client = TcpStream::connect(cluster.address(2)).unwrap();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "Connection refused\n");
    cluster.settle();
    cluster.stop();
}
