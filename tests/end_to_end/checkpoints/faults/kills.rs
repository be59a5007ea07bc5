//! `kill -9` at random moments of checkpoints and restores.
//!
//! A round is a checkpoint that somebody asks for, or the start of a node that goes back to one. In the
//! middle of it the node dies, or CRIU, or both and the server at once; then the node is started again,
//! as often as it takes. Clients of a node that stays count all the time.

use super::moment::{self, Moment, Scene};
use super::{
    LogFrom, checkpoint, checkpoint_well, checkpoints, fill, is_possible, names, rounds, tree,
};
use crate::clients::counting::{Control, Tally, check_everywhere, count};
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::random;
use crate::fixture::view::View;
use crate::harness::{eventually, runs};
use fastrand::Rng;
use nix::sys::signal::{Signal, kill as kill_process};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::thread::{self, ScopedJoinHandle};

const MEGABYTES: usize = 8;

#[test]
fn checkpoints_survive_kills() {
    let name = "checkpoints_survive_kills";
    if let Some(setup) = Setup::redis(name, &[]) {
        campaign(name, setup, rounds(), 2);
    }
}

/// A thread for each connection, and files. It is slow to repeat what was done.
#[test]
fn checkpoints_of_the_store_survive_kills() {
    let name = "checkpoints_of_the_store_survive_kills";
    campaign(name, Setup::store(), rounds().div_ceil(2), 1);
}

/// The action that is under way when somebody dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Checkpoint,
    Restore,
}

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Node,
    Criu,
    Server,
    /// The node, its server and CRIU if it runs, one after the other.
    Everything,
}

const KINDS: [(Deed, Victim); 8] = [
    (Deed::Checkpoint, Victim::Criu),
    (Deed::Restore, Victim::Server),
    (Deed::Checkpoint, Victim::Server),
    (Deed::Restore, Victim::Node),
    (Deed::Checkpoint, Victim::Everything),
    (Deed::Restore, Victim::Criu),
    (Deed::Checkpoint, Victim::Node),
    (Deed::Restore, Victim::Everything),
];

struct Campaign {
    cluster: Cluster,
    rng: Rng,
    /// Clients are connected to it.
    survivor: u64,
    /// Number of hits by action and victim.
    hits: BTreeMap<String, usize>,
    /// Number of nodes that had to be started once more.
    again: usize,
}

fn campaign(name: &str, setup: Setup, rounds: usize, clients: usize) {
    if !is_possible(name) {
        return;
    }
    let mut campaign = Campaign::start(name, setup);
    let tallies = campaign.rounds_under_load(name, rounds, clients);
    let broken: Vec<_> = tallies.iter().filter_map(|it| it.broke.as_ref()).collect();
    assert!(
        broken.is_empty(),
        "connections to a survivor broke: {broken:?}"
    );
    campaign.end(name, rounds, &tallies);
}

impl Campaign {
    fn start(name: &str, setup: Setup) -> Self {
        let mut rng = random(name);
        let setup = setup.option("--container", "required");
        let setup = setup.option("--checkpoint-log-mib", "0").never_restarting();
        let campaign = Self {
            cluster: Cluster::start(setup),
            survivor: rng.u64(..3) + 1,
            rng,
            hits: BTreeMap::new(),
            again: 0,
        };
        campaign.cluster.wait_for("all replicas", View::whole);
        fill(&campaign.cluster, campaign.survivor, MEGABYTES);
        campaign
    }

    /// All rounds, while clients of the survivor count.
    fn rounds_under_load(&mut self, name: &str, rounds: usize, clients: usize) -> Vec<Tally> {
        let (control, address) = (Control::default(), self.cluster.address(self.survivor));
        thread::scope(|scope| {
            let stop = control.guard();
            let control = &control;
            let counters: Vec<_> = (0..clients)
                .map(|number| scope.spawn(move || count(number, address, control)))
                .collect();
            for round in 0..rounds {
                self.round(name, round, KINDS[round % KINDS.len()]);
                let failed = counters.iter().any(ScopedJoinHandle::is_finished);
                assert!(!failed, "a client ended in round {round}");
                let before = control.acknowledged();
                let goes_on = eventually(|| control.acknowledged() > before);
                assert!(goes_on, "nothing is acknowledged after round {round}");
            }
            drop(stop);
            let joined = counters.into_iter().map(ScopedJoinHandle::join);
            joined
                .map(|tally| tally.expect("a client failed"))
                .collect()
        })
    }

    /// All replies were right, all replicas are equal, and nothing is left of the cluster.
    fn end(self, name: &str, rounds: usize, tallies: &[Tally]) {
        let Self {
            cluster,
            hits,
            again,
            ..
        } = self;
        cluster.settle();
        let acknowledged = check_everywhere(&cluster, tallies);
        let hashes = cluster.settle().hashes();
        say(&format!(
            "{name}: {rounds} rounds, {hits:?}, {again} starts more; {acknowledged} replies right, {hashes}"
        ));
        let data = cluster.data();
        let kept = cluster.stop_and_keep();
        let users = || tree::users(&data);
        assert!(
            eventually(|| users().is_empty()),
            "something is left: {:?}",
            users()
        );
        drop(kept);
    }

