//! The shell of one node: carries out what its core wants, on a simulated disk and clock.

use super::draw::Draw;
use super::oracle::Verdict;
use super::world::{Event, MILLI, World};
use crate::core::{Config, Core, Effects, Fetch, Input, IoSeq, JournalOp, NodeId, Recovery};
use std::hash::Hash;

impl World {
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
        config.seed = self.rng.u64(..);
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
            let delay = self.rng.between(100, 30 * MILLI);
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
        let upto = upto.min(from + self.rng.between(0, 5));
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
    pub(super) fn settle(&mut self, id: NodeId) -> Verdict {
        let flush = self.rng.between(20, self.conditions.flush);
        let slow = self.faults_on && self.rng.percent(1);
        let turn = self.rng.between(1, 100);
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

    pub(super) fn tick(&mut self, id: NodeId, incarnation: u64) -> Verdict {
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

    pub(super) fn flushed(&mut self, id: NodeId, incarnation: u64, seq: IoSeq) -> Verdict {
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
        let (survived, lost) = node.disk.crash(&mut self.rng);
        self.oracle.on_durable(id, &survived);
        self.coverage.crashes += 1;
        self.coverage.operations_lost += lost as u64;
        self.coverage.operations_survived += survived.len() as u64;
        let vanished = self.rng.percent(20);
        self.coverage.vanished += u64::from(vanished);
        for peer in self.neighbors(id) {
            if !vanished {
                let delay = self.rng.between(100, 5 * MILLI);
                self.schedule(delay, Event::LinkDown { at: peer, peer: id });
            }
        }
    }
}
