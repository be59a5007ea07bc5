//! Learners, and machines that ask to become one.

use super::PATIENCE;
use super::cluster::{Cluster, values};
use brolga_consensus::{
    Event, LEARNERS_FROM, LEARNERS_MAX, NodeId, Recovery, Replica, TOKENS, join,
};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

/// Adds a learner to the cluster.
fn learner(cluster: &mut Cluster, number: u64) -> NodeId {
    let id = LEARNERS_FROM + number;
    let mut config = cluster.config(1);
    config.id = id;
    config.dir = cluster.dir.path().join(format!("node-{id}"));
    let waker = cluster.waker.clone();
    let wake = Arc::new(move || waker.wake().unwrap());
    let first_token = 1 + TOKENS * cluster.replicas.len();
    let replica = Replica::open(config, cluster.poll.registry(), first_token, wake).unwrap();
    cluster.replicas.push(Some(replica));
    id
}

#[test]
fn a_learner_follows_and_counts_for_nothing() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let last = cluster.propose(leader, values(0..100));
    let id = learner(&mut cluster, 5);
    cluster.wait_chosen(last);
    assert_eq!(cluster.log(4), values(0..100));
    // Whoever leads: the others know nothing of it.
    let told = |cluster: &mut Cluster| {
        let mut replicas = cluster.alive();
        replicas.any(|(_, replica)| replica.learners().eq([(id, last)]))
    };
    cluster.run_until("the leader to know", told);
    assert_eq!(cluster.get(4).recovery(), Recovery::Learner);
    // It reads on from its own log, and nobody is needed for that but the leader.
    cluster.stop(4);
    cluster.replicas.pop();
    let last = cluster.propose(leader, values(100..200));
    learner(&mut cluster, 5);
    cluster.wait_chosen(last);
    assert_eq!(cluster.log(4), values(0..200));
    // With two of three members gone nothing is chosen, whoever else is there.
    for member in (1..=3).filter(|id| *id != leader) {
        cluster.stop(member);
    }
    cluster.run_until("the leader to give up", |cluster| {
        !cluster.get(leader).is_ready()
    });
    assert_eq!(cluster.get(4).chosen_upto(), last);
}

#[test]
fn the_same_learner_twice_is_refused() {
    let mut cluster = Cluster::new(1);
    cluster.elect();
    let id = learner(&mut cluster, 1);
    cluster.run_until("the learner's link", |cluster| {
        cluster.get(1).learners().count() == 1
    });
    let mut config = cluster.config(1);
    config.id = id;
    config.dir = cluster.dir.path().join("copy");
    let waker = cluster.waker.clone();
    let wake = Arc::new(move || waker.wake().unwrap());
    let first_token = 1 + TOKENS * 2;
    let copy = Replica::open(config, cluster.poll.registry(), first_token, wake).unwrap();
    cluster.replicas.push(Some(copy));
    let refused = |(_, event): &(NodeId, Event)| matches!(event, Event::Refused { message } if message.contains("connected already"));
    cluster.run_until("a refusal", |cluster| cluster.events.iter().any(refused));
    assert_eq!(cluster.get(1).learners().count(), 1);
}

#[test]
fn more_learners_than_there_is_room_for_are_refused() {
    let mut cluster = Cluster::new(1);
    cluster.elect();
    for number in 0..LEARNERS_MAX as u64 {
        learner(&mut cluster, number);
    }
    cluster.run_until("all learners", |cluster| {
        cluster.get(1).learners().count() == LEARNERS_MAX
    });
    let id = learner(&mut cluster, 99);
    let place = cluster.replicas.len() as u64;
    let full = |event: &Event| matches!(event, Event::Refused { message } if message.contains("are enough"));
    cluster.run_until("a refusal", |cluster| {
        let mut events = cluster.events.iter();
        events.any(|(at, event)| *at == place && full(event))
    });
    assert!(cluster.get(1).learners().all(|(learner, _)| learner != id));
    // Whoever asks is told so at once.
    let address = cluster.members[0].1;
    let thread = std::thread::spawn(move || join(address, PATIENCE).unwrap_err().to_string());
    cluster.run_until("an answer", |_| thread.is_finished());
    let error = thread.join().unwrap();
    assert!(error.contains("refuses: 16 learners are enough"), "{error}");
    // When one goes there is room.
    cluster.stop(2);
    cluster.run_until("the last learner", |cluster| {
        cluster.get(1).learners().any(|(learner, _)| learner == id)
    });
}

#[test]
fn the_log_of_a_learner_is_no_members() {
    let mut cluster = Cluster::new(1);
    cluster.elect();
    learner(&mut cluster, 1);
    let last = cluster.propose(1, values(0..5));
    cluster.wait_chosen(last);
    cluster.stop(2);
    let mut config = cluster.config(1);
    config.id = LEARNERS_FROM + 1;
    config.dir = cluster.dir.path().join(format!("node-{}", config.id));
    config
        .members
        .push((config.id, "127.0.0.1:0".parse().unwrap()));
    let waker = cluster.waker.clone();
    let wake = Arc::new(move || waker.wake().unwrap());
    let opened = Replica::open(config, cluster.poll.registry(), 1 + TOKENS, wake);
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("the log is that of a learner"), "{error}");
}

#[test]
fn a_joiner_gets_a_connection_of_its_own() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    let address = cluster.members[0].1;
    let thread = std::thread::spawn(move || {
        let mut socket = join(address, PATIENCE).unwrap();
        socket.write_all(b"question").unwrap();
        let mut answer = [0; 6];
        socket.read_exact(&mut answer).unwrap();
        answer
    });
    let mut joiners = Vec::new();
    cluster.run_until("a joiner", |cluster| {
        joiners.extend(cluster.get(1).take_joiners());
        !joiners.is_empty()
    });
    let mut socket = joiners.remove(0);
    let mut question = [0; 8];
    socket.read_exact(&mut question).unwrap();
    assert_eq!(&question, b"question");
    socket.write_all(b"answer").unwrap();
    assert_eq!(&thread.join().unwrap(), b"answer");
}

#[test]
fn a_joiner_at_the_wrong_door_is_told_so() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    let rude = std::thread::spawn(move || {
        let (mut socket, _) = nobody.accept().unwrap();
        socket.write_all(b"220 mail is served here\r\n").unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        let (silent, _) = nobody.accept().unwrap();
        drop(silent);
        address
    });
    let error = join(address, PATIENCE).unwrap_err().to_string();
    assert!(
        error.contains("is not the peer address of a Brolga node"),
        "{error}"
    );
    let error = join(address, PATIENCE).unwrap_err().to_string();
    assert!(error.contains("it hangs up"), "{error}");
    rude.join().unwrap();
    let error = join(address, PATIENCE).unwrap_err().to_string();
    assert!(error.contains("nobody answers at"), "{error}");
}
