//! Clients that count, each on a counter of its own and all of them on a shared one, in pipelined
//! batches. Every reply of the own counter is known beforehand, byte for byte; the shared counter
//! must hand out every number exactly once, to each client in rising order.

use crate::clients::resp::{Client, Reply, request};
use crate::fixture::cluster::Cluster;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Requests in flight: so many on each of the two counters.
pub const DEPTH: u64 = 8;
/// Between batches. Every replica has to repeat all of it each time it is started again.
const THINK: Duration = Duration::from_millis(10);
const SHARED: &str = "shared";
const OWN: &str = "own";

/// Tells the clients when to end, also when the test panics: threads in a scope are waited for.
#[derive(Debug, Default)]
pub struct Control {
    stopped: AtomicBool,
    acknowledged: AtomicU64,
}

/// See [`Control`].
#[derive(Debug)]
pub struct StopOnDrop<'a>(&'a Control);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

impl Control {
    pub fn guard(&self) -> StopOnDrop<'_> {
        StopOnDrop(self)
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// The replies that one client has seen.
#[derive(Debug)]
pub struct Tally {
    key: String,
    acknowledged: u64,
    sent: u64,
    shared: Vec<u64>,
    /// The error that broke the connection, if one did.
    pub broke: Option<io::Error>,
}

/// Counts until told to stop, or until the connection breaks.
pub fn count(number: usize, address: SocketAddr, control: &Control) -> Tally {
    let mut client = Client::connect(address);
    let mut tally = Tally {
        key: format!("{OWN}{number}"),
        acknowledged: 0,
        sent: 0,
        shared: Vec::new(),
        broke: None,
    };
    while !control.stopped() {
        match tally.batch(&mut client) {
            Ok(()) => control.acknowledged.fetch_add(2 * DEPTH, Ordering::Relaxed),
            Err(error) => {
                tally.broke = Some(error);
                break;
            }
        };
        thread::sleep(THINK);
    }
    tally
}

impl Tally {
    fn batch(&mut self, client: &mut Client) -> io::Result<()> {
        let own = request(&["INCR", &self.key]);
        let pair = [own, request(&["INCR", SHARED])].concat();
        let bytes = pair.repeat(DEPTH.try_into().unwrap());
        self.sent += DEPTH;
        client.send(&bytes)?;
        for _ in 0..DEPTH {
            let expected = format!(":{}\r\n", self.acknowledged + 1);
            client.expect(expected.as_bytes())?;
            self.acknowledged += 1;
            let shared = client.reply()?.integer().try_into().unwrap();
            let last = self.shared.last();
            assert!(last < Some(&shared), "{shared} came after {last:?}");
            self.shared.push(shared);
        }
        Ok(())
    }
}

/// Asks a replica for the counters. Nothing that was acknowledged may be missing or be there twice;
/// what was under way when a connection broke may have been counted or not. Returns the number of
/// acknowledged requests.
#[track_caller]
pub fn check_at(address: SocketAddr, tallies: &[Tally]) -> u64 {
    let mut client = Client::connect(address);
    for tally in tallies {
        let value = value(&mut client, &tally.key);
        let possible = tally.acknowledged..=tally.sent;
        assert!(possible.contains(&value), "{value}: {possible:?}");
        let sure = tally.broke.is_some() || value == tally.acknowledged;
        assert!(sure, "{value} counted of {}", tally.acknowledged);
    }
    check_shared(value(&mut client, SHARED), tallies);
    let own: u64 = tallies.iter().map(|tally| tally.acknowledged).sum();
    own + tallies.iter().map(|it| it.shared.len() as u64).sum::<u64>()
}

fn check_shared(value: u64, tallies: &[Tally]) {
    let replies = tallies.iter().flat_map(|tally| &tally.shared);
    let seen: BTreeSet<u64> = replies.clone().copied().collect();
    assert_eq!(seen.len(), replies.count(), "a number was given out twice");
    let acknowledged = seen.len() as u64;
    let sent: u64 = tallies.iter().map(|tally| tally.sent).sum();
    assert!(
        (acknowledged..=sent).contains(&value),
        "{value}: {acknowledged}..={sent}"
    );
    assert!(seen.last() <= Some(&value), "more given out than {value}");
    if tallies.iter().all(|tally| tally.broke.is_none()) {
        assert_eq!(value, acknowledged);
        assert_eq!(seen.last(), Some(&value), "a number was never given out");
    }
}

fn value(client: &mut Client, key: &str) -> u64 {
    match client.ask(&["GET", key]) {
        Reply::Bulk(None) => 0,
        reply => reply.number(),
    }
}

/// Every replica tells the same story.
#[track_caller]
pub fn check_everywhere(cluster: &Cluster, tallies: &[Tally]) -> u64 {
    let nodes = cluster.view().replicas;
    let counts = nodes.iter();
    let counts = counts.map(|node| check_at(cluster.address(node.id), tallies));
    counts.max().expect("there are replicas")
}
