//! The world around the cores: shells, network, faults, clients, and the run itself.

use super::coverage::Coverage;
use super::disk::Disk;
use super::draw::Draw;
use super::oracle::{Oracle, Verdict, ensure};
use crate::core::{Core, Input, IoSeq, LEARNERS_FROM, Micros, Msg, Mutation, NodeId, Send, Slot};
use bytes::Bytes;
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};

pub(super) const MILLI: Micros = 1000;
const FAULTS_UNTIL: Micros = 8_000 * MILLI;
/// Time from the end of all faults until everything must have converged.
const HEALED_WITHIN: Micros = 10_000 * MILLI;

/// What a run was.
#[derive(Debug)]
pub(super) struct Report {
    pub trace: u64,
    pub chosen: u64,
    pub coverage: Coverage,
}

#[derive(Debug)]
pub(super) enum Event {
    Deliver {
        from: NodeId,
        to: NodeId,
        msg: Msg,
        sent: u64,
    },
    Flushed {
        node: NodeId,
        incarnation: u64,
        seq: IoSeq,
    },
    Tick {
        node: NodeId,
        incarnation: u64,
    },
    LinkUp {
        at: NodeId,
        peer: NodeId,
    },
    LinkDown {
        at: NodeId,
        peer: NodeId,
    },
    Restart {
        node: NodeId,
    },
    /// One that has abstained may lead again.
    Return {
        node: NodeId,
    },
    /// A checkpoint that a node was writing is durable.
    Checkpointed {
        node: NodeId,
        incarnation: u64,
        slot: Slot,
    },
    /// A checkpoint has come from a donor, if that one is still the same.
    Transferred {
        node: NodeId,
        incarnation: u64,
        donor: (NodeId, u64),
        slot: Slot,
    },
    Client,
    Fault,
    Mend {
        cuts: Vec<(NodeId, NodeId)>,
    },
}

pub(super) struct Node {
    pub(super) core: Option<Core>,
    pub(super) incarnation: u64,
    pub(super) disk: Disk,
    pub(super) held: Vec<Send>,
    pub(super) flushing: bool,
    pub(super) tick_at: Option<Micros>,
    /// A checkpoint is on its way to this node.
    pub(super) fetching: bool,
    /// Commit checked against the oracle so far.
    pub(super) checked: Slot,
}

/// Rates of one run.
pub(super) struct Conditions {
    pub(super) loss: u64,
    pub(super) duplication: u64,
    pub(super) spikes: u64,
    pub(super) delay: Micros,
    pub(super) fifo: bool,
    pub(super) flush: Micros,
    /// Longest pause between two faults.
    pub(super) pause: Micros,
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) mutation: Option<Mutation>,
    pub(super) now: Micros,
    pub(super) order: u64,
    pub(super) queue: BTreeMap<(Micros, u64), Event>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// The members.
    pub(super) ids: Vec<NodeId>,
    pub(super) learners: Vec<NodeId>,
    pub(super) cuts: BTreeMap<(NodeId, NodeId), u32>,
    /// Per direction: arrival time of the last frame, and the number of the last one delivered.
    pub(super) arrival: BTreeMap<(NodeId, NodeId), Micros>,
    pub(super) delivered: BTreeMap<(NodeId, NodeId), u64>,
    pub(super) conditions: Conditions,
    pub(super) sizes: Sizes,
    pub(super) faults_on: bool,
    pub(super) oracle: Oracle,
    pub(super) coverage: Coverage,
    pub(super) trace: DefaultHasher,
    pub(super) written: u64,
    pub(super) proposed: BTreeSet<Bytes>,
}

/// Limits of the cores, small enough to be reached.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) window_slots: usize,
    pub(super) peer_bytes: usize,
    pub(super) retain_slots: usize,
    /// Nodes take checkpoints, and drop their logs behind them.
    pub(super) checkpoints: bool,
}

