//! What every server has to stand: see [`survive`].

use super::recipe::{LoadControl, PreparedRecipe, Recipe, Target, stock, wait_until_ready};
use crate::fixture::cluster::{Cluster, say};
use crate::fixture::settings::{random, scaled};
use crate::fixture::view::View;
use crate::harness::{eventually, finish};
use fastrand::Rng;
use std::thread::{self, ScopedJoinHandle};

/// Enough to change every order that is not fixed, little enough to be quick.
const PERTURB_US: u32 = 200;

/// Tries to read the same from all replicas of a server that has timers of its own.
const DUMPS: usize = 5;

/// Three replicas, each delayed at random. Clients of a follower's node load the server; the leader
/// is killed in the middle of it and comes back. No client sees a reset or a wrong answer; at the end
/// the replicas have equal hashes, and so have the server's own data.
pub fn survive<R: Recipe>(test: &str, recipe: impl FnOnce(&mut Rng) -> R) {
    survive_in("serial", test, recipe);
}

/// The same in one of the scheduling policies.
pub fn survive_in<R: Recipe>(policy: &str, test: &str, recipe: impl FnOnce(&mut Rng) -> R) {
    let mut rng = random(test);
    let recipe = &recipe(&mut rng);
    let prepared = PreparedRecipe::new(recipe);
    say(&format!("{test}: {}", version(recipe)));
    let setup = prepared.setup.option("--policy", policy);
    let cluster = Cluster::start(setup.perturbed(PERTURB_US));
    let target = |node| Target::new(node, &cluster.node_dir(node), &prepared.ports);
    cluster.wait_for("all replicas", View::whole);
    for node in 1..=3 {
        wait_until_ready(recipe, &target(node));
    }
    let view = cluster.settle();
    let survivor = target(view.followers()[rng.usize(..2)]);
    let control = LoadControl::default();
    let steps = scaled(recipe.steps());
    let kill_after = steps + rng.usize(..steps);
    thread::scope(|scope| {
        let guard = control.end_on_drop();
        let (at, control) = (&survivor, &control);
        let clients = recipe.load().into_iter();
        let clients: Vec<_> = clients
            .map(|client| scope.spawn(move || client(at, control)))
            .collect();
        wait_for_steps(control, kill_after, &clients);
        cluster.kill(&view, view.leader());
        wait_for_steps(control, control.steps() + steps, &clients);
        cluster.wait_for("the dead node", View::whole);
        wait_for_steps(control, control.steps() + clients.len(), &clients);
        drop(guard);
        for client in clients {
            client.join().expect("a client failed");
        }
    });
    let dumps = quiet(&cluster, || {
        [1, 2, 3].map(|node| recipe.dump(&target(node)))
    });
    same(&dumps);
    let (hashes, steps) = (cluster.settle().hashes(), control.steps());
    say(&format!(
        "{test}: leader killed after {kill_after} of {steps} steps, {} bytes of data equal, {hashes}",
        dumps[0].len()
    ));
    cluster.stop();
}

/// Three replicas in containers. While stock clients load the server through a node that stays, all
/// replicas take checkpoints one after the other; then one is killed with its server. It has to come
/// back from its checkpoint, and to do what the others do; no client sees a reset or a wrong
/// answer.
pub fn come_back<R: Recipe>(test: &str, recipe: impl FnOnce(&mut Rng) -> R) {
    if let Err(error) = brolga_checkpoint::criu::Criu::probe() {
        say(&format!("{test}: SKIPPED, {error}"));
        return;
    }
    let mut rng = random(test);
    let recipe = &recipe(&mut rng);
    let prepared = PreparedRecipe::new(recipe);
    let cluster = Cluster::start(prepared.setup.option("--container", "required"));
    let target = |node| Target::new(node, &cluster.node_dir(node), &prepared.ports);
    cluster.wait_for("all replicas", View::whole);
    for node in 1..=3 {
        wait_until_ready(recipe, &target(node));
    }
    let view = cluster.settle();
    let stays = view.followers()[rng.usize(..2)];
    let goes = (1..=3).find(|node| *node != stays && *node != view.leader());
    let (survivor, goes) = (target(stays), goes.expect("there are three"));
    let control = LoadControl::default();
    let steps = scaled(recipe.steps()) / 2 + 1;
    thread::scope(|scope| {
        let guard = control.end_on_drop();
        let (at, control) = (&survivor, &control);
        let clients = recipe.load().into_iter();
        let clients: Vec<_> = clients
            .map(|client| scope.spawn(move || client(at, control)))
            .collect();
        wait_for_steps(control, steps, &clients);
        let data = cluster.data();
        let taken = finish(&["checkpoint", "now", "--data", data.to_str().unwrap()]);
        assert_eq!(taken.code, Some(0), "{taken:?}");
        wait_for_steps(control, control.steps() + steps, &clients);
        cluster.kill(&cluster.view(), goes);
        cluster.wait_for("the dead node", View::whole);
        wait_for_steps(control, control.steps() + steps, &clients);
        drop(guard);
        for client in clients {
            client.join().expect("a client failed");
        }
    });
    let dumps = quiet(&cluster, || {
        [1, 2, 3].map(|node| recipe.dump(&target(node)))
    });
    same(&dumps);
    let log = cluster.node_dir(goes).join("node.log");
    let log = std::fs::read_to_string(log).unwrap();
    let back = log.contains("the server is restored from a checkpoint");
    assert!(back, "it replayed the whole log:\n{log}");
    let (hashes, steps) = (cluster.settle().hashes(), control.steps());
    say(&format!(
        "{test}: replica {goes} came back, {steps} steps, {hashes}"
    ));
    cluster.stop();
}

/// The first line that has a number in it.
fn version(recipe: &dyn Recipe) -> String {
    let said = stock(&mut recipe.version());
    let mut lines = said.lines();
    let line = lines.find(|line| line.contains(|it: char| it.is_ascii_digit()));
    line.unwrap_or_default().trim().to_owned()
}

#[track_caller]
fn wait_for_steps(control: &LoadControl, steps: usize, clients: &[ScopedJoinHandle<'_, ()>]) {
    let reached = eventually(|| {
        let failed = clients.iter().any(ScopedJoinHandle::is_finished);
        failed || control.steps() >= steps
    });
    let failed = clients.iter().any(ScopedJoinHandle::is_finished);
    assert!(!failed, "a client ended before its time");
    assert!(reached, "the clients stick at {} steps", control.steps());
}

/// Dumps of a server that did not go on by itself meanwhile, or, after many tries, of one that does.
fn quiet(cluster: &Cluster, dump: impl Fn() -> [String; 3]) -> [String; 3] {
    for _ in 0..DUMPS {
        cluster.settle();
        let dumps = dump();
        if dumps.iter().all(|other| *other == dumps[0]) {
            return dumps;
        }
    }
    dump()
}

/// All dumps say something, and the same.
#[track_caller]
fn same(dumps: &[String]) {
    let first = &dumps[0];
    assert!(!first.trim().is_empty(), "the server has no data");
    for (other, node) in dumps.iter().zip(1..) {
        if other == first {
            continue;
        }
        let lines = first.lines().zip(other.lines());
        let differing = lines.zip(1..).find(|((left, right), _)| left != right);
        panic!(
            "the data of replicas 1 ({} bytes) and {node} ({} bytes) differ at {differing:?}",
            first.len(),
            other.len()
        );
    }
}
