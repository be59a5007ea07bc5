//! Learners: `brolga node --join` on a machine that knows nothing, while clients go on, the leader dies
//! and the learner itself is killed.

use crate::checkpoints::faults::{drop_the_log, eventually_soon, fill, is_possible, names};
use crate::clients::counting::{Control, check_at, check_everywhere};
use crate::clients::resp::Client;
use crate::clients::web;
use crate::failures::failover::{
    joined, kill_a_leader, no_connection_broke, start_counting, wait_for_progress,
};
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::random;
use crate::fixture::view::View;
use crate::harness::{brolga, eventually, finish, refused, signal};
use brolga_node::{NodeStatus, Role, ServerState};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;

/// More than a segment of the log, so that one can be dropped.
const MEGABYTES: usize = 40;
/// The address where a learner serves clients, no member's.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 90);
/// Of all files that a server starts with.
const GENESIS_TIME: Duration = Duration::from_secs(946_684_800);
const LOG_LINES_SHOWN: usize = 25;

/// A learner of a cluster, in a directory of its own.
pub struct Learner {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Learner {
    pub fn new(port: u16) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            port,
            child: None,
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts it by the address of a member.
    pub fn join(&mut self, member: SocketAddr) {
        let listen = ADDRESS.to_string();
        self.start(&["--join", &member.to_string(), "--listen", &listen]);
    }

    /// Starts it again: its directory is enough.
    fn again(&mut self) {
        self.start(&[]);
    }

    fn start(&mut self, options: &[&str]) {
        assert!(self.child.is_none(), "it runs");
        let mut command = brolga();
        command.args(["node", "--data"]).arg(self.data());
        let log = File::create(self.dir.path().join("stderr")).unwrap();
        let child = command.args(options).stderr(log).spawn();
        self.child = Some(child.unwrap());
    }

