//! Replicas in one process, over loopback TCP and real files.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use brolga_consensus::journal::SEGMENT_BYTES;
use brolga_consensus::{
    Event, Flush, LEARNERS_FROM, LEARNERS_MAX, NodeId, OpenError, ReadError, Recovery, Replica,
    ReplicaConfig, Slot, TOKENS, join, open_stream,
};
use bytes::Bytes;
use mio::{Events, Poll, Token, Waker};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CLUSTER: u128 = 0x00b4_016a;
/// Far beyond what any of it takes: it only tells a hang from a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

struct Cluster {
    poll: Poll,
    waker: Arc<Waker>,
    ready: Events,
    members: Vec<(NodeId, SocketAddr)>,
    dir: tempfile::TempDir,
    replicas: Vec<Option<Replica>>,
    events: Vec<(NodeId, Event)>,
    election_timeout: Duration,
    segment_bytes: u64,
    turns: u64,
}

impl Cluster {
    fn new(size: u64) -> Self {
        Self::with_timeout(size, Duration::from_millis(250))
    }

    fn with_timeout(size: u64, election_timeout: Duration) -> Self {
        // Bound all at once, so that no two are the same.
        let free: Vec<_> = (0..size)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let members = (1..=size)
            .zip(free.iter().map(|l| l.local_addr().unwrap()))
            .collect();
        drop(free);
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self {
            poll,
            waker,
            ready: Events::with_capacity(256),
            members,
            dir,
            replicas: (0..size).map(|_| None).collect(),
            events: Vec::new(),
            election_timeout,
            segment_bytes: SEGMENT_BYTES,
            turns: 0,
        };
        for id in 1..=size {
            cluster.start(id);
        }
        cluster
    }

    fn config(&self, id: NodeId) -> ReplicaConfig {
        let dir = self.dir.path().join(format!("node-{id}"));
        ReplicaConfig {
            election_timeout_min: self.election_timeout,
            election_timeout_max: 2 * self.election_timeout,
            segment_bytes: self.segment_bytes,
            ..ReplicaConfig::new(CLUSTER, id, self.members.clone(), dir)
        }
    }

    fn open(&self, config: ReplicaConfig) -> Result<Replica, OpenError> {
        let waker = self.waker.clone();
        let first_token = 1 + TOKENS * (config.id as usize - 1);
        let wake = Arc::new(move || waker.wake().unwrap());
        Replica::open(config, self.poll.registry(), first_token, wake)
    }

    fn start(&mut self, id: NodeId) {
        let replica = self.open(self.config(id)).unwrap();
        self.replicas[id as usize - 1] = Some(replica);
    }

    fn stop(&mut self, id: NodeId) {
        self.replicas[id as usize - 1].take().unwrap().close();
    }

    fn get(&mut self, id: NodeId) -> &mut Replica {
        self.replicas[id as usize - 1].as_mut().unwrap()
    }

    fn alive(&mut self) -> impl Iterator<Item = (NodeId, &mut Replica)> {
        let replicas = self.replicas.iter_mut().enumerate();
        replicas.filter_map(|(at, replica)| Some((at as u64 + 1, replica.as_mut()?)))
    }

    fn turn(&mut self) {
        let now = Instant::now();
        let wakeup = self
            .replicas
            .iter()
            .flatten()
            .map(Replica::next_wakeup)
            .min()
            .unwrap();
        let timeout = wakeup.saturating_duration_since(now);
        // Epoll counts milliseconds: rounded up, or the last fraction of one is spent spinning.
        self.poll.poll(&mut self.ready, Some(timeout)).unwrap();
        let now = Instant::now();
        let mut out = Vec::new();
        for (at, replica) in self.replicas.iter_mut().enumerate() {
            let Some(replica) = replica else { continue };
            for event in &self.ready {
                if replica.owns(event.token()) {
                    replica.handle(event, now, &mut out);
                }
            }
            // Either way, by turns.
            self.turns += 1;
            let flush = if self.turns.is_multiple_of(3) {
                Flush::Aside
            } else {
                Flush::Here
            };
            replica.turn(now, flush, &mut out);
            self.events
                .extend(out.drain(..).map(|event| (at as u64 + 1, event)));
        }
    }

    fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "timed out: {what}");
            self.turn();
        }
    }

    fn elect(&mut self) -> NodeId {
        let mut leader = None;
        self.run_until("a leader", |cluster| {
            leader = cluster
                .alive()
                .find(|(_, replica)| replica.is_ready())
                .map(|(id, _)| id);
            leader.is_some()
        });
        leader.unwrap()
    }

    fn propose(&mut self, leader: NodeId, values: impl IntoIterator<Item = Bytes>) -> Slot {
        let mut last = 0;
        for value in values {
            self.run_until("room to propose", |cluster| {
                cluster.get(leader).can_propose()
            });
            last = self.get(leader).propose(value).unwrap();
        }
        last
    }

    fn wait_chosen(&mut self, upto: Slot) {
        self.run_until("all replicas to learn", |cluster| {
            cluster
                .alive()
                .all(|(_, replica)| replica.chosen_upto() >= upto)
        });
    }

    fn log(&mut self, id: NodeId) -> Vec<Bytes> {
        let replica = self.get(id);
        let mut out = Vec::new();
        while (out.len() as Slot) < replica.chosen_upto() {
            replica
                .read_chosen(out.len() as Slot + 1, 1 << 16, &mut out)
                .unwrap();
        }
        assert!(
            out.iter()
                .enumerate()
                .all(|(at, (slot, _))| *slot == at as Slot + 1)
        );
        out.into_iter()
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
            .collect()
    }
}

