//! Faults and their mending.

use super::disk::Disk;
use super::draw::Draw;
use super::oracle::Verdict;
use super::world::{Event, MILLI, World};
use crate::core::{Input, NodeId};

impl World {
    pub(super) fn inward(&self, id: NodeId) -> Vec<(NodeId, NodeId)> {
        self.ids
            .iter()
            .filter(|other| **other != id)
            .map(|other| (*other, id))
            .collect()
    }

    /// In some runs, has the leader speak and not hear, for good: the others must not wait for it.
    pub(super) fn deafen_leader(&mut self) -> Option<NodeId> {
        let leaders = self.nodes.iter().filter(|(_, node)| {
            node.core
                .as_ref()
                .is_some_and(|core| core.leadership().ready)
        });
        let leader = leaders.map(|(id, _)| *id).next_back()?;
        if self.ids.len() < 3 || self.rng.percent(70) {
            return None;
        }
        self.coverage.deaf_leaders += 1;
        for (from, to) in self.inward(leader) {
            *self.cuts.entry((from, to)).or_default() += 1;
        }
        Some(leader)
    }

    pub(super) fn fault(&mut self) -> Verdict {
        if !self.faults_on {
            return Ok(());
        }
        // Leaders are where it hurts.
        let leaders = self.nodes.iter().filter(|(_, node)| {
            node.core
                .as_ref()
                .is_some_and(|core| core.leadership().ready)
        });
        let mut targets: Vec<NodeId> = leaders.map(|(id, _)| *id).collect();
        if targets.is_empty() || self.rng.percent(50) {
            targets.clone_from(&self.ids);
        }
        let one = self.rng.pick(&targets);
        self.trouble_learners();
        match self.rng.between(0, 12) {
            0..=3 => self.crash_for_a_while(one),
            4 => {
                self.coverage.all_down += 1;
                for id in self.ids.clone() {
                    self.crash_for_a_while(id);
                }
            }
            5 => self.flap(one),
            10 => self.abstain_for_a_while(one)?,
            11 | 12 => self.wipe(one),
            6 => {
                self.coverage.isolations += 1;
                let others = self.neighbors(one);
                let out = others.iter().map(|other| (one, *other));
                self.cut_for_a_while(out.chain(others.iter().map(|o| (*o, one))).collect());
            }
            7 => {
                self.coverage.one_way_cuts += 1;
                let inward = self.rng.percent(50);
                let cuts = self.neighbors(one).into_iter();
                let cuts = cuts
                    .map(|o| if inward { (o, one) } else { (one, o) })
                    .collect();
                self.cut_for_a_while(cuts);
            }
            _ => self.split(),
        }
        let pause = self.rng.between(20, self.conditions.pause) * MILLI;
        self.schedule(pause, Event::Fault);
        Ok(())
    }

    fn crash_for_a_while(&mut self, id: NodeId) {
        self.crash(id);
        let away = self
            .rng
            .pick(&[5, 50, 500, 1500])
            .min(2 * self.conditions.pause)
            * MILLI;
        self.schedule(away, Event::Restart { node: id });
    }

    /// Takes a node's disk away, unless too many have lost theirs and do not vote again yet.
    fn wipe(&mut self, id: NodeId) {
        let others = self.ids.iter().filter(|other| **other != id);
        let lost = others.filter(|other| !self.nodes[other].disk.durable.is_voter());
        if lost.count() + 1 > self.ids.len() - (self.ids.len() / 2 + 1) {
            return;
        }
        self.coverage.wipes += 1;
        self.take_disk(id);
        self.crash_for_a_while(id);
    }

    fn take_disk(&mut self, id: NodeId) {
        self.crash(id);
        self.node(id).disk = Disk::default();
        self.oracle.on_wipe(id);
    }