    fn kill(&mut self) {
        let mut child = self.child.take().expect("it does not run");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn ask(&self, what: &str) -> Option<serde_json::Value> {
        let mut stream = UnixStream::connect(self.data().join("admin.sock")).ok()?;
        stream
            .write_all(format!("{{\"ask\":\"{what}\"}}\n").as_bytes())
            .ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    pub fn status(&self) -> Option<NodeStatus> {
        let answer = self.ask("status")?;
        serde_json::from_value(answer["status"].clone()).ok()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, reached: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let mut last = None;
        let done = eventually(|| {
            last = self.status();
            last.as_ref().is_some_and(&reached)
        });
        assert!(done, "waited for {what} in vain: {last:#?}");
        last.unwrap()
    }

    /// Until it has caught up and serves.
    #[track_caller]
    pub fn wait_until_open(&self) -> NodeStatus {
        self.wait_for("a learner that serves", |status| {
            status.is_open() && status.server == ServerState::Running
        })
    }

    /// Until something has come of a checkpoint.
    #[track_caller]
    fn wait_for_checkpoint(&self) {
        let directory = self.data().join("checkpoints");
        let came = eventually_soon(|| !names(&directory).is_empty());
        assert!(came, "no checkpoint comes: {:#?}", self.status());
    }

    /// Until the members have found its hashes equal at the last slot that any of them knows of.
    #[track_caller]
    pub fn wait_until_equal(&self, cluster: &Cluster) -> View {
        let id = self.wait_until_open().node;
        let view = cluster.settle();
        let last = view.last_entry();
        let view = cluster.wait_for("a learner with equal hashes", |view| {
            let mut learners = view.learners.iter();
            learners.any(|it| it.id == id && it.agreed >= last && it.differs.is_none())
        });
        let status = self.status().unwrap();
        assert_eq!(status.role, Role::Learner);
        assert_eq!(status.difference, None);
        assert_eq!(status.quarantine, None);
        view
    }

    fn address(&self) -> SocketAddr {
        (IpAddr::from(ADDRESS), self.port).into()
    }
}

impl Drop for Learner {
    fn drop(&mut self) {
        if thread::panicking() {
            for name in ["stderr", "data/node.log", "data/server.err"] {
                let text = fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
                    say(&format!("learner {name}: {line}"));
                }
            }
        }
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The peer address of a member.
pub fn peer_of(cluster: &Cluster, node: u64) -> SocketAddr {
    let file = brolga::cluster::read(&cluster.data()).unwrap();
    let member = file.members.iter().find(|member| member.id == node);
    member.unwrap().peer
}

#[test]
fn a_learner_of_redis_joins_under_load() {
    let name = "a_learner_of_redis_joins_under_load";
    if let Some(setup) = Setup::redis(name, &[]) {
        join_under_load(name, setup);
    }
}

#[test]
fn a_learner_of_the_store_joins_under_load() {
    let name = "a_learner_of_the_store_joins_under_load";
    join_under_load(name, Setup::store().perturbed(50));
}

fn join_under_load(name: &str, setup: Setup) {
    let mut rng = random(name);
    let mut learner = Learner::new(setup.port);
    let cluster = Cluster::start(setup);
    let survivor = cluster.settle().followers()[0];
    let control = Control::default();
    let tallies = thread::scope(|scope| {
        let stop = control.guard();
        let counters = start_counting(scope, &[cluster.address(survivor)], &control);
        for _ in 0..5 {
            wait_for_progress(&control);
        }
        learner.join(peer_of(&cluster, rng.u64(..3) + 1));
        learner.wait_for("the first slots", |status| status.applied.slot > 0);
        kill_a_leader(&cluster, Some(survivor), &mut rng, &control);
        wait_for_progress(&control);
        learner.wait_until_open();
        learner.kill();
        wait_for_progress(&control);
        learner.again();
        learner.wait_until_open();
        wait_for_progress(&control);
        drop(stop);
        joined(counters)
    });
    no_connection_broke(&tallies);
    learner.wait_until_equal(&cluster);
    let acknowledged = check_everywhere(&cluster, &tallies);
    assert_eq!(check_at(learner.address(), &tallies), acknowledged);
    // Who is connected to a learner is ordered like everybody else.
    let mut there = Client::connect(learner.address());
    let mut here = Client::connect(cluster.address(survivor));
    for number in 1..=50 {
        let client = if number % 2 == 0 {
            &mut here
        } else {
            &mut there
        };
        client.exchange(&["INCR", "by turns"], &format!(":{number}\r\n"));
    }
    let view = learner.wait_until_equal(&cluster);
    let status = finish(&["status", "--data", cluster.data().to_str().unwrap()]);
    assert!(status.stdout.contains("hashes equal at slot"), "{status:?}");
    let own = finish(&["status", "--data", learner.data().to_str().unwrap()]);
    for words in [", learner\n", ", 0 behind\n", "serves   127.0.0.90:"] {
        assert!(own.stdout.contains(words), "{own:?}");
    }
    say(&format!(
        "{name}: {acknowledged} replies right; learner equal at slot {}",
        view.learners[0].agreed
    ));
    cluster.stop();
}

#[test]
fn a_learner_fetches_a_checkpoint_under_load() {
    let name = "a_learner_fetches_a_checkpoint_under_load";
    if !is_possible(name) {
        return;
    }
    let Some(setup) = Setup::redis(name, &[]) else {
        return;
    };
    let mut rng = random(name);
    let mut learner = Learner::new(setup.port);
    let setup = setup.option("--container", "required");
    let cluster = Cluster::start(setup.option("--checkpoint-log-mib", "0"));
    let survivor = cluster.settle().followers()[0];
    fill(&cluster, survivor, MEGABYTES);
    drop_the_log(&cluster);
    let control = Control::default();
    let tallies = thread::scope(|scope| {
        let stop = control.guard();
        let counters = start_counting(scope, &[cluster.address(survivor)], &control);
        wait_for_progress(&control);
        learner.join(peer_of(&cluster, rng.u64(..3) + 1));
        learner.wait_for_checkpoint();
        learner.kill();
        kill_a_leader(&cluster, Some(survivor), &mut rng, &control);
        learner.again();
        learner.wait_for_checkpoint();
        wait_for_progress(&control);
        learner.wait_until_open();
        wait_for_progress(&control);
        drop(stop);
        joined(counters)
    });
    no_connection_broke(&tallies);
    learner.wait_until_equal(&cluster);
    let acknowledged = check_everywhere(&cluster, &tallies);
    assert_eq!(check_at(learner.address(), &tallies), acknowledged);
    let status = learner.status().unwrap();
    assert!(status.log_begins > 1, "{status:#?}");
    let from = status.restored_from.expect("it has begun at a checkpoint");
    // It takes its own as well, in its turn, and goes back to it.
    let own = learner.ask("checkpoint").unwrap();
    let own = own["checkpoint"].as_u64();
    assert!(own.is_some_and(|slot| slot > from), "{own:?}, from {from}");
    learner.kill();
    learner.again();
    learner.wait_until_equal(&cluster);
    assert_eq!(learner.status().unwrap().restored_from, own);
    say(&format!(
        "{name}: {acknowledged} replies right; learner equal, began at slot {from}, came back from {own:?}"
    ));
    cluster.stop();
}

#[test]
fn a_learner_gets_the_files_that_the_server_starts_with() {
    let name = "a_learner_gets_the_files_that_the_server_starts_with";
    let genesis = tempfile::tempdir().unwrap();
    fs::create_dir_all(genesis.path().join("store")).unwrap();
    fs::write(genesis.path().join("a file"), vec![7; 1 << 20]).unwrap();
    let path = genesis.path().to_str().unwrap().to_owned();
    let setup = Setup::store().option("--genesis", &path);
    let mut learner = Learner::new(setup.port);
    let cluster = Cluster::start(setup);
    let mut client = Client::connect(cluster.address(1));
    client.exchange(&["SET", "key", "value"], "+OK\r\n");
    learner.join(peer_of(&cluster, 1));
    let view = learner.wait_until_equal(&cluster);
    let copied = fs::read(learner.data().join("work/a file")).unwrap();
    assert_eq!(copied, vec![7; 1 << 20]);
    let mut there = Client::connect(learner.address());
    there.exchange(&["GET", "key"], "$5\r\nvalue\r\n");
    say(&format!("{name}: {}", view.hashes()));
    cluster.stop();
}

#[test]
fn a_learner_that_says_something_else_is_healed_and_nobody_else_minds() {
    let name = "a_learner_that_says_something_else_is_healed_and_nobody_else_minds";
    let page = |bytes: &[u8]| [("page".to_owned(), bytes.to_vec())];
    let Some((setup, _genesis)) = web::setup(name, &page(b"the same")) else {
        return;
    };
    let mut learner = Learner::new(setup.port);
    let cluster = Cluster::start(setup);
    learner.join(peer_of(&cluster, 1));
    learner.wait_until_open();
    let file = learner.data().join("work/page");
    fs::write(&file, b"the fame").unwrap();
    let file = File::options().write(true).open(file).unwrap();
    file.set_modified(UNIX_EPOCH + GENESIS_TIME).unwrap();
    assert_eq!(web::fetch(cluster.address(2), "page"), b"the same");
    let id = learner.status().unwrap().node;
    let known = learner.wait_for("its own verdict", |status| status.difference.is_some());
    let starts_again = learner.wait_for("another start", |status| status.server_starts == 2);
    assert_eq!(
        starts_again.difference.unwrap().minority,
        [id],
        "{known:#?}"
    );
    learner.wait_for("the end of the quarantine", |status| {
        status.quarantine.is_none() && status.is_open()
    });
    assert_eq!(web::fetch(learner.address(), "page"), b"the same");
    // The members have gone on, and had no doubts about each other.
    let view = cluster.any_view();
    for replica in &view.replicas {
        let status = replica.status.as_ref().unwrap();
        assert_eq!((status.server_starts, &status.quarantine), (1, &None));
    }
    assert_eq!(web::fetch(cluster.address(3), "page"), b"the same");
    say(&format!("{name}: {}", known.difference.unwrap()));
    cluster.stop();
}

#[test]
fn a_learner_makes_no_majority() {
    let setup = Setup::store().never_restarting();
    let mut learner = Learner::new(setup.port);
    let mut cluster = Cluster::start(setup);
    learner.join(peer_of(&cluster, 1));
    let view = learner.wait_until_equal(&cluster);
    let leader = view.leader();
    let mut client = Client::connect(learner.address());
    client.exchange(&["INCR", "counter"], ":1\r\n");
    let others: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
    for node in &others {
        cluster.kill(&view, *node);
    }
    client
        .send(&crate::clients::resp::request(&["INCR", "counter"]))
        .unwrap();
    client.silent_for(Duration::from_secs(1));
    // Its client waits, and is answered when there is a majority again.
    cluster.start_node(others[0]);
    client.expect(b":2\r\n").unwrap();
    cluster.start_node(others[1]);
    learner.wait_until_equal(&cluster);
    cluster.stop();
}

#[test]
fn what_keeps_a_learner_from_joining_is_said_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let data = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let nobody = "127.0.0.1:1";
    let fresh = data("fresh");
    refused(
        &["node", "--join", nobody, "--data", &fresh],
        &["nobody answers at 127.0.0.1:1"],
    );
    refused(
        &["node", "--join", "nonsense", "--data", &fresh],
        &["`nonsense` is no address"],
    );
    let setup = Setup::store();
    let mut first = Learner::new(setup.port);
    let server = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1), setup.port));
    let cluster = Cluster::start(setup);
    // The store is no node, and says so or hangs up.
    refused(
        &["node", "--join", &server.to_string(), "--data", &fresh],
        &["is not the peer address of a Brolga node"],
    );
    let whole = cluster.data();
    let peer = peer_of(&cluster, 2).to_string();
    refused(
        &["node", "--join", &peer, "--data", whole.to_str().unwrap()],
        &["holds a whole cluster"],
    );
    let member = cluster.node_dir(2);
    refused(
        &["node", "--join", &peer, "--data", member.to_str().unwrap()],
        &["is that of member 2"],
    );
    first.join(peer_of(&cluster, 2));
    first.wait_until_open();
    let own = first.data();
    refused(
        &["node", "--data", own.to_str().unwrap()],
        &["is in use by a node that is running"],
    );
    twin_is_refused(&first, dir.path());
    cluster.stop();
}

/// A copy of a learner's directory is not served while the original is there.
fn twin_is_refused(learner: &Learner, dir: &Path) {
    let copy = dir.join("copy");
    fs::create_dir(&copy).unwrap();
    for name in ["config.toml", "identity.toml"] {
        fs::copy(learner.data().join(name), copy.join(name)).unwrap();
    }
    let mut command = brolga();
    let twin = command.args(["node", "--data"]).arg(&copy).spawn();
    let mut twin = twin.unwrap();
    let log = copy.join("node.log");
    let said = eventually(|| {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("is connected already: is its data directory in use twice?")
    });
    signal(twin.id().into(), "TERM");
    twin.wait().unwrap();
    assert!(said, "{}", fs::read_to_string(&log).unwrap_or_default());
}