fn values(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(|n| Bytes::from(format!("{n:0256}"))).collect()
}

#[test]
fn a_restarted_replica_catches_up_from_the_leaders_disk() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let last = cluster.propose(leader, values(0..10_000));
    cluster.wait_chosen(last);
    let away = leader % 3 + 1;
    cluster.stop(away);
    // More than the leader keeps in memory.
    let last = cluster.propose(leader, values(10_000..40_000));
    cluster.wait_chosen(last);
    cluster.start(away);
    // It has to catch up while the leader goes on.
    let last = cluster.propose(leader, values(40_000..50_000));
    cluster.wait_chosen(last);
    let expected = values(0..50_000);
    for id in 1..=3 {
        assert!(cluster.log(id) == expected, "the log of node {id} differs");
    }
}

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

#[test]
fn a_lost_leader_is_replaced_and_nothing_chosen_is_lost() {
    // Long, so that a slow machine is told from waiting for a timeout.
    let timeout = Duration::from_secs(1);
    let mut cluster = Cluster::with_timeout(3, timeout);
    let leader = cluster.elect();
    let last = cluster.propose(leader, values(0..1000));
    cluster.wait_chosen(last);
    // The sockets close as they do when the process is killed.
    cluster.stop(leader);
    let before = Instant::now();
    let next = cluster.elect();
    let took = before.elapsed();
    println!("fail-over took {took:?}");
    assert_ne!(next, leader);
    assert!(took < timeout, "fail-over waited for a timeout: {took:?}");
    let last = cluster.propose(next, values(1000..2000));
    cluster.start(leader);
    cluster.wait_chosen(last);
    for id in 1..=3 {
        assert!(
            cluster.log(id) == values(0..2000),
            "the log of node {id} differs"
        );
    }
}

#[test]
fn all_may_stop_and_start_again() {
    for size in [1, 2, 3, 5] {
        let mut cluster = Cluster::new(size);
        let leader = cluster.elect();
        let last = cluster.propose(leader, values(0..500));
        cluster.wait_chosen(last);
        for id in 1..=size {
            cluster.stop(id);
        }
        for id in 1..=size {
            cluster.start(id);
        }
        let leader = cluster.elect();
        let last = cluster.propose(leader, values(500..600));
        cluster.wait_chosen(last);
        for id in 1..=size {
            assert!(
                cluster.log(id) == values(0..600),
                "the log of node {id} of {size} differs"
            );
        }
    }
}

#[test]
fn large_values_and_application_frames_pass() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let large: Vec<_> = (1..=8u8).map(|n| Bytes::from(vec![n; 3 << 20])).collect();
    let last = cluster.propose(leader, large.clone());
    let to = leader % 3 + 1;
    cluster.run_until("the link", |c| {
        c.get(leader).peers().any(|peer| peer == (to, true))
    });
    for n in 0..100u8 {
        assert!(cluster.get(leader).send_app(to, &vec![n; 100 << 10]));
    }
    cluster.wait_chosen(last);
    cluster.run_until("the frames", |cluster| {
        let frames = cluster
            .events
            .iter()
            .filter(|(_, event)| matches!(event, Event::App { .. }));
        frames.count() == 100
    });
    let mut expected = 0..100u8;
    for (id, event) in &cluster.events {
        if let Event::App { from, bytes } = event {
            assert_eq!((*id, *from), (to, leader));
            assert_eq!(bytes[..], vec![expected.next().unwrap(); 100 << 10]);
        }
    }
    for id in 1..=3 {
        assert!(cluster.log(id) == large);
    }
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    let mut cluster = Cluster::new(2);
    cluster.elect();
    for (stranger, host) in [(1, 2), (2, 1)] {
        cluster.stop(stranger);
        cluster.events.clear();
        let mut config = cluster.config(stranger);
        config.cluster = 7;
        config.dir = cluster.dir.path().join(format!("stranger-{stranger}"));
        let replica = cluster.open(config).unwrap();
        cluster.replicas[stranger as usize - 1] = Some(replica);
        cluster.run_until("both sides to be told", |cluster| {
            [stranger, host].iter().all(|side| {
                cluster.events.iter().any(|(id, event)| {
                    let told = matches!(event, Event::Refused { message }
                        if message.contains("is of cluster 0000"));
                    id == side && told
                })
            })
        });
        let up = Event::PeerUp(stranger);
        assert!(
            !cluster
                .events
                .iter()
                .any(|(id, event)| *id == host && *event == up)
        );
        cluster.stop(stranger);
        cluster.start(stranger);
        cluster.elect();
    }
}

