//! Leaders die while clients count.
//!
//! Clients of a surviving node must not notice more than a pause. Their node is not killed, and it
//! is the next leader half of the time. It is made to give that up as a machine does that is out of
//! memory: stopped until the others have elected somebody, and continued, which breaks no
//! connection and makes it a deposed leader that does not know. Clients of a sidecar frontend
//! survive any node, so there every leader is killed.

use crate::clients::counting::{Control, Tally, check_everywhere, count};
use crate::clients::resp::Client;
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::{random, scaled, setting};
use crate::fixture::view::View;
use fastrand::Rng;
use std::net::SocketAddr;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
const KILLS: usize = 10;
/// The time after a kill in which the slowest reply is looked for.
const GAP_WATCHED: Duration = Duration::from_millis(1500);

#[test]
fn clients_of_a_survivor_count_through_leaders_deaths() {
    let name = "clients_of_a_survivor_count_through_leaders_deaths";
    if let Some(setup) = Setup::redis(name, &[]) {
        leaders_die(name, setup, Home::Survivor, KILLS);
    }
}

#[test]
fn clients_of_a_sidecar_count_through_leaders_deaths() {
    let name = "clients_of_a_sidecar_count_through_leaders_deaths";
    if let Some(setup) = Setup::redis(name, &[]) {
        leaders_die(name, setup, Home::Sidecar, KILLS);
    }
}

#[test]
fn clients_of_the_store_count_through_leaders_deaths() {
    let name = "clients_of_the_store_count_through_leaders_deaths";
    leaders_die(
        name,
        Setup::store().perturbed(50),
        Home::Survivor,
        KILLS / 2,
    );
}

/// The frontend that the clients are connected to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    /// A node that is not killed.
    Survivor,
    /// `brolga frontend`.
    Sidecar,
}

fn leaders_die(name: &str, setup: Setup, home: Home, kills: usize) {
    let mut rng = random(name);
    let mut cluster = Cluster::start(setup);
    let survivor = cluster.settle().followers()[0];
    let (address, spared) = match home {
        Home::Survivor => (cluster.address(survivor), Some(survivor)),
        Home::Sidecar => (cluster.start_frontend(), None),
    };
    let control = Control::default();
    let mut pauses = 0;
    let tallies = thread::scope(|scope| {
        let stop = control.guard();
        let counters = start_counting(scope, &[address], &control);
        for kill in 1..=scaled(kills) {
            pauses += kill_a_leader(&cluster, spared, &mut rng, &control);
            assert!(
                !counters.iter().any(ScopedJoinHandle::is_finished),
                "kill {kill}"
            );
        }
        wait_for_progress(&control);
        drop(stop);
        joined(counters)
    });
    no_connection_broke(&tallies);
    cluster.settle();
    let acknowledged = check_everywhere(&cluster, &tallies);
    let hashes = cluster.settle().hashes();
    let kills = scaled(kills);
    say(&format!(
        "{name}: {kills} leaders killed, {pauses} paused; {acknowledged} replies right, {hashes}"
    ));
    cluster.stop();
}

/// Sometimes as soon as there are three nodes again, sometimes when all have caught up. Returns how
/// often the spared node had to be paused first.
pub fn kill_a_leader(
    cluster: &Cluster,
    spared: Option<u64>,
    rng: &mut Rng,
    control: &Control,
) -> usize {
    let caught_up = rng.u64(..2) == 0;
    let mut pauses = 0;
    loop {
        let view = cluster.wait_for("a leader to kill", |view| {
            let all = if caught_up {
                view.whole()
            } else {
                view.alive == view.replicas.len()
            };
            all && view.leader.is_some()
        });
        let leader = view.leader();
        thread::sleep(Duration::from_millis(rng.u64(0..=300)));
        wait_for_progress(control);
        if spared != Some(leader) {
            cluster.kill(&view, leader);
            return pauses;
        }
        cluster.pause_until_deposed(&view, leader);
        pauses += 1;
    }
}

/// Ends when the clients have got some more replies.
pub fn wait_for_progress(control: &Control) {
    let before = control.acknowledged();
    let more = crate::harness::eventually(|| control.acknowledged() >= before + 200);
    assert!(more, "the clients get no replies");
}