    /// Learners go for a while, or with their disks, or for good; are slow to hear, or hear
    /// nothing.
    fn trouble_learners(&mut self) {
        for id in self.learners.clone() {
            match self.rng.between(0, 19) {
                0..=2 => self.crash_for_a_while(id),
                3 => {
                    self.coverage.learner_losses += 1;
                    self.take_disk(id);
                    self.crash_for_a_while(id);
                }
                4 => {
                    // Until everything heals.
                    self.coverage.learner_departures += 1;
                    self.crash(id);
                }
                5 => {
                    let member = self.rng.pick(&self.ids.clone());
                    self.flap_link(id, member);
                }
                6 => {
                    self.coverage.lagging_learners += 1;
                    let inward = self.neighbors(id).into_iter().map(|member| (member, id));
                    self.cut_for_a_while(inward.collect());
                }
                _ => {}
            }
        }
    }

    /// Has a node give up the lead, if it has it, and not seek it. A restart makes an end of it
    /// too.
    fn abstain_for_a_while(&mut self, id: NodeId) -> Verdict {
        self.coverage.abstentions += 1;
        self.step(id, Input::Abstain(true))?;
        let lasting = self.rng.pick(&[20, 200, 1000]).min(self.conditions.pause) * MILLI;
        self.schedule(lasting, Event::Return { node: id });
        Ok(())
    }

    /// Breaks and renews one link.
    fn flap(&mut self, one: NodeId) {
        let other = self.rng.pick(&self.ids.clone());
        if one != other {
            self.flap_link(one, other);
        }
    }

    fn flap_link(&mut self, one: NodeId, other: NodeId) {
        self.coverage.flaps += 1;
        self.schedule(
            0,
            Event::LinkDown {
                at: one,
                peer: other,
            },
        );
        self.schedule(
            0,
            Event::LinkDown {
                at: other,
                peer: one,
            },
        );
        self.queue.retain(|_, event| match event {
            Event::Deliver { from, to, .. } => {
                (*from, *to) != (one, other) && (*from, *to) != (other, one)
            }
            _ => true,
        });
        self.link(one, other);
    }

    fn split(&mut self) {
        self.coverage.splits += 1;
        let mut cuts = Vec::new();
        let everyone = self.everyone();
        let sides: Vec<bool> = everyone.iter().map(|_| self.rng.percent(50)).collect();
        for (one, left) in everyone.iter().zip(&sides) {
            for (other, right) in everyone.iter().zip(&sides) {
                if left != right {
                    cuts.push((*one, *other));
                }
            }
        }
        self.cut_for_a_while(cuts);
    }

    fn cut_for_a_while(&mut self, cuts: Vec<(NodeId, NodeId)>) {
        let noticed = self.rng.percent(50);
        for (from, to) in &cuts {
            *self.cuts.entry((*from, *to)).or_default() += 1;
            if noticed {
                let delay = self.rng.between(1, 400) * MILLI;
                self.schedule(
                    delay,
                    Event::LinkDown {
                        at: *to,
                        peer: *from,
                    },
                );
            }
        }
        let lasting = self
            .rng
            .pick(&[20, 200, 1000, 2000])
            .min(self.conditions.pause)
            * MILLI;
        self.schedule(lasting, Event::Mend { cuts });
    }

    pub(super) fn mend(&mut self, cuts: &[(NodeId, NodeId)]) {
        for (from, to) in cuts {
            if let Some(count) = self.cuts.get_mut(&(*from, *to)) {
                *count -= 1;
            }
        }
        for (from, to) in cuts {
            if self.neighbors(*from).contains(to) {
                self.link(*from, *to);
            }
        }
    }

    pub(super) fn heal(&mut self) -> Verdict {
        self.faults_on = false;
        self.conditions.flush = 1000;
        self.conditions.delay = 1000;
        let mends: Vec<_> = self.queue.keys().copied().collect();
        for key in mends {
            if matches!(self.queue.get(&key), Some(Event::Mend { .. }))
                && let Some(Event::Mend { cuts }) = self.queue.remove(&key)
            {
                self.mend(&cuts);
            }
        }
        assert!(self.cuts.values().all(|count| *count == 0));
        for id in self.everyone() {
            self.start(id)?;
            self.step(id, Input::Abstain(false))?;
        }
        for one in self.ids.clone() {
            for other in self.neighbors(one) {
                if one < other {
                    self.link(one, other);
                }
            }
        }
        Ok(())
    }
}