#[test]
fn an_idle_cluster_sleeps() {
    let mut cluster = Cluster::new(3);
    cluster.elect();
    let settled = Instant::now() + Duration::from_millis(300);
    cluster.run_until("calm", |_| Instant::now() >= settled);
    let (mut turns, end) = (0, Instant::now() + Duration::from_secs(1));
    while Instant::now() < end {
        cluster.turn();
        turns += 1;
    }
    // 20 heartbeats to each of two followers, their echoes, some pings.
    assert!(turns < 200, "{turns} turns in an idle second");
}

#[test]
fn a_stranger_is_shown_the_door() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    for greeting in [
        &b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"[..],
        &[0; 300],
        &[9; 1],
    ] {
        cluster.events.clear();
        let mut stranger = TcpStream::connect(cluster.members[0].1).unwrap();
        stranger.write_all(greeting).unwrap();
        if greeting.len() == 1 {
            drop(stranger); // Says too little to be judged, and goes.
        } else {
            cluster.run_until("the refusal", |cluster| {
                let refused = |(id, event): &(NodeId, Event)| {
                    *id == 1 && matches!(event, Event::Refused { .. })
                };
                cluster.events.iter().any(refused)
            });
            let mut rest = Vec::new();
            // Reset or end: either way it is over.
            let _ = stranger.read_to_end(&mut rest);
        }
        let last = cluster.propose(leader, values(0..10));
        cluster.wait_chosen(last);
    }
    assert!(
        !cluster
            .events
            .iter()
            .any(|(_, event)| matches!(event, Event::PeerDown(_)))
    );
}

#[test]
fn senseless_configurations_are_refused() {
    let mut cluster = Cluster::new(1);
    cluster.stop(1);
    let good = cluster.config(1);
    let bad = [
        ReplicaConfig {
            id: 2,
            ..good.clone()
        },
        ReplicaConfig {
            members: vec![good.members[0]; 2],
            ..good.clone()
        },
        ReplicaConfig {
            election_timeout_min: Duration::from_secs(9),
            ..good.clone()
        },
        ReplicaConfig {
            heartbeat: Duration::from_secs(9),
            ..good.clone()
        },
    ];
    for config in bad {
        assert!(matches!(cluster.open(config), Err(OpenError::Config(_))));
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let members = vec![(1, taken.local_addr().unwrap())];
    let error = cluster.open(ReplicaConfig { members, ..good }).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot listen on 127.0.0.1:"),
        "{error}"
    );
}

/// Not a test but a figure: `cargo test --release -- --ignored --nocapture throughput`.
#[test]
#[ignore = "measures"]
fn throughput() {
    for size in [1, 3] {
        let mut cluster = Cluster::new(size);
        let leader = cluster.elect();
        let value = Bytes::from(vec![b'x'; 256]);
        let begin = Instant::now();
        let count = 300_000;
        cluster.propose(leader, std::iter::repeat_n(value.clone(), count));
        cluster.wait_chosen(count as Slot);
        let rate = count as f64 / begin.elapsed().as_secs_f64();
        println!("{size} nodes in one thread: {rate:.0} values of 256 bytes per second");
        let mut times = Vec::new();
        for _ in 0..500 {
            let begin = Instant::now();
            let slot = cluster.propose(leader, [value.clone()]);
            cluster.run_until("commit", |c| c.get(leader).chosen_upto() >= slot);
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        println!(
            "one at a time: median {:?}, 99% {:?}",
            times[250], times[495]
        );
    }
}

#[test]
fn a_stream_handed_off_leaves_the_transport_and_its_links_alone() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let address = cluster.members[0].1;
    let patience = Duration::from_secs(60);
    let thread = std::thread::spawn(move || {
        let foreign = open_stream(address, CLUSTER + 1, 0, patience).unwrap_err();
        // It need not be a member.
        let (mut socket, host) = open_stream(address, CLUSTER, 77, patience).unwrap();
        socket.write_all(b"question").unwrap();
        let mut answer = [0; 6];
        socket.read_exact(&mut answer).unwrap();
        (foreign.to_string(), host, answer)
    });
    let mut streams = Vec::new();
    cluster.run_until("the stream", |cluster| {
        streams.extend(cluster.get(1).take_upgraded_streams());
        !streams.is_empty()
    });
    let mut stream = streams.remove(0);
    assert_eq!(stream.from, 77);
    let mut question = [0; 8];
    stream.socket.read_exact(&mut question).unwrap();
    assert_eq!(&question, b"question");
    stream.socket.write_all(b"answer").unwrap();
    let (foreign, host, answer) = thread.join().unwrap();
    assert!(foreign.contains("is of cluster"), "{foreign}");
    assert_eq!((host, &answer), (1, b"answer"));
    // The links are as before.
    let last = cluster.propose(leader, [Bytes::from_static(b"on and on")]);
    cluster.wait_chosen(last);
}

/// A learner of the cluster, as the node in place `at` of those that [`Cluster`] turns.
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
    let told = |cluster: &mut Cluster| {
        let learners: Vec<_> = cluster.get(leader).learners().collect();
        learners == [(id, last)]
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
