//! Log truncation: how much of the log is kept.
//!
//! The log is dropped for every node that comes later: a node that lacks a part of it needs a
//! checkpoint. So this node drops its log up to the least of
//!
//! * the oldest checkpoint that it keeps itself: the next older one is used when the newest is
//!   damaged;
//! * the slot that checkpoints of a majority of the members cover, itself included: as long as any
//!   of them has its disk there is one to be fetched, and the log behind it is here;
//! * the checkpoint that a node is fetching at the moment: its log goes on from there.
//!
//! The last is bounded, in time and in bytes, so that a fetching node cannot fill the others'
//! disks: one that takes too long fetches a newer checkpoint. A member that is merely slow finds in
//! the log what was chosen since the oldest checkpoint that is kept: with two kept at least an
//! interval between checkpoints.
//!
//! No node gets the log of a learner: it drops what its own oldest checkpoint covers.
//!
//! Sans-IO. What a node has told counts until it tells something else, also while it is away: its
//! disk is not lost by that.

use brolga_consensus::NodeId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often a fetching node renews its hold on the log.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A hold that is not renewed for longer has ended.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The log is kept no longer than this for a node that fetches.
const HOLD_MAX: Duration = Duration::from_secs(15 * 60);
/// The log is kept no longer than for so many bytes for a node that fetches.
const HOLD_BYTES_MAX: u64 = 1 << 30;

/// The hold of a node that fetches a checkpoint.
#[derive(Clone, Copy, Debug)]
struct Hold {
    slot: u64,
    since: Instant,
    heard: Instant,
    /// Bytes of the log when it began.
    logged: u64,
}

/// The rule, and what it needs to know of the other nodes.
#[derive(Debug)]
pub struct Truncation {
    /// The newest checkpoint of each other member.
    others: BTreeMap<NodeId, u64>,
    /// This node is a member.
    member: bool,
    holds: BTreeMap<NodeId, Hold>,
}

impl Truncation {
    /// The rule for node `id` in a cluster of `members`.
    pub fn new(id: NodeId, members: impl IntoIterator<Item = NodeId>) -> Self {
        let members: Vec<NodeId> = members.into_iter().collect();
        let others = members.iter().filter(|member| **member != id);
        Self {
            others: others.map(|member| (*member, 0)).collect(),
            member: members.contains(&id),
            holds: BTreeMap::new(),
        }
    }

    /// Another node has told the slot of its newest checkpoint; 0: it has none.
    pub fn told(&mut self, node: NodeId, slot: u64) {
        if let Some(known) = self.others.get_mut(&node) {
            *known = slot;
        }
    }

    /// The slot of the newest checkpoint of another node; 0: it has none, or has not told.
    pub fn newest_of(&self, node: NodeId) -> u64 {
        self.others.get(&node).copied().unwrap_or_default()
    }

    /// Another node says that it fetches the checkpoint of `slot`, or 0: none any more. `logged`:
    /// bytes that the log has grown by so far.
    pub fn fetches(&mut self, node: NodeId, slot: u64, logged: u64, now: Instant) {
        if slot == 0 {
            self.holds.remove(&node);
            return;
        }
        let before = self.holds.get(&node).copied();
        let before = before.filter(|hold| now.saturating_duration_since(hold.heard) < SILENCE_MAX);
        let hold = Hold {
            slot,
            since: before.map_or(now, |hold| hold.since),
            heard: now,
            logged: before.map_or(logged, |hold| hold.logged),
        };
        self.holds.insert(node, hold);
    }

