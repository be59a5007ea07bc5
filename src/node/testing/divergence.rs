//! Whole nodes of which one has a server that is wrong: found, named, taken out of service, healed.

use crate::testing::cluster::{Cluster, await_that, ping};
use crate::testing::fake_server::{ALL, FIRST, LIE, NEVER};
use crate::{NodeStatus, Role, ServerState};
use std::io::{Read, Write};
use std::sync::atomic::Ordering;

impl Cluster {
    fn lie(&self, id: u64, lies: u8) {
        self.lies[id as usize - 1].store(lies, Ordering::Release);
    }

    fn others(&self, id: u64) -> Vec<u64> {
        self.up().filter(|other| *other != id).collect()
    }

    /// Waits until everybody knows that `id` is wrong, and where.
    fn await_sentence(&self, id: u64) -> NodeStatus {
        let named = |status: &NodeStatus| {
            let difference = status.difference.as_ref();
            difference.is_some_and(|it| it.minority == [id] && it.place.is_some())
        };
        await_that("a sentence", || {
            let all = self.up().all(|node| named(&self.status(node)));
            all.then(|| self.status(id))
        })
    }

    fn await_healing(&self, id: u64) {
        await_that("the end of the quarantine", || {
            let status = self.status(id);
            let healed = status.quarantine.is_none() && status.server == ServerState::Running;
            (healed && !status.listeners.is_empty()).then_some(())
        });
    }
}

/// What the node at `id` serves to a client of its own, asked until somebody answers there.
fn ask(cluster: &Cluster, id: u64, text: &[u8]) -> Vec<u8> {
    await_that("an answer", || {
        let mut stream = cluster.connect(id);
        stream.write_all(text).ok()?;
        let mut got = vec![0; text.len()];
        stream.read_exact(&mut got).ok()?;
        Some(got)
    })
}

#[test]
fn a_replica_that_is_wrong_is_named_leaves_service_and_is_healed_by_a_replay() {
    let cluster = Cluster::start(3);
    let leader = cluster.await_leader();
    let mut clients: Vec<_> = (1..=3).map(|id| cluster.connect(id)).collect();
    for client in &mut clients {
        ping(client, b"before");
    }
    cluster.await_agreement();
    // The leader itself: it has to hand over as well.
    cluster.lie(leader, FIRST);
    let others = cluster.others(leader);
    ping(&mut clients[others[0] as usize - 1], b"hello");
    let status = cluster.await_sentence(leader);
    let difference = status.difference.unwrap();
    let place = difference.place.clone().unwrap();
    assert_eq!(place.connection.unwrap().node, Some(others[0]));
    assert_eq!(place.offset, Some(6), "after `before`");
    assert_eq!(
        (&*place.ours, &*place.theirs),
        ("writes \"Hello\"", "writes \"hello\"")
    );
    assert!(difference.exact);
    // On an idle machine it takes some milliseconds; here it is only said.
    println!(
        "judged after {:?} µs, named after {:?} µs",
        difference.judged_after_us, difference.named_after_us
    );
    cluster.await_healing(leader);
    assert_eq!(ask(&cluster, leader, b"again"), b"again");
    for id in others {
        ping(&mut clients[id as usize - 1], b"after");
    }
    cluster.await_agreement();
    assert!(cluster.status(leader).server_starts >= 2);
}

#[test]
fn one_that_is_wrong_again_stays_in_quarantine_also_after_a_restart() {
    let mut cluster = Cluster::start(3);
    let wrong = cluster.follower();
    cluster.lie(wrong, ALL);
    let right = cluster.others(wrong)[0];
    let mut client = cluster.connect(right);
    ping(&mut client, b"hello");
    await_that("the replay in vain", || {
        let status = cluster.status(wrong);
        (status.quarantine.is_some() && status.server_starts == 2).then_some(())
    });
    ping(&mut client, b"go on");
    // Its clients are served all the same, and never by its own server.
    assert_eq!(ask(&cluster, wrong, b"abc"), b"abc");
    assert_eq!(cluster.status(wrong).server_starts, 2);
    cluster.stop_node(wrong);
    ping(&mut client, b"and on");
    cluster.start_node(wrong);
    assert!(cluster.status(wrong).quarantine.is_some());
    assert_eq!(ask(&cluster, wrong, b"def"), b"def");
    let leader = cluster.await_leader();
    assert_ne!(leader, wrong);
    cluster.stop_node(leader);
    ping(&mut cluster.connect(wrong), b"it votes");
    assert_ne!(cluster.status(wrong).role, Role::Leader);
    cluster.start_node(leader);
    cluster.lie(wrong, NEVER);
    cluster.stop_node(wrong);
    cluster.start_node(wrong);
    cluster.await_healing(wrong);
    assert_eq!(ask(&cluster, wrong, b"ghi"), b"ghi");
    cluster.await_agreement();
}

#[test]
fn with_a_vote_nobody_ever_sees_a_wrong_byte() {
    let cluster = Cluster::start(3).voting();
    let wrong = cluster.follower();
    let mut clients: Vec<_> = (1..=3).map(|id| cluster.connect(id)).collect();
    for client in &mut clients {
        ping(client, b"before");
    }
    cluster.await_agreement();
    cluster.lie(wrong, FIRST);
    for (at, client) in clients.iter_mut().enumerate() {
        client.write_all(b"question").unwrap();
        let mut got = Vec::new();
        let mut byte = [0];
        while got.len() < 8 && matches!(client.read(&mut byte), Ok(1)) {
            got.push(byte[0]);
        }
        if at as u64 + 1 == wrong {
            assert_ne!(got.first(), Some(&(b'q' ^ LIE)), "a wrong byte was served");
        } else {
            assert_eq!(got, b"question");
        }
    }
    assert_eq!(ask(&cluster, wrong, b"anew"), b"anew");
    cluster.await_sentence(wrong);
}

#[test]
fn two_alone_hold_answers_back_until_the_third_has_voted() {
    let mut cluster = Cluster::start(3);
    cluster.await_leader();
    let third = cluster.follower();
    let [one, wrong] = cluster.others(third)[..] else {
        panic!("there are two others");
    };
    cluster.stop_node(third);
    cluster.await_leader();
    let mut client = cluster.connect(one);
    ping(&mut client, b"before");
    cluster.lie(wrong, FIRST);
    // The first answer may be out before the difference is known; nothing after it is.
    client.write_all(b"1").unwrap();
    await_that("a dispute", || {
        let in_dispute = |id| {
            let waiting = cluster.status(id).waiting;
            waiting.is_some_and(|why| why.contains("no majority"))
        };
        (in_dispute(one) && in_dispute(wrong)).then_some(())
    });
    client.write_all(b"2").unwrap();
    await_that("an answer that is held back", || {
        (cluster.status(one).held_bytes > 0).then_some(())
    });
    cluster.start_node(third);
    let mut got = [0; 2];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"12");
    await_that("a verdict", || {
        let minority = cluster.status(third).difference?.minority;
        (minority == [wrong]).then_some(())
    });
}
