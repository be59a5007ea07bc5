//! A cluster whose nodes share one thread and one poll.

use super::{CLUSTER, ELECTION_TIMEOUT, PATIENCE};
use brolga_consensus::journal::SEGMENT_BYTES;
use brolga_consensus::{Event, Flush, NodeId, OpenError, Replica, ReplicaConfig, Slot, TOKENS};
use bytes::Bytes;
use mio::{Events, Poll, Token, Waker};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

pub struct Cluster {
    pub poll: Poll,
    pub waker: Arc<Waker>,
    ready: Events,
    pub members: Vec<(NodeId, SocketAddr)>,
    pub dir: tempfile::TempDir,
    pub replicas: Vec<Option<Replica>>,
    pub events: Vec<(NodeId, Event)>,
    pub segment_bytes: u64,
    turns: u64,
}

impl Cluster {
    pub fn new(size: u64) -> Self {
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
            segment_bytes: SEGMENT_BYTES,
            turns: 0,
        };
        for id in 1..=size {
            cluster.start(id);
        }
        cluster
    }

    pub fn config(&self, id: NodeId) -> ReplicaConfig {
        let dir = self.dir.path().join(format!("node-{id}"));
        ReplicaConfig {
            election_timeout_min: ELECTION_TIMEOUT,
            election_timeout_max: 2 * ELECTION_TIMEOUT,
            segment_bytes: self.segment_bytes,
            ..ReplicaConfig::new(CLUSTER, id, self.members.clone(), dir)
        }
    }

    pub fn open(&self, config: ReplicaConfig) -> Result<Replica, OpenError> {
        let waker = self.waker.clone();
        let first_token = 1 + TOKENS * (config.id as usize - 1);
        let wake = Arc::new(move || waker.wake().unwrap());
        Replica::open(config, self.poll.registry(), first_token, wake)
    }

    pub fn start(&mut self, id: NodeId) {
        let replica = self.open(self.config(id)).unwrap();
        self.replicas[id as usize - 1] = Some(replica);
    }

    pub fn stop(&mut self, id: NodeId) {
        self.replicas[id as usize - 1].take().unwrap().close();
    }

    pub fn get(&mut self, id: NodeId) -> &mut Replica {
        self.replicas[id as usize - 1].as_mut().unwrap()
    }

    pub fn alive(&mut self) -> impl Iterator<Item = (NodeId, &mut Replica)> {
        let replicas = self.replicas.iter_mut().enumerate();
        replicas.filter_map(|(at, replica)| Some((at as u64 + 1, replica.as_mut()?)))
    }

    pub fn turn(&mut self) {
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

    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "timed out: {what}");
            self.turn();
        }
    }

    pub fn elect(&mut self) -> NodeId {
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

    pub fn propose(&mut self, leader: NodeId, values: impl IntoIterator<Item = Bytes>) -> Slot {
        let mut last = 0;
        for value in values {
            self.run_until("room to propose", |cluster| {
                cluster.get(leader).can_propose()
            });
            last = self.get(leader).propose(value).unwrap();
        }
        last
    }

    pub fn wait_chosen(&mut self, upto: Slot) {
        self.run_until("all replicas to learn", |cluster| {
            cluster
                .alive()
                .all(|(_, replica)| replica.chosen_upto() >= upto)
        });
    }

    pub fn log(&mut self, id: NodeId) -> Vec<Bytes> {
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

pub fn values(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(|n| Bytes::from(format!("{n:0256}"))).collect()
}