impl World {
    pub fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let size = rng.pick(&[1, 2, 3, 3, 3, 3, 5, 5, 5, 7]);
        let ids: Vec<NodeId> = (1..=size).collect();
        let learners = 0..rng.pick(&[0, 1, 1, 2]);
        let learners: Vec<NodeId> = learners.map(|index| LEARNERS_FROM + index).collect();
        let conditions = Conditions {
            loss: rng.pick(&[0, 0, 1, 5, 15]),
            duplication: rng.pick(&[0, 5, 20]),
            spikes: rng.pick(&[0, 1, 5]),
            delay: rng.pick(&[100, 1000, 5000, 20_000]),
            fifo: rng.percent(50),
            flush: rng.pick(&[50, 1000, 10_000]),
            pause: rng.pick(&[200, 600, 600, 1200]),
        };
        let sizes = Sizes {
            window_slots: rng.pick(&[2, 8, 64]),
            peer_bytes: rng.pick(&[50, 500, 100_000]),
            retain_slots: rng.pick(&[0, 4, 1000]),
            checkpoints: rng.percent(60),
        };
        let node = |id: &NodeId| {
            let node = Node {
                core: None,
                incarnation: 0,
                disk: Disk::default(),
                held: Vec::new(),
                flushing: false,
                tick_at: None,
                fetching: false,
                checked: 0,
            };
            (*id, node)
        };
        Self {
            nodes: ids.iter().chain(&learners).map(node).collect(),
            oracle: Oracle::new(&ids),
            ids,
            learners,
            rng,
            mutation,
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            cuts: BTreeMap::new(),
            arrival: BTreeMap::new(),
            delivered: BTreeMap::new(),
            conditions,
            sizes,
            faults_on: true,
            coverage: Coverage::default(),
            trace: DefaultHasher::new(),
            written: 0,
            proposed: BTreeSet::new(),
        }
    }

    /// Faults, healing, convergence.
    pub fn run(mut self) -> Result<Report, String> {
        for id in self.everyone() {
            self.start(id)?;
        }
        self.schedule(10 * MILLI, Event::Client);
        self.schedule(50 * MILLI, Event::Fault);
        while self.now < FAULTS_UNTIL {
            self.next_event()?;
        }
        self.heal()?;
        if !self.all_vote() {
            self.converge(None)?;
        }
        if let Some(deaf) = self.deafen_leader() {
            self.converge(Some(deaf))?;
            self.mend(&self.inward(deaf));
        }
        self.converge(None)?;
        self.check_logs()?;
        self.coverage.leaders = self.oracle.leaders() as u64;
        let noops = self.oracle.chosen.values().filter(|value| value.is_empty());
        self.coverage.noops = noops.count() as u64;
        let chosen = self.last_chosen();
        Ok(Report {
            trace: self.trace.finish(),
            chosen,
            coverage: self.coverage,
        })
    }

    /// Until fresh writes are chosen everywhere, but at one node if so wanted.
    fn converge(&mut self, but: Option<NodeId>) -> Verdict {
        let goal = self.last_chosen() + 20;
        let deadline = self.now + HEALED_WITHIN;
        while !self.converged(goal, but) {
            ensure!(self.now < deadline, "no convergence: {}", self.describe());
            self.next_event()?;
        }
        Ok(())
    }

    pub(super) fn schedule(&mut self, delay: Micros, event: Event) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), event);
    }

    pub(super) fn next_event(&mut self) -> Verdict {
        let Some(((at, _), event)) = self.queue.pop_first() else {
            return Err("nothing will ever happen again".to_owned());
        };
        self.now = at;
        match event {
            Event::Deliver {
                from,
                to,
                msg,
                sent,
            } => self.deliver(from, to, msg, sent),
            Event::Flushed {
                node,
                incarnation,
                seq,
            } => self.flushed(node, incarnation, seq),
            Event::Tick { node, incarnation } => self.tick(node, incarnation),
            Event::LinkUp { at, peer } => {
                self.coverage.peer_ups += 1;
                let both = self.alive(at) && self.alive(peer) && !self.cut(at, peer);
                if both {
                    self.step(at, Input::PeerUp(peer))
                } else {
                    Ok(())
                }
            }
            Event::LinkDown { at, peer } => {
                self.coverage.peer_downs += 1;
                self.step(at, Input::PeerDown(peer))
            }
            Event::Restart { node } => self.start(node),
            Event::Return { node } => self.step(node, Input::Abstain(false)),
            Event::Checkpointed {
                node,
                incarnation,
                slot,
            } => {
                self.checkpointed(node, incarnation, slot);
                Ok(())
            }
            Event::Transferred {
                node,
                incarnation,
                donor,
                slot,
            } => self.transferred(node, incarnation, donor, slot),
            Event::Client => self.client(),
            Event::Fault => self.fault(),
            Event::Mend { cuts } => {
                self.mend(&cuts);
                Ok(())
            }
        }
    }

    pub(super) fn alive(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.core.is_some())
    }

    pub(super) fn cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|count| *count > 0)
    }

    /// Members, and learners.
    pub(super) fn everyone(&self) -> Vec<NodeId> {
        self.ids.iter().chain(&self.learners).copied().collect()
    }

    /// Whom a node has links to: learners have none among each other.
    pub(super) fn neighbors(&self, id: NodeId) -> Vec<NodeId> {
        let mut neighbors = match self.ids.contains(&id) {
            true => self.everyone(),
            false => self.ids.clone(),
        };
        neighbors.retain(|neighbor| *neighbor != id);
        neighbors
    }

    pub(super) fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("ids are those of nodes")
    }

    fn client(&mut self) -> Verdict {
        for id in self.ids.clone() {
            let count = self.rng.between(0, 4);
            for _ in 0..count {
                let open = self.node(id).core.as_ref().is_some_and(Core::window_open);
                if open {
                    self.written += 1;
                    let length = self.rng.between(8, 60) as usize;
                    let value = Bytes::from(format!("{:0length$}", self.written));
                    self.proposed.insert(value.clone());
                    self.step(id, Input::Propose(value))?;
                }
            }
        }
        self.take_checkpoints();
        let pause = self.rng.between(100, 30 * MILLI);
        self.schedule(pause, Event::Client);
        Ok(())
    }
}
