//! An acknowledged write survives `kill -9`, and so does what a read has told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Client, Store, request};

const WRITERS: usize = 6;

#[test]
fn acknowledged_writes_survive_kill_9() {
    survives("full", 3);
}

#[test]
fn acknowledged_writes_survive_kill_9_unsynced() {
    survives("none", 3);
}

fn survives(sync: &str, rounds: usize) {
    let directory = tempfile::tempdir().unwrap();
    let mut promised = BTreeMap::new();
    for round in 0..rounds {
        let mut store = Store::start_with(directory.path(), &["--sync", sync]);
        check(&store, &promised);
        promised.extend(write_until_killed(&mut store, round));
        println!("round {round}: {} keys promised", promised.len());
    }
    check(&Store::start(directory.path()), &promised);
}

/// Several connections write, some in pipelines, and the store is killed in the middle. Returns
/// what was acknowledged.
fn write_until_killed(store: &mut Store, round: usize) -> BTreeMap<String, String> {
    let acknowledged = AtomicU64::new(0);
    let address = store.address;
    thread::scope(|scope| {
        let count = &acknowledged;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write(address, round, writer, count)))
            .collect();
        while acknowledged.load(Ordering::Relaxed) < 600 {
            thread::sleep(Duration::from_millis(1));
        }
        store.kill();
        writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect()
    })
}

fn write(
    address: SocketAddr,
    round: usize,
    writer: usize,
    count: &AtomicU64,
) -> BTreeMap<String, String> {
    let mut client = Client::new(address);
    let (mut promised, depth) = (BTreeMap::new(), 1 + writer % 3 * 5);
    for burst in 0.. {
        let keys: Vec<_> = (0..depth)
            .map(|i| format!("{round}:{writer}:{burst}:{i}"))
            .collect();
        let requests: Vec<u8> = keys
            .iter()
            .flat_map(|key| request(&format!("SET {key} value-of-{key}")))
            .collect();
        if !client.try_send(&requests) {
            break;
        }
        for key in keys {
            let Some(reply) = client.try_reply() else {
                return promised;
            };
            assert_eq!(reply, "+OK");
            promised.insert(key.clone(), format!("value-of-{key}"));
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    promised
}

fn check(store: &Store, promised: &BTreeMap<String, String>) {
    let mut client = store.connect();
    for (key, value) in promised {
        assert_eq!(&client.ask(&format!("GET {key}")), value, "{key}");
    }
}

/// One connection counts; another reads, and what it is told must not be taken back.
#[test]
fn a_value_that_was_read_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::start(directory.path());
    let address = store.address;
    let seen = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::new(address);
            let incr = request("INCR n");
            while client.try_send(&incr) && client.try_reply().is_some() {}
        });
        scope.spawn(|| {
            let mut client = Client::new(address);
            let get = request("GET n");
            while client.try_send(&get)
                && let Some(reply) = client.try_reply()
            {
                seen.store(reply.parse().unwrap_or(0), Ordering::Relaxed);
            }
        });
        while seen.load(Ordering::Relaxed) < 50 {
            thread::sleep(Duration::from_millis(1));
        }
        store.kill();
    });
    let recovered: u64 = Store::start(directory.path())
        .connect()
        .ask("GET n")
        .parse()
        .unwrap();
    let seen = seen.into_inner();
    assert!(recovered >= seen, "read {seen}, recovered {recovered}");
}

#[test]
fn removals_and_the_last_of_several_writes_survive() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::start(directory.path());
    let mut client = store.connect();
    client.send(b"SET a 1\r\nSET a 2\r\nSET b 1\r\nSET c 1\r\nDEL b\r\n");
    let replies: Vec<_> = (0..5).map(|_| client.reply()).collect();
    assert_eq!(replies, ["+OK", "+OK", "+OK", "+OK", ":1"]);
    assert_eq!(client.ask("DEL c"), ":1");
    store.kill();

    let store = Store::start(directory.path());
    let mut client = store.connect();
    assert_eq!(client.ask("KEYS *"), "[a]");
    assert_eq!(client.ask("GET a"), "2");
    assert!(
        store.announcement.contains("1 keys in "),
        "{}",
        store.announcement
    );
}