pub fn start_counting<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    addresses: &[SocketAddr],
    control: &'scope Control,
) -> Vec<ScopedJoinHandle<'scope, Tally>> {
    let targets = addresses.iter().copied().cycle();
    let numbered = targets.take(CLIENTS).enumerate();
    numbered
        .map(|(number, address)| scope.spawn(move || count(number, address, control)))
        .collect()
}

pub fn joined(counters: Vec<ScopedJoinHandle<'_, Tally>>) -> Vec<Tally> {
    let tallies = counters.into_iter().map(|counter| counter.join());
    tallies
        .map(|tally| tally.expect("a client failed"))
        .collect()
}

pub fn no_connection_broke(tallies: &[Tally]) {
    for tally in tallies {
        assert!(tally.broke.is_none(), "a survivor's connection: {tally:?}");
    }
}

#[test]
fn nothing_acknowledged_is_missing_after_all_died_at_once() {
    let name = "nothing_acknowledged_is_missing_after_all_died_at_once";
    if let Some(setup) = Setup::redis(name, &[]) {
        all_die(name, setup);
    }
}

#[test]
fn the_store_misses_nothing_after_all_died_at_once() {
    all_die(
        "the_store_misses_nothing_after_all_died_at_once",
        Setup::store(),
    );
}

fn all_die(name: &str, setup: Setup) {
    let mut cluster = Cluster::start(setup);
    let nodes: Vec<u64> = cluster.settle().replicas.iter().map(|it| it.id).collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| cluster.address(*node)).collect();
    let control = Control::default();
    let tallies = thread::scope(|scope| {
        let _stop = control.guard();
        let counters = start_counting(scope, &addresses, &control);
        for _ in 0..scaled(20) {
            wait_for_progress(&control);
        }
        cluster.kill_everything();
        joined(counters)
    });
    cluster.start_again();
    cluster.settle();
    let acknowledged = check_everywhere(&cluster, &tallies);
    // It is not only there, it also works.
    let address = cluster.address(2);
    let control = Control::default();
    let more = thread::scope(|scope| {
        let _stop = control.guard();
        let counter = scope.spawn(|| count(CLIENTS, address, &control));
        wait_for_progress(&control);
        drop(_stop);
        counter.join().expect("a client failed")
    });
    assert!(more.broke.is_none(), "{more:?}");
    let hashes = cluster.settle().hashes();
    say(&format!(
        "{name}: {acknowledged} acknowledged replies, all there; {hashes}"
    ));
    cluster.stop();
}

#[test]
fn the_gap_of_a_failover_is_stated() {
    let name = "the_gap_of_a_failover_is_stated";
    let runs: usize = setting("BROLGA_E2E_FAILOVERS", 5);
    let mut rng = random(name);
    let cluster = Cluster::start(Setup::store());
    let mut counter = 0;
    let mut gaps = Vec::new();
    for _ in 0..runs {
        let view = cluster.settle();
        thread::sleep(Duration::from_millis(rng.u64(0..=100)));
        gaps.push(gap(&cluster, &view, &mut rng, &mut counter));
    }
    cluster.settle();
    gaps.sort();
    let percentile = |hundredth: usize| gaps[(runs * hundredth).div_ceil(100).max(1) - 1];
    let (half, most, last) = (percentile(50), percentile(99), percentile(100));
    say(&format!(
        "{name}: over {runs} runs p50 {} ms, p99 {} ms, most {} ms",
        half.as_millis(),
        most.as_millis(),
        last.as_millis()
    ));
    cluster.stop();
}

/// The slowest reply that a client of a survivor sees around the leader's death.
fn gap(cluster: &Cluster, view: &View, rng: &mut Rng, counter: &mut u64) -> Duration {
    let followers = view.followers();
    let home = followers[rng.usize(..followers.len())];
    let mut client = Client::connect(cluster.address(home));
    let mut ask = || {
        let started = Instant::now();
        *counter += 1;
        client.exchange(&["INCR", "gap"], &format!(":{counter}\r\n"));
        started.elapsed()
    };
    for _ in 0..50 {
        ask();
    }
    let killed = Instant::now();
    crate::harness::signal(view.pid(view.leader()), "KILL");
    let mut slowest = Duration::ZERO;
    while killed.elapsed() < GAP_WATCHED {
        slowest = slowest.max(ask());
    }
    slowest
}
