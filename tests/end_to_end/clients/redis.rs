//! Redis says the same on every replica, also where it depends on time, chance or addresses.

use crate::clients::resp::{Client, Reply, request};
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::scaled;
use crate::harness::eventually;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Lines of `INFO` that differ by request, because each request is a moment of its own.
const MOMENTARY: [&str; 10] = [
    "server_time_usec",
    "uptime_in",
    "lru_clock",
    "used_cpu",
    "instantaneous",
    "total_",
    "used_memory",
    "mem_",
    "allocator",
    "client",
];

#[test]
fn replicas_agree_on_time_chance_and_addresses() {
    let name = "replicas_agree_on_time_chance_and_addresses";
    if let Some(setup) = Setup::redis(name, &["--enable-debug-command", "yes"]) {
        agree(name, setup);
    }
}

#[test]
fn replicas_agree_when_delayed_at_random() {
    let name = "replicas_agree_when_delayed_at_random";
    if let Some(setup) = Setup::redis(name, &["--enable-debug-command", "yes"]) {
        agree(name, setup.perturbed(300));
    }
}

fn agree(name: &str, setup: Setup) {
    let cluster = Cluster::start(setup);
    let view = cluster.settle();
    let mut order = vec![view.leader()];
    order.extend(view.followers());
    let mut clients: Vec<Client> = order
        .iter()
        .map(|node| Client::connect(cluster.address(*node)))
        .collect();
    counters(&mut clients);
    clock(&mut clients);
    expiry(&mut clients);
    chance(&mut clients);
    identity(&mut clients);
    same_everywhere(&mut clients, &["DEBUG", "DIGEST"]);
    let view = cluster.settle();
    say(&format!("{name}: {}", view.hashes()));
    cluster.stop();
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let name = "a_client_that_does_not_read_holds_up_nobody";
    let Some(setup) = Setup::redis(name, &[]) else {
        return;
    };
    let cluster = Cluster::start(setup);
    let view = cluster.settle();
    let mut slow = Client::connect(cluster.address(view.followers()[0]));
    let mut other = Client::connect(cluster.address(view.followers()[0]));
    let big = "0123456789abcdef".repeat(1 << 16);
    slow.exchange(&["SET", "big", &big], "+OK\r\n");
    // More than any buffer on the way holds.
    let asked = scaled(64);
    slow.send(&request(&["GET", "big"]).repeat(asked)).unwrap();
    for number in 1..=1000 {
        other.exchange(&["INCR", "counter"], &format!(":{number}\r\n"));
    }
    let expected = format!("${}\r\n{big}\r\n", big.len());
    for _ in 0..asked {
        slow.expect(expected.as_bytes()).unwrap();
    }
    slow.exchange(&["INCR", "counter"], ":1001\r\n");
    say(&format!(
        "{name}: {asked} MiB read late, {}",
        cluster.settle().hashes()
    ));
    cluster.stop();
}

fn counters(clients: &mut [Client]) {
    for number in 1..=scaled(60) {
        let turn = number % clients.len();
        clients[turn].exchange(&["INCR", "counter"], &format!(":{number}\r\n"));
        let text = number.to_string();
        clients[turn].exchange(&["SET", "text", &text], "+OK\r\n");
        let expected = format!("${}\r\n{text}\r\n", text.len());
        for client in clients.iter_mut() {
            client.exchange(&["GET", "text"], &expected);
        }
    }
}

