//! Learners, as a member sees them: how far they are, and whether they do the same.
//!
//! Nothing here counts for anything: a learner that is wrong finds that out by itself, from the hashes
//! of the members. What is known of one ends with the link to it.

use crate::divergence::hashes::{History, SlotHashes};
use crate::event_loop::node::Node;
use crate::server::process::ServerHost;
use crate::status::LearnerStatus;
use brolga_consensus::NodeId;
use std::collections::BTreeMap;
use std::time::Instant;

/// What one has said.
#[derive(Clone, Copy, Debug, Default)]
struct Pupil {
    latest: SlotHashes,
    agreed: u64,
    differs: Option<u64>,
}

impl Pupil {
    fn compare(&mut self, history: &History) {
        let slot = self.latest.slot;
        match history.at(slot) {
            Some(ours) if ours == self.latest => {
                self.agreed = slot;
                // Hashes are cumulative, so that this makes up for everything before.
                self.differs = None;
            }
            Some(_) => self.differs = self.differs.or(Some(slot)),
            // Forgotten, or still to come.
            None => {}
        }
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Learners {
    known: BTreeMap<NodeId, Pupil>,
}

impl Learners {
    /// One says where its server is.
    pub(crate) fn report(&mut self, from: NodeId, theirs: SlotHashes, history: &History) {
        let pupil = self.known.entry(from).or_default();
        pupil.latest = theirs;
        pupil.compare(history);
    }

    /// The own server has got further.
    pub(crate) fn progressed(&mut self, history: &History) {
        for pupil in self.known.values_mut() {
            pupil.compare(history);
        }
    }

    pub(crate) fn lost(&mut self, peer: NodeId) {
        self.known.remove(&peer);
    }
}

impl<H: ServerHost> Node<H> {
    pub(crate) fn learner_statuses(&self) -> Vec<LearnerStatus> {
        let learners = self.replica.learners();
        let status = |(id, logged)| {
            let pupil = self.learners.known.get(&id).copied().unwrap_or_default();
            LearnerStatus {
                id,
                logged,
                applied: pupil.latest.slot,
                agreed: pupil.agreed,
                differs: pupil.differs,
            }
        };
        learners.map(status).collect()
    }

    /// A new leader may never have met a learner whose clients it has to give up: it is away from now on.
    pub(crate) fn count_lost_learners(&mut self, now: Instant) {
        let linked: Vec<NodeId> = self.replica.learners().map(|(id, _)| id).collect();
        let nodes = self.conns.frontends().map(|(_, known)| known.node);
        for node in nodes.filter(|node| *node >= brolga_consensus::LEARNERS_FROM) {
            if !linked.contains(&node) && !self.config.is_member(node) {
                self.absent.entry(node).or_insert(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(slot: u64, output_hash: u64) -> SlotHashes {
        SlotHashes {
            slot,
            output_hash,
            schedule_hash: 0,
        }
    }

    #[test]
    fn what_is_known_of_a_learner_is_what_could_be_compared() {
        let mut history = History::default();
        history.put(hashes(1, 10));
        history.put(hashes(2, 20));
        let mut learners = Learners::default();
        let known = |learners: &Learners| {
            let pupil = learners.known[&7];
            (pupil.latest.slot, pupil.agreed, pupil.differs)
        };
        learners.report(7, hashes(1, 10), &history);
        assert_eq!(known(&learners), (1, 1, None));
        learners.report(7, hashes(2, 21), &history);
        assert_eq!(known(&learners), (2, 1, Some(2)));
        learners.report(7, hashes(3, 30), &history);
        assert_eq!(known(&learners), (3, 1, Some(2)), "not known here yet");
        history.put(hashes(3, 30));
        learners.progressed(&history);
        assert_eq!(known(&learners), (3, 3, None), "now it is");
        learners.lost(7);
        assert!(learners.known.is_empty());
    }
}
