//! The network: messages are lost, copied, delayed and overtaken.

use super::draw::Draw;
use super::oracle::Verdict;
use super::world::{Event, MILLI, World};
use crate::core::{Input, Msg, NodeId};

impl World {
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, msg: &Msg) -> Verdict {
        let node = self.nodes.get(&from).expect("ids are those of nodes");
        self.oracle.on_send(from, &node.disk, msg)?;
        if self.cut(from, to) || (self.faults_on && self.rng.percent(self.conditions.loss)) {
            self.coverage.lost += 1;
            return Ok(());
        }
        let copies = 1 + u64::from(self.faults_on && self.rng.percent(self.conditions.duplication));
        self.coverage.duplicated += copies - 1;
        for copy in 0..copies {
            let mut delay = self.rng.between(20, self.conditions.delay);
            if self.faults_on && self.rng.percent(self.conditions.spikes) {
                delay += self.rng.between(1, 800) * MILLI;
                self.coverage.delayed += 1;
            }
            // A copy from another time: old votes have to be told from new ones.
            let late = copy > 0 && self.rng.percent(50);
            if late {
                delay += self.rng.between(100, 2000) * MILLI;
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

    pub(super) fn deliver(&mut self, from: NodeId, to: NodeId, msg: Msg, sent: u64) -> Verdict {
        let last = self.delivered.entry((from, to)).or_default();
        self.coverage.overtaken += u64::from(sent < *last);
        *last = sent.max(*last);
        self.coverage.rejects += u64::from(matches!(msg, Msg::Reject { .. }));
        self.step(to, Input::Recv { from, msg })
    }
}
