//! Replicas that take checkpoints, die, and come back from them, while clients go on.

use crate::testing::cluster::{Cluster, address, await_that, noise, ping};
use crate::{ProxyConfig, ProxyFrontend};
use brolga_checkpoint::Directory;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

fn others(cluster: &Cluster, id: u64) -> u64 {
    cluster.up().find(|other| *other != id).unwrap()
}

/// Sends and gets back so much that several segments of the log fill.
fn talk(client: &mut TcpStream, bytes: usize) {
    for (number, piece) in noise(bytes, 7).chunks(100_000).enumerate() {
        ping(client, piece);
        ping(client, &number.to_le_bytes());
    }
}

fn checkpoints(cluster: &Cluster, id: u64) -> Vec<PathBuf> {
    let directory = cluster.data_dir(id).join("checkpoints");
    let entries = fs::read_dir(directory).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn a_replica_comes_back_from_its_checkpoint_and_does_what_the_others_do() {
    let mut cluster = Cluster::start(3);
    let id = cluster.follower();
    let mut client = cluster.connect(others(&cluster, id));
    ping(&mut client, b"before");
    let mut own = cluster.connect(id);
    ping(&mut own, b"this connection is in the checkpoint");
    let slot = cluster.checkpoint(id).unwrap();
    assert_eq!(cluster.status(id).checkpoint, Some(slot));
    ping(&mut own, b"and lives on");
    ping(&mut client, b"after");
    cluster.stop_node(id);
    ping(&mut client, b"while it is away");
    cluster.start_node(id);
    cluster.await_agreement();
    ping(&mut client, b"with all three");
    cluster.await_agreement();
    // It did not begin at the beginning.
    let node = cluster.status(id);
    assert!(node.applied.slot > slot);
    assert_eq!(node.server_starts, 1);
    assert_eq!(node.restored_from, Some(slot));
    // It is as good as the others: one of them may go.
    let mut new = cluster.connect(id);
    ping(&mut new, b"at the restored one");
    assert!(cluster.status(id).live_at >= Some(slot));
    let never_away = cluster.status(others(&cluster, id));
    assert_eq!(never_away.restored_from, None);
}

#[test]
fn a_connection_through_a_stand_alone_frontend_outlives_the_restored_node() {
    let mut cluster = Cluster::start(3);
    let id = cluster.follower();
    let members = cluster.members().to_vec();
    // It prefers the node that is going to be restored.
    let mut nodes = vec![members[id as usize - 1].sidecar];
    nodes.extend(members.iter().filter(|it| it.id != id).map(|it| it.sidecar));
    let (proxy, handle) = ProxyFrontend::open(ProxyConfig {
        cluster: 0xC0FFEE,
        publish: address(77),
        nodes,
    })
    .unwrap();
    let thread = std::thread::spawn(move || proxy.run());
    let mut client = cluster.connect_to(address(77));
    ping(&mut client, b"hello");
    // Answers that the client does not take are held by every replica, and are in the checkpoint.
    let sent = noise(300_000, 5);
    client.write_all(&sent).unwrap();
    for id in 1..=3 {
        cluster.checkpoint(id).unwrap();
    }
    for id in 1..=3 {
        cluster.stop_node(id);
        cluster.start_node(id);
        cluster.await_leader();
    }
    let mut got = vec![0; sent.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == sent, "every byte, once and in order");
    ping(&mut client, b"still there");
    cluster.await_agreement();
    handle.shutdown();
    thread.join().unwrap().unwrap();
}

#[test]
fn the_log_is_dropped_when_a_majority_can_do_without() {
    let mut cluster = Cluster::start_with(3, 4 << 20);
    let id = cluster.follower();
    let other = others(&cluster, id);
    let mut client = cluster.connect(other);
    talk(&mut client, 12 << 20);
    cluster.checkpoint(id).unwrap();
    assert_eq!(cluster.status(id).log_begins, 1, "it is the only one");
    cluster.checkpoint(other).unwrap();
    for one in [id, other] {
        await_that("a shorter log", || {
            (cluster.status(one).log_begins > 1).then_some(())
        });
    }
    let third = (1..=3).find(|it| ![id, other].contains(it)).unwrap();
    assert_eq!(cluster.status(third).log_begins, 1, "it has none itself");
    for one in 1..=3 {
        cluster.checkpoint(one).unwrap();
    }
    // What is left of the log, and the checkpoint, are enough to come back.
    for id in 1..=3 {
        await_that("a shorter log", || {
            (cluster.status(id).log_begins > 1).then_some(())
        });
        cluster.stop_node(id);
        cluster.start_node(id);
        cluster.await_agreement();
    }
    let mut client = cluster.connect(id);
    ping(&mut client, b"on and on");
}

#[test]
fn a_member_that_is_away_does_not_keep_the_others_logs_and_fetches_a_checkpoint_when_it_is_back() {
    let mut cluster = Cluster::start_with(3, 4 << 20);
    let away = cluster.follower();
    cluster.await_agreement();
    cluster.stop_node(away);
    let stays = cluster.follower();
    let mut client = cluster.connect(stays);
    talk(&mut client, 12 << 20);
    let ids: Vec<u64> = cluster.up().collect();
    for id in &ids {
        cluster.checkpoint(*id).unwrap();
    }
    await_that("shorter logs", || {
        let short = |id: &u64| cluster.status(*id).log_begins > 1;
        ids.iter().all(short).then_some(())
    });
    // Nobody has what was dropped in memory either.
    talk(&mut client, 12 << 20);
    cluster.start_node(away);
    cluster.await_agreement();
    ping(&mut client, b"the same connection all the time");
    cluster.await_agreement();
    let node = cluster.status(away);
    assert!(node.restored_from.is_some(), "it fetched a checkpoint");
    let mut own = cluster.connect(away);
    ping(&mut own, b"at its own port");
}

/// All logs are dropped behind checkpoints, and nobody has what was dropped in memory any more.
fn forget_the_beginning(cluster: &mut Cluster) {
    for one in 1..=3 {
        cluster.checkpoint(one).unwrap();
    }
    await_that("shorter logs", || {
        let begins = |one| cluster.status(one).log_begins;
        (1..=3).all(|one| begins(one) > 1).then_some(())
    });
    for one in 1..=3 {
        cluster.stop_node(one);
        cluster.start_node(one);
        cluster.await_agreement();
    }
}

#[test]
fn a_lost_disk_is_made_good_from_another_replica_while_clients_go_on() {
    let mut cluster = Cluster::start_with(3, 4 << 20);
    let id = cluster.follower();
    let other = others(&cluster, id);
    let mut client = cluster.connect(other);
    talk(&mut client, 12 << 20);
    forget_the_beginning(&mut cluster);
    let mut client = cluster.connect(other);
    cluster.stop_node(id);
    fs::remove_dir_all(cluster.data_dir(id)).unwrap();
    ping(&mut client, b"meanwhile");
    cluster.start_node(id);
    await_that("its vote", || {
        ping(&mut client, b"on and on");
        cluster.status(id).no_vote.is_none().then_some(())
    });
    cluster.await_agreement();
    let node = cluster.status(id);
    assert_eq!(node.restored_from, node.checkpoint);
    assert!(node.log_begins > node.checkpoint.unwrap());
    let mut new = cluster.connect(id);
    ping(&mut new, b"at its own port");
    // It is a replica like the others: it takes checkpoints, and comes back from them.
    let slot = cluster.checkpoint(id).unwrap();
    cluster.stop_node(id);
    cluster.start_node(id);
    cluster.await_agreement();
    assert_eq!(cluster.status(id).restored_from, Some(slot));
    ping(&mut client, b"the same connection all the time");
}

#[test]
fn when_all_own_checkpoints_are_damaged_and_the_log_was_dropped_a_peers_is_used() {
    let mut cluster = Cluster::start_with(3, 4 << 20);
    let id = cluster.follower();
    let mut client = cluster.connect(others(&cluster, id));
    talk(&mut client, 12 << 20);
    forget_the_beginning(&mut cluster);
    let mut client = cluster.connect(others(&cluster, id));
    cluster.stop_node(id);
    for path in checkpoints(&cluster, id) {
        spoil(&path.join("server/echoes"));
    }
    cluster.start_node(id);
    cluster.await_agreement();
    ping(&mut client, b"with all three");
    cluster.await_agreement();
    let node = cluster.status(id);
    assert!(node.restored_from.is_some() && node.restored_from == node.checkpoint);
    let mut own = cluster.connect(id);
    ping(&mut own, b"at its own port");
    // What was damaged was replaced, or is not taken for good.
    let directory = Directory::open(cluster.data_dir(id).join("checkpoints")).unwrap();
    let newest = directory.list().unwrap().whole.remove(0);
    newest.verify(&mut |_| ()).unwrap();
}

#[test]
fn a_replica_alone_says_that_it_has_nothing_to_begin_with() {
    let mut cluster = Cluster::start_with(1, 4 << 20);
    let mut client = cluster.connect(1);
    talk(&mut client, 12 << 20);
    cluster.checkpoint(1).unwrap();
    await_that("a shorter log", || {
        (cluster.status(1).log_begins > 1).then_some(())
    });
    cluster.stop_node(1);
    for path in checkpoints(&cluster, 1) {
        spoil(&path.join("server/echoes"));
    }
    let error = cluster.fails_to_start(1);
    assert!(error.contains("no usable checkpoint"), "{error}");
}

fn spoil(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_the_one_before_is_taken() {
    let mut cluster = Cluster::start(3);
    let id = cluster.follower();
    let mut client = cluster.connect(others(&cluster, id));
    ping(&mut client, b"one");
    let first = cluster.checkpoint(id).unwrap();
    ping(&mut client, b"two");
    cluster.await_agreement();
    let second = cluster.checkpoint(id).unwrap();
    assert!(second > first);
    cluster.stop_node(id);
    let newest = checkpoints(&cluster, id).pop().unwrap();
    spoil(&newest.join("server/echoes"));
    cluster.start_node(id);
    cluster.await_agreement();
    ping(&mut client, b"three");
    cluster.await_agreement();
    // Without any, the whole log is there.
    cluster.stop_node(id);
    for path in checkpoints(&cluster, id) {
        fs::remove_file(path.join("manifest")).unwrap();
    }
    cluster.start_node(id);
    cluster.await_agreement();
}

#[test]
fn a_server_that_dies_is_brought_back_from_the_checkpoint_too() {
    let cluster = Cluster::start(3);
    let id = cluster.follower();
    let mut client = cluster.connect(id);
    ping(&mut client, b"before");
    let slot = cluster.checkpoint(id).unwrap();
    ping(&mut client, b"after");
    let pid = cluster.status(id).server_pid.unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    await_that("another server", || {
        (cluster.status(id).server_starts == 2).then_some(())
    });
    // Its client has noticed nothing.
    ping(&mut client, b"still the same connection");
    cluster.await_agreement();
    assert_eq!(cluster.status(id).restored_from, Some(slot));
}

/// Killed in the middle of a dump, CRIU can leave anything in the server.
#[test]
fn a_server_whose_dump_was_broken_off_is_replaced() {
    let cluster = Cluster::start(3);
    let id = cluster.follower();
    let mut client = cluster.connect(id);
    ping(&mut client, b"before");
    let slot = cluster.checkpoint(id).unwrap();
    ping(&mut client, b"after");
    cluster.dumps.interrupt.store(true, Ordering::Release);
    let why = cluster.checkpoint(id).unwrap_err().to_string();
    assert!(why.contains("broken off"), "{why}");
    ping(&mut client, b"still the same connection");
    cluster.await_agreement();
    let status = cluster.status(id);
    assert_eq!(
        (status.server_starts, status.restored_from),
        (2, Some(slot))
    );
    // One that had no checkpoint repeats the whole log.
    let other = others(&cluster, id);
    cluster.dumps.interrupt.store(true, Ordering::Release);
    cluster.checkpoint(other).unwrap_err();
    cluster.await_agreement();
    let status = cluster.status(other);
    assert_eq!((status.server_starts, status.restored_from), (2, None));
    cluster.checkpoint(other).unwrap();
}

/// What lies on disk of a node, but for what a server has there.
fn disk_use(cluster: &Cluster, id: u64) -> u64 {
    let mut bytes = 0;
    let mut left = vec![cluster.data_dir(id)];
    while let Some(path) = left.pop() {
        // Files of the log and checkpoints go meanwhile.
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        match fs::read_dir(&path) {
            Ok(entries) => left.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => bytes += metadata.blocks() * 512,
        }
    }
    bytes
}

#[test]
fn replicas_take_checkpoints_one_after_the_other_and_the_disk_does_not_fill() {
    const LOG_MB: u64 = 4;
    // Two intervals that are kept, what comes while others take theirs, files of the log in
    // reserve.
    const BOUND: u64 = 40 << 20;
    let cluster = Cluster::start_with(3, 4 << 20).taking_checkpoints(LOG_MB);
    let leader = cluster.await_leader();
    let mut client = cluster.connect(cluster.follower());
    let mut newest = [None; 3];
    for _round in 0..10 {
        talk(&mut client, 6 << 20);
        for id in 1..=3 {
            let before = newest[id as usize - 1];
            let taken = await_that("a checkpoint", || {
                let now = cluster.status(id).checkpoint;
                (now > before).then_some(now)
            });
            newest[id as usize - 1] = taken;
        }
        cluster.await_agreement();
        for id in 1..=3 {
            let used = disk_use(&cluster, id);
            assert!(used < BOUND, "replica {id} uses {used} bytes");
        }
    }
    for id in 1..=3 {
        let begins = || (cluster.status(id).log_begins > 1).then_some(());
        await_that("a shorter log", begins);
        // It may be about to take yet another.
        let kept = || (checkpoints(&cluster, id).len() == 2).then_some(());
        await_that("the old ones to go", kept);
        assert_eq!(cluster.status(id).checkpoint_trouble, None);
    }
    assert_eq!(cluster.dumps.most.load(Ordering::Acquire), 1, "at once");
    if cluster.await_leader() == leader {
        let first: Vec<u64> = cluster.dumps.begun.lock().unwrap()[..3].to_vec();
        assert!(
            first.ends_with(&[leader]),
            "{first:?}: the leader goes last"
        );
    }
}

#[test]
fn dumps_that_fail_are_tried_again_later_and_the_server_goes_on() {
    let cluster = Cluster::start_with(3, 4 << 20).taking_checkpoints(1);
    cluster.dumps.fail.store(true, Ordering::Release);
    let id = cluster.follower();
    let mut client = cluster.connect(id);
    talk(&mut client, 2 << 20);
    await_that("another failure", || {
        ping(&mut client, b"the server goes on");
        let trouble = cluster.status(id).checkpoint_trouble?;
        assert!(trouble.ends_with("the test says so"), "{trouble}");
        trouble.contains("times in a row").then_some(())
    });
    assert_eq!(cluster.status(id).checkpoint, None);
    cluster.dumps.fail.store(false, Ordering::Release);
    for id in 1..=3 {
        await_that("a checkpoint", || cluster.status(id).checkpoint);
        assert_eq!(cluster.status(id).checkpoint_trouble, None);
    }
    cluster.await_agreement();
}
