//! Disks that are lost, and logs that are dropped behind checkpoints.

use super::cluster::{Cluster, values};
use brolga_consensus::{Event, NodeId, ReadError, Recovery};
use std::time::Instant;

#[test]
fn a_member_that_lost_its_disk_has_no_vote_until_it_has_caught_up() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let last = cluster.propose(leader, values(0..1000));
    cluster.wait_chosen(last);
    let (wiped, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.stop(wiped);
    cluster.stop(other);
    std::fs::remove_dir_all(cluster.dir.path().join(format!("node-{wiped}"))).unwrap();
    cluster.start(wiped);
    cluster.run_until("one answer", |cluster| {
        cluster.get(wiped).answers().count() == 1
    });
    // What is proposed now is acknowledged by nobody whose vote counts.
    assert_eq!(cluster.get(wiped).recovery(), Recovery::Lost);
    assert_eq!(cluster.get(leader).chosen_upto(), last);
    cluster.start(other);
    cluster.run_until("its vote", |cluster| cluster.get(wiped).recovery().votes());
    assert!(cluster.get(wiped).chosen_upto() >= last);
    cluster.stop(other);
    let leader = cluster.elect();
    let last = cluster.propose(leader, values(1000..1100));
    cluster.wait_chosen(last);
    assert!(cluster.log(wiped) == values(0..1100));
}

#[test]
fn a_log_is_dropped_behind_checkpoints_and_who_lacks_it_hears_of_that() {
    let mut cluster = Cluster::new(3);
    for id in 1..=3 {
        cluster.stop(id);
    }
    cluster.segment_bytes = 1 << 20;
    for id in 1..=3 {
        std::fs::remove_dir_all(cluster.dir.path().join(format!("node-{id}"))).unwrap();
        cluster.start(id);
    }
    let leader = cluster.elect();
    let away = leader % 3 + 1;
    let last = cluster.propose(leader, values(0..1000));
    cluster.wait_chosen(last);
    cluster.stop(away);
    let last = cluster.propose(leader, values(1000..30_000));
    cluster.wait_chosen(last);
    assert!(cluster.get(leader).truncate(last));
    cluster.run_until("the end of it", |cluster| {
        let told = |(_, event): &(NodeId, Event)| matches!(event, Event::Truncated { .. });
        cluster.events.iter().any(told)
    });
    let first = cluster.get(leader).first_slot();
    assert!(first > 20_000, "{first}");
    let mut out = Vec::new();
    let gone = cluster.get(leader).read_chosen(1, 100, &mut out);
    assert!(matches!(gone, Err(ReadError::Gone { slot: 1, .. })));
    // The leader has nothing of it in memory after a restart.
    cluster.stop(leader);
    cluster.start(leader);
    assert_eq!(cluster.get(leader).first_slot(), first);
    let other = (leader + 1) % 3 + 1;
    cluster.run_until("the other one to drop it too", |cluster| {
        cluster.get(other).truncate(last);
        cluster.get(other).first_slot() > 20_000
    });
    let first = first.max(cluster.get(other).first_slot());
    cluster.stop(other);
    cluster.start(other);
    cluster.elect();
    cluster.start(away);
    cluster.run_until("the need for a checkpoint", |cluster| {
        let told =
            |event: &(NodeId, Event)| matches!(event, (id, Event::Behind { .. }) if *id == away);
        cluster.events.iter().any(told)
    });
    let slot = first + 10;
    cluster.get(away).install(Instant::now(), slot);
    let leader = cluster.elect();
    let last = cluster.propose(leader, values(30_000..31_000));
    cluster.wait_chosen(last);
    assert_eq!(cluster.get(away).first_slot(), slot + 1);
    // It is as good as the others, also when it starts again.
    cluster.stop(away);
    cluster.start(away);
    cluster.stop(leader);
    let leader = cluster.elect();
    let last = cluster.propose(leader, values(31_000..31_010));
    cluster.wait_chosen(last);
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for (id, out) in [(away, &mut one), (leader, &mut two)] {
        let replica = cluster.get(id);
        replica.read_chosen(slot + 1, usize::MAX, out).unwrap();
    }
    assert!(one.len() > 1000, "{} slots", one.len());
    assert!(one == two, "the logs differ");
}