    /// The slot up to which the log may be truncated. `own`: slots of the checkpoints here, the
    /// newest first.
    pub fn droppable(&self, own: &[u64], logged: u64, now: Instant) -> Option<u64> {
        let (newest, oldest) = (*own.first()?, *own.last()?);
        if !self.member {
            return Some(oldest);
        }
        let mut covered: Vec<u64> = self.others.values().copied().collect();
        covered.push(newest);
        covered.sort_unstable_by(|one, other| other.cmp(one));
        let by_majority = *covered.get(covered.len() / 2)?;
        let valid = |hold: &&Hold| {
            now.saturating_duration_since(hold.heard) < SILENCE_MAX
                && now.saturating_duration_since(hold.since) < HOLD_MAX
                && logged.saturating_sub(hold.logged) < HOLD_BYTES_MAX
        };
        let held = self.holds.values().filter(valid).map(|hold| hold.slot);
        let upto = held.chain([oldest, by_majority]).min()?;
        (upto > 0).then_some(upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Truncation {
        Truncation::new(1, [1, 2, 3])
    }

    #[test]
    fn a_majority_and_the_own_oldest_have_to_cover_what_is_dropped() {
        let now = Instant::now();
        let mut truncation = three();
        assert_eq!(truncation.droppable(&[20, 10], 0, now), None);
        truncation.told(2, 15);
        assert_eq!(truncation.droppable(&[20, 10], 0, now), Some(10));
        assert_eq!(truncation.droppable(&[20], 0, now), Some(15));
        assert_eq!(truncation.droppable(&[], 0, now), None);
        // The third adds nothing to a majority, but may make a better one.
        truncation.told(3, 30);
        assert_eq!(truncation.droppable(&[20], 0, now), Some(20));
        // One that has lost its disk counts no more.
        truncation.told(3, 0);
        truncation.told(2, 0);
        assert_eq!(truncation.droppable(&[20], 0, now), None);
        // Nobody knows this one.
        truncation.told(9, 100);
        assert_eq!(truncation.droppable(&[20], 0, now), None);
    }

    #[test]
    fn small_clusters_and_those_that_are_no_members() {
        let now = Instant::now();
        assert_eq!(Truncation::new(1, [1]).droppable(&[7], 0, now), Some(7));
        let mut two = Truncation::new(1, [1, 2]);
        assert_eq!(two.droppable(&[7], 0, now), None);
        two.told(2, 5);
        assert_eq!(two.droppable(&[7], 0, now), Some(5));
        let mut learner = Truncation::new(4, [1, 2, 3]);
        learner.told(1, 9);
        let alone = learner.droppable(&[7, 5], 0, now);
        assert_eq!(alone, Some(5), "nobody gets its log");
    }

    #[test]
    fn the_log_is_kept_for_who_fetches_but_not_for_ever() {
        let begin = Instant::now();
        let mut truncation = three();
        truncation.told(2, 50);
        let drop_at = |it: &Truncation, logged, now| it.droppable(&[50], logged, now);
        truncation.fetches(3, 20, 100, begin);
        assert_eq!(drop_at(&truncation, 100, begin), Some(20));
        assert_eq!(drop_at(&truncation, 100, begin + SILENCE_MAX), Some(50));
        // It goes on with a newer one; what was kept for it counts all the same.
        let mut now = begin;
        while now < begin + HOLD_MAX {
            assert_eq!(drop_at(&truncation, 100, now), Some(20));
            now += RENEW_EVERY;
            truncation.fetches(3, 20, 200, now);
        }
        assert_eq!(drop_at(&truncation, 100, now), Some(50));
        // Another one, some time later.
        let later = now + SILENCE_MAX;
        truncation.fetches(3, 30, 1000, later);
        assert_eq!(drop_at(&truncation, 1000, later), Some(30));
        assert_eq!(drop_at(&truncation, 1000 + HOLD_BYTES_MAX, later), Some(50));
        truncation.fetches(3, 0, 1000, later);
        assert_eq!(drop_at(&truncation, 1000, later), Some(50));
    }

    /// Whatever is told in whatever order: what was dropped is covered by a checkpoint of its own
    /// and by those of a majority.
    #[test]
    fn nothing_is_dropped_that_a_majority_has_not_covered() {
        let mut rng = fastrand::Rng::with_seed(7);
        let now = Instant::now();
        for size in 1..=5 {
            let mut truncation = Truncation::new(1, 1..=size);
            let mut told = BTreeMap::new();
            for _ in 0..2000 {
                let (node, slot) = (2 + rng.u64(..size), rng.u64(..10));
                truncation.told(node, slot);
                told.insert(node, slot);
                let mut own = [rng.u64(..10), rng.u64(..10)];
                own.sort_unstable_by(|one, other| other.cmp(one));
                let Some(upto) = truncation.droppable(&own, 0, now) else {
                    continue;
                };
                assert!(upto <= own[1]);
                let members = (2..=size).filter(|it| told.get(it).is_some_and(|it| *it >= upto));
                assert!(
                    2 * (1 + members.count()) > size as usize,
                    "{told:?} {own:?} {upto}"
                );
            }
        }
    }
}