    fn round(&mut self, name: &str, round: usize, (deed, victim): (Deed, Victim)) {
        let others = [1, 2, 3].into_iter().filter(|node| *node != self.survivor);
        let others: Vec<u64> = others.collect();
        let node = others[self.rng.usize(..2)];
        let moment = Moment::chosen(signs(deed, victim), &mut self.rng);
        let hit = match deed {
            Deed::Checkpoint => self.during_checkpoint(node, victim, moment),
            Deed::Restore => self.during_restore(node, victim, moment),
        };
        say(&format!(
            "{name}: round {round}: {deed:?} of {node}, {victim:?} at {moment}: {hit}"
        ));
        *self.hits.entry(format!("{deed:?}/{victim:?}")).or_default() += usize::from(hit != MISSED);
        self.bring_back(node);
        self.check(node);
    }

    /// Somebody dies while a replica takes one. What was hit.
    fn during_checkpoint(&mut self, node: u64, victim: Victim, moment: Moment) -> &'static str {
        let (cluster, rng) = (&self.cluster, &mut self.rng);
        let pid = cluster.view().pid(node);
        let scene = Scene::new(pid, &checkpoints(cluster, node));
        let data = cluster.data();
        thread::scope(|scope| {
            let asked = scope.spawn(move || checkpoint(&data, "now", node));
            let came = moment.wait(&scene, || asked.is_finished());
            let hit = came && kill(pid, victim, rng);
            let answer = asked.join().unwrap();
            match (hit, answer.code) {
                (false, _) => MISSED,
                (true, Some(0)) => "it is whole all the same",
                (true, _) => "there is none",
            }
        })
    }

    /// Somebody dies while a node goes back to its checkpoint. What was hit.
    fn during_restore(&mut self, node: u64, victim: Victim, moment: Moment) -> &'static str {
        checkpoint_well(&self.cluster, "now", node);
        let view = self.cluster.view();
        self.cluster.kill(&view, node);
        let log = LogFrom::now(&self.cluster.node_dir(node).join("node.log"));
        let pid = self.cluster.start_node(node);
        let scene = Scene::new(pid, &checkpoints(&self.cluster, node));
        let is_over = || !runs(pid) || STARTED.iter().any(|words| log.says(words));
        let came = moment.wait(&scene, is_over);
        match came && kill(pid, victim, &mut self.rng) {
            true => "hit",
            false => MISSED,
        }
    }

    /// The node is started as often as it takes.
    fn bring_back(&mut self, node: u64) {
        let mut pid = self
            .cluster
            .any_view()
            .node(node)
            .map(|status| u64::from(status.pid));
        let whole = eventually(|| {
            if !pid.is_some_and(runs) {
                pid = Some(self.cluster.start_node(node));
                self.again += 1;
            }
            self.cluster.view().whole()
        });
        assert!(whole, "{:#?}", self.cluster.view());
    }

    /// Verifies that checkpoints called whole are, and nothing else is left.
    fn check(&self, node: u64) {
        let cluster = &self.cluster;
        checkpoint_well(cluster, "verify", node);
        let directory = checkpoints(cluster, node);
        let left = || names(&directory).into_iter().any(|name| name.contains('-'));
        assert!(eventually(|| !left()), "{:?}", names(&directory));
        let below = tree::below(cluster.view().pid(node));
        assert!(
            !below.into_iter().any(tree::is_soiled),
            "CRIU has left something in the server"
        );
        let changes = cluster.node_dir(node).join("container");
        let places = || tree::mount_namespaces(&changes);
        assert!(eventually(|| places().len() <= 1), "{:?}", places());
        let states = fs::read_dir(&changes).unwrap().count();
        assert!(states <= 2, "{states} containers are left in {changes:?}");
    }
}

/// The words of a node when its server is there.
const STARTED: [&str; 2] = ["the server is restored", "the server is started"];
/// Nobody was killed: it was over before.
const MISSED: &str = "missed";

fn signs(deed: Deed, victim: Victim) -> &'static [moment::Sign] {
    match (deed, victim) {
        (Deed::Checkpoint, Victim::Criu | Victim::Server) => &moment::OF_CRIUS_DUMP,
        (Deed::Checkpoint, _) => &moment::OF_DUMP,
        (Deed::Restore, Victim::Criu) => &moment::OF_CRIUS_RESTORE,
        (Deed::Restore, Victim::Server) => &moment::OF_SERVERS_RESTORE,
        (Deed::Restore, _) => &moment::OF_RESTORE,
    }
}

fn one_of(mut all: Vec<u64>, rng: &mut Rng) -> Vec<u64> {
    if all.is_empty() {
        return all;
    }
    let at = rng.usize(..all.len());
    vec![all.swap_remove(at)]
}

/// False if there is nobody to kill any more.
fn kill(node: u64, victim: Victim, rng: &mut Rng) -> bool {
    let below = tree::below(node);
    let mut victims = match victim {
        Victim::Node => vec![node],
        Victim::Criu => one_of(tree::criu_below(node, ""), rng),
        Victim::Server => one_of(tree::servers_below(node), rng),
        Victim::Everything => {
            let mut all = below.clone();
            all.push(node);
            let first = rng.usize(..all.len());
            all.rotate_left(first);
            all
        }
    };
    victims.retain(|pid| runs(*pid));
    for pid in &victims {
        // It may have died just now, with another.
        let _ = kill_process(Pid::from_raw(i32::try_from(*pid).unwrap()), Signal::SIGKILL);
    }
    if matches!(victim, Victim::Node | Victim::Everything) {
        let left = || below.iter().filter(|pid| runs(**pid)).collect::<Vec<_>>();
        assert!(
            eventually(|| left().is_empty()),
            "{:?} outlive {node}",
            left()
        );
    }
    !victims.is_empty()
}
