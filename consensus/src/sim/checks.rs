//! What is checked of the nodes beside each step: their logs, and that they converge in the end.

use super::oracle::{Verdict, ensure};
use super::world::World;
use crate::core::{Core, NodeId, Slot};

impl World {
    pub(super) fn last_chosen(&self) -> Slot {
        self.oracle
            .chosen
            .last_key_value()
            .map_or(0, |(slot, _)| *slot)
    }

    pub(super) fn converged(&self, goal: Slot, but: Option<NodeId>) -> bool {
        let nodes = self.nodes.iter().filter(|(id, _)| Some(**id) != but);
        let mut cores = nodes.map(|(_, node)| node.core.as_ref());
        cores.all(|core| core.is_some_and(|core| core.commit() >= goal))
            && (but.is_some() || self.all_vote())
    }

    pub(super) fn all_vote(&self) -> bool {
        let mut cores = self.ids.iter().map(|id| self.nodes[id].core.as_ref());
        cores.all(|core| core.is_some_and(|core| core.recovery().votes()))
    }

    /// Everything a node newly takes for chosen is what is chosen.
    pub(super) fn check_commit(&mut self, id: NodeId) -> Verdict {
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
    pub(super) fn check_logs(&self) -> Verdict {
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

    pub(super) fn describe(&self) -> String {
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
