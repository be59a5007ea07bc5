//! Learners, as a member sees them: how far they are, and whether they do the same.
//!
//! Nothing here counts for anything: a learner that is wrong finds that out by itself, from the
//! hashes of the members. What is known of one ends with the link to it.

use crate::server::hashes::{History, SlotHashes};
use brolga_consensus::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A learner, as a member sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnerStatus {
    /// The number of the learner.
    pub id: u64,
    /// The slot up to which it has the log; 0 if this node does not lead, and so does not know.
    pub logged: u64,
    /// The last slot that its server has had its time for, as it says itself.
    pub applied: u64,
    /// The last slot at which its hashes were found equal to this node's.
    pub agreed: u64,
    /// The first slot found at which its hashes were other ones.
    pub differs: Option<u64>,
}

/// The state of a learner, as it has reported it.
#[derive(Clone, Copy, Debug, Default)]
struct LearnerState {
    latest: SlotHashes,
    agreed: u64,
    differs: Option<u64>,
}

impl LearnerState {
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

/// The learners that are linked with this node.
#[derive(Debug, Default)]
pub(crate) struct Learners {
    known: BTreeMap<NodeId, LearnerState>,
}

impl Learners {
    /// A learner reports the hashes of its server.
    pub(crate) fn report(&mut self, from: NodeId, theirs: SlotHashes, history: &History) {
        let state = self.known.entry(from).or_default();
        state.latest = theirs;
        state.compare(history);
    }

    /// The own server has got further.
    pub(crate) fn progressed(&mut self, history: &History) {
        for state in self.known.values_mut() {
            state.compare(history);
        }
    }

    /// The link to a learner is down.
    pub(crate) fn lost(&mut self, peer: NodeId) {
        self.known.remove(&peer);
    }

    /// Returns the status of each learner; `linked`: those with a link, each with the slot up to
    /// which it has the log.
    pub(crate) fn statuses(
        &self,
        linked: impl Iterator<Item = (NodeId, u64)>,
    ) -> Vec<LearnerStatus> {
        let status = |(id, logged)| {
            let state = self.known.get(&id).copied().unwrap_or_default();
            LearnerStatus {
                id,
                logged,
                applied: state.latest.slot,
                agreed: state.agreed,
                differs: state.differs,
            }
        };
        linked.map(status).collect()
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
            let state = learners.known[&7];
            (state.latest.slot, state.agreed, state.differs)
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