/// The clock is one for all replicas, so it never goes back from one request to the next.
fn clock(clients: &mut [Client]) {
    let mut last = 0;
    for turn in 0..scaled(30) {
        let turn = turn % clients.len();
        let reply = clients[turn].ask(&["TIME"]);
        let parts = reply.array();
        let now = parts[0].number() * 1_000_000 + parts[1].number();
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
    let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let apart = Duration::from_micros(last).abs_diff(real);
    assert!(apart < Duration::from_secs(5), "{apart:?} off");
}

fn expiry(clients: &mut [Client]) {
    clients[1].exchange(&["SET", "late", "x", "PX", "600000"], "+OK\r\n");
    clients[0].exchange(&["SET", "later", "x"], "+OK\r\n");
    clients[2].exchange(&["EXPIRE", "later", "1000"], ":1\r\n");
    // To the millisecond, because it is asked of each replica's own memory.
    same_everywhere(clients, &["PEXPIRETIME", "late"]);
    same_everywhere(clients, &["PEXPIRETIME", "later"]);
    let mut left = 1_000_001;
    for client in clients.iter_mut() {
        let now = client.ask(&["PTTL", "later"]).integer();
        assert!((990_000..left).contains(&now), "{now} ms, before {left}");
        left = now + 1;
    }
    clients[0].exchange(&["SET", "soon", "x", "PX", "200"], "+OK\r\n");
    let gone = eventually(|| clients[1].ask(&["GET", "soon"]) == Reply::Bulk(None));
    assert!(gone, "it does not expire");
    for client in clients.iter_mut() {
        client.exchange(&["EXISTS", "soon"], ":0\r\n");
    }
}

fn chance(clients: &mut [Client]) {
    for member in 0..200 {
        let member = member.to_string();
        clients[0].exchange(&["SADD", "set", &member], ":1\r\n");
        clients[1].exchange(&["SET", &format!("key{member}"), &member], "+OK\r\n");
    }
    let mut popped = BTreeSet::new();
    for turn in 0..90 {
        let turn = turn % clients.len();
        let member = clients[turn].ask(&["SPOP", "set"]).number();
        assert!(popped.insert(member), "{member} was popped twice");
        let other = clients[turn].ask(&["SRANDMEMBER", "set"]).number();
        assert!(!popped.contains(&other), "{other} is not there any more");
        let key = clients[turn].ask(&["RANDOMKEY"]).text();
        clients[0].exchange(&["EXISTS", &key], ":1\r\n");
    }
    let many = clients[2].ask(&["SPOP", "set", "50"]);
    assert_eq!(many.array().len(), 50);
    same_everywhere(clients, &["SMEMBERS", "set"]);
    same_everywhere(clients, &["SCAN", "0"]);
}

fn identity(clients: &mut [Client]) {
    for section in [
        "server",
        "replication",
        "keyspace",
        "cluster",
        "modules",
        "persistence",
    ] {
        equal(clients, |client| settled_lines(client, section));
    }
    // Addresses in memory: layout and allocation were the same.
    equal(clients, |client| {
        let text = client.ask(&["DEBUG", "OBJECT", "counter"]).text();
        let at = text.split(' ').find(|word| word.starts_with("at:"));
        at.expect("DEBUG OBJECT tells the address").to_owned()
    });
    let everything = clients[0].ask(&["INFO", "everything"]).text();
    assert!(everything.contains("# Commandstats"), "{everything}");
}

/// A section of `INFO` without what differs by request.
fn settled_lines(client: &mut Client, section: &str) -> String {
    let text = client.ask(&["INFO", section]).text();
    assert!(section != "server" || text.contains("run_id:"), "{text}");
    let momentary = |line: &&str| MOMENTARY.iter().any(|name| line.starts_with(name));
    let kept = text.lines().filter(|line| !momentary(line));
    let kept = kept.filter(|line| !line.starts_with("db0:"));
    kept.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn same_everywhere(clients: &mut [Client], words: &[&str]) {
    equal(clients, |client| client.ask(words));
}

#[track_caller]
fn equal<T: PartialEq + std::fmt::Debug>(
    clients: &mut [Client],
    mut answer: impl FnMut(&mut Client) -> T,
) {
    let answers: Vec<T> = clients.iter_mut().map(&mut answer).collect();
    let all = answers.iter().all(|it| *it == answers[0]);
    assert!(all, "the replicas say different things: {answers:#?}");
}
