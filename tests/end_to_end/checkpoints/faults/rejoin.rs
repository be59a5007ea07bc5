//! Replicas that have lost everything, under `brolga run`, and what clients of the others see of it.

use super::{LogFrom, checkpoint_well, fill, is_possible};
use crate::clients::counting::{Control, check_everywhere, count};
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::view::View;
use crate::harness::{eventually, finish};
use std::fs;
use std::thread;

/// More than a segment of the log, so that one can be dropped.
const MEGABYTES: usize = 40;
/// So slow, in megabytes per second, that whoever dies dies in the middle.
const SLOW: &str = "40";

#[test]
fn a_redis_that_lost_all_its_files_rejoins_under_load() {
    let name = "a_redis_that_lost_all_its_files_rejoins_under_load";
    if let Some(setup) = Setup::redis(name, &[]) {
        rejoin_under_load(name, setup);
    }
}

#[test]
fn a_store_that_lost_all_its_files_rejoins_under_load() {
    let name = "a_store_that_lost_all_its_files_rejoins_under_load";
    rejoin_under_load(name, Setup::store());
}

/// The directory of a replica goes, its configuration with it, and the node is killed. It is started again
/// as ever; a client of another one counts all the time.
fn rejoin_under_load(name: &str, setup: Setup) {
    if !is_possible(name) {
        return;
    }
    let setup = setup.option("--container", "required");
    let cluster = Cluster::start(setup.option("--checkpoint-log-mib", "0"));
    let (survivor, lost) = with_short_logs(&cluster);
    let (control, address) = (Control::default(), cluster.address(survivor));
    let tally = thread::scope(|scope| {
        let stop = control.guard();
        let counter = scope.spawn(|| count(0, address, &control));
        let view = cluster.view();
        lose(&cluster, lost);
        cluster.kill(&view, lost);
        cluster.wait_for("the member that lost its files", |now| {
            assert!(!counter.is_finished(), "the client failed");
            let back = now.node(lost).is_some_and(|it| it.restored_from.is_some());
            back && now.whole()
        });
        let before = control.acknowledged();
        assert!(eventually(|| control.acknowledged() > before));
        drop(stop);
        counter.join().expect("the client failed")
    });
    assert!(tally.broke.is_none(), "{tally:?}");
    let view = cluster.settle();
    let acknowledged = check_everywhere(&cluster, &[tally]);
    let node = view.node(lost).unwrap();
    assert_eq!(
        (node.restored_from, &node.no_vote),
        (node.checkpoint, &None)
    );
    checkpoint_well(&cluster, "verify", lost);
    let log = fs::read_to_string(cluster.node_dir(lost).join("node.log")).unwrap();
    let fetched = log
        .lines()
        .find(|it| it.contains("a checkpoint was fetched"));
    say(&format!(
        "{name}: {acknowledged} replies right, {}; {}",
        cluster.settle().hashes(),
        fetched.expect("it was fetched")
    ));
    cluster.stop();
}

/// All logs begin later; gives a follower that stays and one that does not.
#[track_caller]
fn with_short_logs(cluster: &Cluster) -> (u64, u64) {
    let followers = cluster.settle().followers();
    fill(cluster, followers[0], MEGABYTES);
    for _ in 0..2 {
        fill(cluster, followers[0], 1);
        let data = cluster.data();
        let taken = finish(&["checkpoint", "now", "--data", data.to_str().unwrap()]);
        assert_eq!(taken.code, Some(0), "{taken:?}");
    }
    cluster.wait_for("shorter logs", |view| {
        let all = view.all();
        all.is_some_and(|all| all.iter().all(|it| it.log_begins > 1))
    });
    (followers[0], followers[1])
}

/// At once, so that a node that is started again finds either all or nothing.
fn lose(cluster: &Cluster, node: u64) {
    let aside = cluster.data().join("lost");
    fs::rename(cluster.node_dir(node), aside).unwrap();
}

#[test]
fn another_donor_goes_on_when_one_dies() {
    let name = "another_donor_goes_on_when_one_dies";
    if !is_possible(name) {
        return;
    }
    let setup = Setup::store().option("--container", "required");
    let setup = setup.option("--checkpoint-transfer-mib-s", SLOW);
    let setup = setup.option("--checkpoint-log-mib", "0").never_restarting();
    let mut cluster = Cluster::start(setup);
    let (_, lost) = with_short_logs(&cluster);
    let view = cluster.view();
    cluster.kill(&view, lost);
    let directory = cluster.node_dir(lost);
    fs::remove_dir_all(directory.join("log")).unwrap();
    fs::remove_dir_all(directory.join("checkpoints")).unwrap();
    let log = LogFrom::now(&directory.join("node.log"));
    cluster.start_node(lost);
    let coming = cluster.wait_for("the first bytes", |now| donor(now, lost).is_some());
    let status = finish(&["status", "--data", cluster.data().to_str().unwrap()]);
    let told = status.stdout.contains("fetching the checkpoint of slot");
    assert!(told || log.says("a checkpoint was fetched"), "{status:?}");
    let first = donor(&coming, lost).unwrap();
    cluster.kill(&coming, first);
    let second = (1..=3).find(|it| ![lost, first].contains(it)).unwrap();
    let came = "a checkpoint was fetched slot=";
    assert!(eventually(|| log.says(came)), "{}", log.text());
    let text = log.text();
    let line = text.lines().find(|line| line.contains(came)).unwrap();
    assert!(line.contains(&format!("donor={second}")), "{line}");
    cluster.start_node(first);
    cluster.wait_for("all replicas", View::whole);
    let hashes = cluster.settle().hashes();
    say(&format!("{name}: {first} died, {second} went on; {hashes}"));
    cluster.stop();
}

/// Who gives a checkpoint to `node`, once something of it has come.
fn donor(view: &View, node: u64) -> Option<u64> {
    let transfer = view.node(node)?.transfer.as_ref()?;
    (transfer.here > 0).then_some(transfer.donor)
}
