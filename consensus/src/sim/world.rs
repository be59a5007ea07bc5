//! The world around the cores: shells, network, faults, clients, and the run itself.

use super::chance::Chance;
use super::coverage::Coverage;
use super::disk::Disk;
use super::oracle::{Oracle, Verdict, ensure};
use crate::core::{
    Config, Core, Effects, Fetch, Input, IoSeq, JournalOp, LEARNERS_FROM, Micros, Msg, Mutation,
    NodeId, Recovery, Send, Slot,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

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
    pub(super) chance: Chance,
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
        let mut chance = Chance::new(seed);
        let size = chance.pick(&[1, 2, 3, 3, 3, 3, 5, 5, 5, 7]);
        let ids: Vec<NodeId> = (1..=size).collect();
        let learners = 0..chance.pick(&[0, 1, 1, 2]);
        let learners: Vec<NodeId> = learners.map(|index| LEARNERS_FROM + index).collect();
        let conditions = Conditions {
            loss: chance.pick(&[0, 0, 1, 5, 15]),
            duplication: chance.pick(&[0, 5, 20]),
            spikes: chance.pick(&[0, 1, 5]),
            delay: chance.pick(&[100, 1000, 5000, 20_000]),
            fifo: chance.percent(50),
            flush: chance.pick(&[50, 1000, 10_000]),
            pause: chance.pick(&[200, 600, 600, 1200]),
        };
        let sizes = Sizes {
            window_slots: chance.pick(&[2, 8, 64]),
            peer_bytes: chance.pick(&[50, 500, 100_000]),
            retain_slots: chance.pick(&[0, 4, 1000]),
            checkpoints: chance.percent(60),
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
            chance,
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

    fn next_event(&mut self) -> Verdict {
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

    fn alive(&self, id: NodeId) -> bool {
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

    // The shell of one node.

    pub(super) fn start(&mut self, id: NodeId) -> Verdict {
        if self.alive(id) {
            return Ok(());
        }
        let mut config = Config::new(id, &self.ids);
        let learner = !self.ids.contains(&id);
        self.coverage.learner_starts += u64::from(learner);
        config.window_slots = self.sizes.window_slots;
        config.peer_bytes = self.sizes.peer_bytes;
        config.retain_slots = self.sizes.retain_slots;
        config.seed = self.chance.word();
        config.mutation = self.mutation;
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("ids are those of nodes");
        self.oracle.on_start(id, &node.disk)?;
        let recovered = node.disk.recover();
        self.coverage.recovered_votes += recovered.tail.len() as u64;
        node.core = Some(Core::new(config, recovered, now));
        node.incarnation += 1;
        node.flushing = false;
        node.tick_at = None;
        node.fetching = false;
        node.checked = node.disk.durable.gone;
        for peer in self.neighbors(id) {
            self.link(id, peer);
        }
        self.settle(id)
    }

    /// Has a link found to work, at both ends at different times.
    pub(super) fn link(&mut self, one: NodeId, other: NodeId) {
        for (at, peer) in [(one, other), (other, one)] {
            let delay = self.chance.between(100, 30 * MILLI);
            self.schedule(delay, Event::LinkUp { at, peer });
        }
    }

    pub(super) fn step(&mut self, id: NodeId, input: Input) -> Verdict {
        let now = self.now;
        let node = self.node(id);
        let Some(core) = &mut node.core else {
            return Ok(());
        };
        let mut effects = Effects::default();
        core.step(now, input, &mut effects);
        self.carry_out(id, effects)?;
        self.settle(id)
    }

    fn carry_out(&mut self, id: NodeId, effects: Effects) -> Verdict {
        (self.now, id, effects.journal.len(), effects.sends.len()).hash(&mut self.trace);
        let node = self.nodes.get_mut(&id).expect("ids are those of nodes");
        for (seq, op) in effects.journal {
            let regained =
                matches!(op, JournalOp::Recovery(Recovery::Voter { floor }) if floor > 0);
            self.coverage.votes_regained += u64::from(regained);
            self.oracle.on_write(&node.disk, &op)?;
            node.disk.write(seq, op);
        }
        if effects
            .leadership
            .is_some_and(|leadership| leadership.leader == Some(id))
        {
            let ballot = effects.leadership.map(|leadership| leadership.ballot);
            self.oracle
                .on_lead(ballot.unwrap_or_default(), id, node.incarnation)?;
        }
        self.check_commit(id)?;
        for send in effects.sends {
            let node = self.node(id);
            if send.after <= node.disk.durable.seq {
                self.send(id, send.to, &send.msg)?;
            } else {
                node.held.push(send);
                self.coverage.held_back += 1;
            }
        }
        for fetch in effects.fetches {
            self.fetch(id, fetch)?;
        }
        if let Some(first) = effects.behind {
            self.find_donor(id, first);
        }
        Ok(())
    }

    fn fetch(&mut self, id: NodeId, fetch: Fetch) -> Verdict {
        self.coverage.fetches += 1;
        let Fetch { to, from, upto, .. } = fetch;
        let first = self.node(id).disk.written.gone + 1;
        if from < first {
            return self.step(id, Input::Gone { to, first });
        }
        let upto = upto.min(from + self.chance.between(0, 5));
        let votes = &self.node(id).disk.durable.votes;
        let values: Option<Vec<_>> = (from..=upto)
            .map(|slot| votes.get(&slot).map(|(_, value)| value.clone()))
            .collect();
        let Some(values) = values else {
            return Err(format!(
                "node {id} forgot slots from {from} that are not durable"
            ));
        };
        self.step(id, Input::Fetched { to, from, values })
    }

    /// Starts a flush if there is something to flush, and plans the next tick.
    fn settle(&mut self, id: NodeId) -> Verdict {
        let flush = self.chance.between(20, self.conditions.flush);
        let slow = self.faults_on && self.chance.percent(1);
        let turn = self.chance.between(1, 100);
        let now = self.now;
        let node = self.node(id);
        let Some(core) = &node.core else {
            return Ok(());
        };
        let incarnation = node.incarnation;
        let soon = now + turn;
        // Every input is followed by the end of a turn; without input the deadline is.
        if node.tick_at.is_none_or(|at| at > soon) {
            let at = soon.max(core.next_deadline().min(soon));
            node.tick_at = Some(at);
            self.schedule(
                at - now,
                Event::Tick {
                    node: id,
                    incarnation,
                },
            );
        }
        let node = self.node(id);
        if node.disk.dirty() && !node.flushing {
            node.flushing = true;
            let seq = node.disk.written.seq;
            self.coverage.slow_flushes += u64::from(slow);
            let delay = if slow { flush + 300 * MILLI } else { flush };
            self.schedule(
                delay,
                Event::Flushed {
                    node: id,
                    incarnation,
                    seq,
                },
            );
        }
        Ok(())
    }

    fn tick(&mut self, id: NodeId, incarnation: u64) -> Verdict {
        let now = self.now;
        let node = self.node(id);
        if node.incarnation != incarnation || node.tick_at.is_none_or(|at| at != now) {
            return Ok(());
        }
        node.tick_at = None;
        let Some(core) = &mut node.core else {
            return Ok(());
        };
        let mut effects = Effects::default();
        core.step(now, Input::Tick, &mut effects);
        let busy = !effects.is_empty();
        self.carry_out(id, effects)?;
        if busy {
            return self.settle(id);
        }
        let node = self.node(id);
        let Some(core) = &node.core else {
            return Ok(());
        };
        let at = core.next_deadline().max(now + 1);
        node.tick_at = Some(at);
        self.schedule(
            at - now,
            Event::Tick {
                node: id,
                incarnation,
            },
        );
        Ok(())
    }

    fn flushed(&mut self, id: NodeId, incarnation: u64, seq: IoSeq) -> Verdict {
        let node = self.nodes.get_mut(&id).expect("ids are those of nodes");
        if node.incarnation != incarnation || node.core.is_none() {
            return Ok(());
        }
        node.flushing = false;
        let ops = node.disk.flush(seq);
        self.oracle.on_durable(id, &ops);
        let held = std::mem::take(&mut node.held);
        for send in held {
            if send.after <= seq {
                self.send(id, send.to, &send.msg)?;
            } else {
                self.node(id).held.push(send);
            }
        }
        self.step(id, Input::Flushed(seq))
    }

    pub(super) fn crash(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("ids are those of nodes");
        if node.core.take().is_none() {
            return;
        }
        node.held.clear();
        let (survived, lost) = node.disk.crash(&mut self.chance);
        self.oracle.on_durable(id, &survived);
        self.coverage.crashes += 1;
        self.coverage.operations_lost += lost as u64;
        self.coverage.operations_survived += survived.len() as u64;
        let vanished = self.chance.percent(20);
        self.coverage.vanished += u64::from(vanished);
        for peer in self.neighbors(id) {
            if !vanished {
                let delay = self.chance.between(100, 5 * MILLI);
                self.schedule(delay, Event::LinkDown { at: peer, peer: id });
            }
        }
    }

    // The network.

    fn send(&mut self, from: NodeId, to: NodeId, msg: &Msg) -> Verdict {
        let node = self.nodes.get(&from).expect("ids are those of nodes");
        self.oracle.on_send(from, &node.disk, msg)?;
        if self.cut(from, to) || (self.faults_on && self.chance.percent(self.conditions.loss)) {
            self.coverage.lost += 1;
            return Ok(());
        }
        let copies =
            1 + u64::from(self.faults_on && self.chance.percent(self.conditions.duplication));
        self.coverage.duplicated += copies - 1;
        for copy in 0..copies {
            let mut delay = self.chance.between(20, self.conditions.delay);
            if self.faults_on && self.chance.percent(self.conditions.spikes) {
                delay += self.chance.between(1, 800) * MILLI;
                self.coverage.delayed += 1;
            }
            // A copy from another time: old votes have to be told from new ones.
            let late = copy > 0 && self.chance.percent(50);
            if late {
                delay += self.chance.between(100, 2000) * MILLI;
                self.coverage.late_copies += 1;
            }
            let mut at = self.now + delay;
            if !late && (self.conditions.fifo || !self.faults_on) {
                at = at.max(self.arrival.get(&(from, to)).copied().unwrap_or(0));
                self.arrival.insert((from, to), at);
            }
            let sent = self.order;
            self.schedule(
                at - self.now,
                Event::Deliver {
                    from,
                    to,
                    msg: msg.clone(),
                    sent,
                },
            );
        }
        Ok(())
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, msg: Msg, sent: u64) -> Verdict {
        let last = self.delivered.entry((from, to)).or_default();
        self.coverage.overtaken += u64::from(sent < *last);
        *last = sent.max(*last);
        self.coverage.rejects += u64::from(matches!(msg, Msg::Reject { .. }));
        self.step(to, Input::Recv { from, msg })
    }

    // Clients.

    fn client(&mut self) -> Verdict {
        for id in self.ids.clone() {
            let count = self.chance.between(0, 4);
            for _ in 0..count {
                let open = self.node(id).core.as_ref().is_some_and(Core::window_open);
                if open {
                    self.written += 1;
                    let length = self.chance.between(8, 60) as usize;
                    let value = Bytes::from(format!("{:0length$}", self.written));
                    self.proposed.insert(value.clone());
                    self.step(id, Input::Propose(value))?;
                }
            }
        }
        self.take_checkpoints();
        let pause = self.chance.between(100, 30 * MILLI);
        self.schedule(pause, Event::Client);
        Ok(())
    }

    // Verdicts. Checkpoints are in their own module.

    fn last_chosen(&self) -> Slot {
        self.oracle
            .chosen
            .last_key_value()
            .map_or(0, |(slot, _)| *slot)
    }

    fn converged(&self, goal: Slot, but: Option<NodeId>) -> bool {
        let nodes = self.nodes.iter().filter(|(id, _)| Some(**id) != but);
        let mut cores = nodes.map(|(_, node)| node.core.as_ref());
        cores.all(|core| core.is_some_and(|core| core.commit() >= goal))
            && (but.is_some() || self.all_vote())
    }

    fn all_vote(&self) -> bool {
        let mut cores = self.ids.iter().map(|id| self.nodes[id].core.as_ref());
        cores.all(|core| core.is_some_and(|core| core.recovery().votes()))
    }

    /// Everything a node newly takes for chosen is what is chosen.
    fn check_commit(&mut self, id: NodeId) -> Verdict {
        let node = self.nodes.get_mut(&id).expect("ids are those of nodes");
        let Some(core) = &node.core else {
            return Ok(());
        };
        for slot in node.checked.max(node.disk.written.gone) + 1..=core.commit() {
            let vote = node.disk.written.votes.get(&slot);
            let Some((_, value)) = vote else {
                return Err(format!(
                    "node {id} takes slot {slot} for chosen and lacks it"
                ));
            };
            let held = core.chosen(slot).is_none_or(|held| held == value);
            ensure!(
                held,
                "node {id} has one value in memory and one on disk in slot {slot}"
            );
            let known = value.is_empty() || self.proposed.contains(value);
            ensure!(known, "slot {slot} has a value that nobody proposed");
            self.oracle.on_commit(id, slot, value)?;
        }
        node.checked = core.commit();
        Ok(())
    }

    /// The logs of all nodes agree from the first slot on.
    fn check_logs(&self) -> Verdict {
        for (id, node) in &self.nodes {
            let first = node.disk.written.gone + 1;
            for slot in first..=node.core.as_ref().map_or(0, Core::commit) {
                let here = node.disk.written.votes.get(&slot).map(|(_, value)| value);
                let same = here.is_some() && here == self.oracle.chosen.get(&slot);
                ensure!(same, "node {id} ends with another log, from slot {slot}");
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let nodes = self.nodes.iter().map(|(id, node)| match &node.core {
            Some(core) => {
                let leadership = core.leadership();
                format!(
                    "{id}: {:?}, commit {} of {}, ballot {}, leader {:?}, ready {}",
                    core.recovery(),
                    core.commit(),
                    core.last_slot(),
                    leadership.ballot,
                    leadership.leader,
                    leadership.ready
                )
            }
            None => format!("{id}: down"),
        });
        nodes.collect::<Vec<_>>().join("; ")
    }
}
