//! Replicas that have nothing to begin with, and fetch a checkpoint while somebody dies.
//!
//! The log's beginning was dropped everywhere. In each round a replica loses its disk, or all its
//! checkpoints are damaged, and it is started again; when the first of a checkpoint has come from another
//! one, it dies, or another does that may be the donor, or nobody.

use super::{checkpoint_well, checkpoints, contained_redis, fill, names, rounds};
use crate::clients::counting::{Control, check_everywhere, count};
use crate::fixture::cluster::{Cluster, say};
use crate::fixture::settings::random;
use crate::fixture::view::View;
use crate::harness::{eventually, finish, runs};
use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// More than a segment of the log, so that one can be dropped.
const MEGABYTES: usize = 40;
/// The longest pause after the first bytes, in milliseconds.
const PAUSE_MS: u64 = 300;

/// The loss of a replica.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Disk,
    Checkpoints,
}

/// Who dies while it fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Fetcher,
    Other,
    Nobody,
}

const KINDS: [(Loss, Victim); 5] = [
    (Loss::Disk, Victim::Fetcher),
    (Loss::Disk, Victim::Other),
    (Loss::Checkpoints, Victim::Nobody),
    (Loss::Checkpoints, Victim::Other),
    (Loss::Checkpoints, Victim::Fetcher),
];

#[test]
fn fetches_of_checkpoints_survive_kills() {
    let name = "fetches_of_checkpoints_survive_kills";
    let Some(setup) = contained_redis(name) else {
        return;
    };
    let mut rng = random(name);
    let setup = setup.option("--checkpoint-log-mib", "0").never_restarting();
    let mut cluster = Cluster::start(setup);
    let survivor = cluster.settle().followers()[0];
    fill(&cluster, survivor, MEGABYTES);
    drop_the_log(&cluster);
    let (control, address) = (Control::default(), cluster.address(survivor));
    let rounds = rounds().div_ceil(2);
    let tally = thread::scope(|scope| {
        let stop = control.guard();
        let counter = scope.spawn(|| count(0, address, &control));
        for round in 0..rounds {
            let (loss, victim) = KINDS[round % KINDS.len()];
            let node = others(survivor, None)[rng.usize(..2)];
            let what = fetch_once(&mut cluster, (survivor, node), loss, victim, &mut rng);
            say(&format!(
                "{name}: round {round}: {loss:?} of {node} is lost, {victim:?} dies: {what}"
            ));
            let before = control.acknowledged();
            let goes_on = eventually(|| control.acknowledged() > before);
            assert!(goes_on && !counter.is_finished(), "round {round}");
        }
        drop(stop);
        counter.join().expect("the client failed")
    });
    assert!(tally.broke.is_none(), "{tally:?}");
    cluster.settle();
    let acknowledged = check_everywhere(&cluster, &[tally]);
    let hashes = cluster.settle().hashes();
    say(&format!(
        "{name}: {rounds} rounds, {acknowledged} replies right, {hashes}"
    ));
    cluster.stop();
}

fn others(one: u64, another: Option<u64>) -> Vec<u64> {
    let all = [1, 2, 3].into_iter();
    all.filter(|node| *node != one && Some(*node) != another)
        .collect()
}

/// All replicas have two checkpoints, and none needs the log before the older one.
#[track_caller]
pub fn drop_the_log(cluster: &Cluster) {
    for _ in 0..2 {
        take_all(cluster);
        fill(cluster, 1, 1);
    }
    let dropped = |view: &View| {
        view.all()
            .is_some_and(|all| all.iter().all(|it| it.log_begins > 1))
    };
    cluster.wait_for("a shorter log", dropped);
}

#[track_caller]
fn take_all(cluster: &Cluster) {
    let data = cluster.data();
    let done = finish(&["checkpoint", "now", "--data", data.to_str().unwrap()]);
    assert_eq!(done.code, Some(0), "{done:?}");
}

/// One replica loses something, and gets it back whoever dies. What was seen.
fn fetch_once(
    cluster: &mut Cluster,
    (survivor, node): (u64, u64),
    loss: Loss,
    victim: Victim,
    rng: &mut Rng,
) -> String {
    let view = cluster.settle();
    let other = others(survivor, Some(node))[0];
    let other_pid = view.pid(other);
    cluster.kill(&view, node);
    lose(&cluster.node_dir(node), loss);
    let pid = cluster.start_node(node);
    let directory = checkpoints(cluster, node);
    let coming = || {
        names(&directory)
            .iter()
            .any(|name| name.starts_with("part-"))
    };
    let came = || names(&directory).iter().any(|name| !name.contains('-'));
    let mut seen = false;
    let begun = eventually_soon(|| {
        seen = coming();
        seen || (came() && matches!(loss, Loss::Disk))
    });
    assert!(begun, "nothing comes: {:#?}", cluster.any_view());
    let pause = Duration::from_millis(rng.u64(..PAUSE_MS));
    thread::sleep(pause);
    let dies = match victim {
        Victim::Fetcher => Some(pid),
        Victim::Other => Some(other_pid),
        Victim::Nobody => None,
    };
    let under_way = coming();
    if let Some(pid) = dies {
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
        assert!(eventually(|| !runs(pid)), "{pid} outlives a kill -9");
    }
    match victim {
        Victim::Fetcher => drop(cluster.start_node(node)),
        Victim::Other => drop(cluster.start_node(other)),
        Victim::Nobody => {}
    }
    let view = cluster.wait_for("all replicas", View::whole);
    let restored = view.node(node).and_then(|it| it.restored_from);
    assert!(
        restored.is_some(),
        "{node} is back without a checkpoint: {view:#?}"
    );
    let left = || names(&directory).iter().any(|name| name.contains('-'));
    assert!(eventually(|| !left()), "{:?}", names(&directory));
    cluster.settle();
    if matches!(loss, Loss::Disk) {
        checkpoint_well(cluster, "verify", node);
    }
    // What was damaged goes when there are two whole ones.
    take_all(cluster);
    fill(cluster, 1, 1);
    take_all(cluster);
    format!(
        "after {pause:?}, under way: {under_way}, back from slot {}",
        restored.unwrap_or_default()
    )
}

/// As [`eventually`], for what is over soon.
pub fn eventually_soon(mut reached: impl FnMut() -> bool) -> bool {
    let started = std::time::Instant::now();
    while started.elapsed() < crate::harness::PATIENCE {
        if reached() {
            return true;
        }
        thread::sleep(Duration::from_micros(200));
    }
    false
}

fn lose(node: &Path, loss: Loss) {
    match loss {
        Loss::Disk => {
            for entry in fs::read_dir(node).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    fs::remove_dir_all(&path).unwrap();
                } else if entry.file_name() != "config.toml" {
                    fs::remove_file(&path).unwrap();
                }
            }
        }
        Loss::Checkpoints => {
            for name in names(&node.join("checkpoints")) {
                let file = node.join("checkpoints").join(name).join("node");
                let mut bytes = fs::read(&file).unwrap();
                bytes[0] ^= 1;
                fs::write(&file, bytes).unwrap();
            }
        }
    }
}
