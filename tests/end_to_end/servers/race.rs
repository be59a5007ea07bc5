//! The race of CRANE's paper: two clients of two nodes put and get the same thing at the same moment.
//! Either may come first, but on all replicas it is the same one.

use super::recipe::{PreparedRecipe, Target, wait_until_ready};
use super::web::http;
use super::web::nginx::Nginx;
use crate::clients::resp;
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::{random, scaled};
use std::sync::Barrier;
use std::thread;

const ROUNDS: usize = 1000;
/// Rounds after which every replica is asked; their hashes say the same of all rounds.
const ASK_ALL_EVERY: usize = 10;
/// Enough to let either come first.
const PERTURB_US: u32 = 100;

/// A thing that can be put and got.
trait Register: Send {
    fn put(&mut self, value: &str);
    fn get(&mut self) -> String;
}

impl Register for resp::Client {
    fn put(&mut self, value: &str) {
        self.exchange(&["SET", "thing", value], "+OK\r\n");
    }

    fn get(&mut self) -> String {
        self.ask(&["GET", "thing"]).text()
    }
}

impl Register for http::Client {
    fn put(&mut self, value: &str) {
        let reply = self.ask("PUT", "/put/thing", value.as_bytes());
        assert!([201, 204].contains(&reply.status), "{reply:?}");
    }

    fn get(&mut self) -> String {
        String::from_utf8(self.body("/put/thing")).unwrap()
    }
}

#[test]
fn a_race_for_a_key_ends_alike_everywhere() {
    let name = "a_race_for_a_key_ends_alike_everywhere";
    let Some(setup) = Setup::redis(name, &[]) else {
        return;
    };
    let cluster = Cluster::start(setup.perturbed(PERTURB_US));
    cluster.settle();
    race(name, cluster, |cluster, node| {
        resp::Client::connect(cluster.address(node))
    });
}

#[test]
fn a_race_for_a_file_ends_alike_everywhere() {
    let name = "a_race_for_a_file_ends_alike_everywhere";
    let recipe = Nginx::new(&mut random(name));
    let prepared = PreparedRecipe::new(&recipe);
    let cluster = Cluster::start(prepared.setup.perturbed(PERTURB_US));
    let target =
        |cluster: &Cluster, node| Target::new(node, &cluster.node_dir(node), &prepared.ports);
    cluster.settle();
    wait_until_ready(&recipe, &target(&cluster, 1));
    race(name, cluster, |cluster, node| {
        http::Client::connect(&target(cluster, node))
    });
}

/// Number of races that each client has won.
#[derive(Debug, Default)]
struct Outcomes {
    /// Of two that put, the left one was overwritten.
    left_first: usize,
    /// Who got saw what was put at the same moment.
    put_first: usize,
}

fn race<R: Register>(name: &str, cluster: Cluster, connect: impl Fn(&Cluster, u64) -> R) {
    let rounds = scaled(ROUNDS);
    let [mut left, mut right] = [2, 3].map(|node| connect(&cluster, node));
    let mut readers = [1, 2, 3].map(|node| connect(&cluster, node));
    left.put("nothing");
    let mut outcomes = Outcomes::default();
    let start = Barrier::new(2);
    for round in 0..rounds {
        let [before, other] = [format!("left{round}"), format!("right{round}")];
        at_once(&start, || left.put(&before), || right.put(&other));
        let last = if round.is_multiple_of(ASK_ALL_EVERY) {
            agreed(&mut readers)
        } else {
            left.get()
        };
        assert!(last == before || last == other, "{last} in round {round}");
        outcomes.left_first += usize::from(last == other);

        let fresh = format!("fresh{round}");
        let ((), got) = at_once(&start, || left.put(&fresh), || right.get());
        assert!(got == fresh || got == last, "{got} in round {round}");
        outcomes.put_first += usize::from(got == fresh);
    }
    assert_eq!(agreed(&mut readers), format!("fresh{}", rounds - 1));
    let hashes = cluster.settle().hashes();
    say(&format!(
        "{name}: of {rounds} rounds {outcomes:?}, {hashes}"
    ));
    cluster.stop();
}

/// Does both, starting at the same moment.
fn at_once<L, R: Send>(
    start: &Barrier,
    left: impl FnOnce() -> L,
    right: impl FnOnce() -> R + Send,
) -> (L, R) {
    thread::scope(|scope| {
        let right = scope.spawn(|| {
            start.wait();
            right()
        });
        start.wait();
        (left(), right.join().expect("the other side failed"))
    })
}

/// The value that all replicas give.
#[track_caller]
fn agreed<R: Register>(readers: &mut [R; 3]) -> String {
    let [first, second, third] = readers.each_mut().map(R::get);
    assert!(
        first == second && second == third,
        "{first} {second} {third}"
    );
    first
}
