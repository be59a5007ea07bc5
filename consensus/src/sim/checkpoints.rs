//! Checkpoints in the simulator: taken at will, truncated behind, carried from node to node while
//! donors die and logs go on being truncated.

use super::draw::Draw;
use super::oracle::Verdict;
use super::world::{Event, MILLI, World};
use crate::core::{Core, Input, Mutation, NodeId, Slot};

impl World {
    /// Now and then a node begins a checkpoint, and one drops what enough checkpoints cover.
    pub(super) fn take_checkpoints(&mut self) {
        if !self.sizes.checkpoints {
            return;
        }
        for id in self.everyone() {
            if self.rng.percent(3) {
                self.begin_checkpoint(id);
            }
            if self.rng.percent(3) {
                self.truncate(id);
            }
        }
    }

    fn begin_checkpoint(&mut self, id: NodeId) {
        let lasting = self.rng.pick(&[1, 20, 300]) * MILLI;
        let node = self.node(id);
        let Some(slot) = node.core.as_ref().map(Core::commit) else {
            return;
        };
        let (node, incarnation) = (id, node.incarnation);
        self.schedule(
            lasting,
            Event::Checkpointed {
                node,
                incarnation,
                slot,
            },
        );
    }

    pub(super) fn checkpointed(&mut self, id: NodeId, incarnation: u64, slot: Slot) {
        let node = self.node(id);
        if node.incarnation != incarnation || node.core.is_none() {
            return; // Half of it is none.
        }
        node.disk.checkpoint = node.disk.checkpoint.max(slot);
        self.coverage.checkpoints += 1;
    }

    /// Drops the log up to a slot that its own checkpoint and those of a majority cover, less some
    /// slack.
    fn truncate(&mut self, id: NodeId) {
        let members = self.ids.iter().map(|id| &self.nodes[id]);
        let mut covered: Vec<Slot> = members.map(|node| node.disk.checkpoint).collect();
        covered.sort_unstable();
        let majority = covered[covered.len() - (covered.len() / 2 + 1)];
        let slack = self.rng.pick(&[0, 0, 10, 200]);
        let uncovered = self.mutation == Some(Mutation::TruncateUncovered);
        let node = self.node(id);
        let Some(core) = &node.core else {
            return;
        };
        let upto = match uncovered {
            true => core.commit(),
            false => majority.min(node.disk.checkpoint).min(core.commit()),
        };
        let upto = upto.min(node.disk.durable.commit).saturating_sub(slack);
        if upto > node.disk.written.gone {
            node.disk.truncate(upto);
            self.coverage.truncations += 1;
        }
    }

    /// A node lacks slots that the leader has dropped.
    pub(super) fn find_donor(&mut self, id: NodeId, first: Slot) {
        if self.node(id).fetching {
            return;
        }
        let fit =
            |node: &super::world::Node| node.core.is_some() && node.disk.checkpoint + 1 >= first;
        let neighbors = self.neighbors(id);
        let donors = self.nodes.iter().filter(|(donor, node)| {
            neighbors.contains(donor) && fit(node) && !self.cut(**donor, id)
        });
        let donors: Vec<_> = donors
            .map(|(donor, node)| ((*donor, node.incarnation), node.disk.checkpoint))
            .collect();
        if donors.is_empty() {
            return;
        }
        let (donor, slot) = self.rng.pick(&donors);
        let lasting = self.rng.pick(&[1, 50, 800, 2000, 4000]) * MILLI;
        let node = self.node(id);
        node.fetching = true;
        let (node, incarnation) = (id, node.incarnation);
        self.coverage.transfers += 1;
        self.coverage.transfers_to_learners += u64::from(!self.ids.contains(&id));
        self.schedule(
            lasting,
            Event::Transferred {
                node,
                incarnation,
                donor,
                slot,
            },
        );
    }

    pub(super) fn transferred(
        &mut self,
        id: NodeId,
        incarnation: u64,
        donor: (NodeId, u64),
        slot: Slot,
    ) -> Verdict {
        let lives = {
            let node = self.node(donor.0);
            node.core.is_some() && node.incarnation == donor.1
        };
        let node = self.node(id);
        if node.incarnation != incarnation || node.core.is_none() {
            return Ok(());
        }
        node.fetching = false;
        if !lives {
            self.coverage.donor_deaths += 1;
            return Ok(()); // Another one is found when the leader says again that it is needed.
        }
        node.disk.checkpoint = node.disk.checkpoint.max(slot);
        let late = node.core.as_ref().is_some_and(|core| core.commit() >= slot);
        match late {
            true => self.coverage.installs_too_late += 1,
            false => self.coverage.installs += 1,
        }
        self.step(id, Input::Installed(slot))
    }
}
