//! Donors: which node is asked for a checkpoint.
//!
//! A node that has failed less often before one that has failed more often; then the one whose
//! checkpoint is here in part already; then a follower before the leader, which has enough to do;
//! then the one that has the newest. A node that has failed is left alone for a while, twice as
//! long each time.
//!
//! Sans-IO: what other nodes have is told, and time is given.

use brolga_consensus::{Backoff, NodeId};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The pause after the first failure; it doubles with each that follows.
const PAUSE_LEAST: Duration = Duration::from_millis(200);
const PAUSE_MOST: Duration = Duration::from_secs(30);

/// The state of a node, as far as it is known.
#[derive(Clone, Copy, Debug)]
struct Donor {
    /// There is a link to it.
    up: bool,
    /// The slot of its newest checkpoint, if it has told of one.
    newest: Option<u64>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Donor {
    /// A node without a link, of which nothing is known.
    fn new() -> Self {
        Self {
            up: false,
            newest: None,
            backoff: Backoff::new(PAUSE_LEAST, PAUSE_MOST),
            not_before: None,
        }
    }
}

/// The choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Ask this one.
    Ask(NodeId),
    /// Ask no node now; look again then, or when a node has told something.
    Wait(Option<Instant>),
}

/// The requirements of one fetch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requirements {
    /// Older checkpoints are of no use.
    pub at_least: u64,
    /// The leader.
    pub leader: Option<NodeId>,
    /// A checkpoint of this node is here in part.
    pub begun: Option<NodeId>,
}

/// The nodes that may have a checkpoint.
#[derive(Debug)]
pub struct Donors {
    all: BTreeMap<NodeId, Donor>,
}

impl Donors {
    /// The other nodes; none has a link yet.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let all = nodes.into_iter().map(|id| (id, Donor::new()));
        Self { all: all.collect() }
    }

    /// A link came or went. One that comes back may have mended what was wrong.
    pub fn link(&mut self, node: NodeId, up: bool) {
        if let Some(donor) = self.all.get_mut(&node) {
            donor.up = up;
            donor.not_before = None;
        }
    }

    /// A node has told of its newest checkpoint.
    pub fn told(&mut self, node: NodeId, slot: u64) {
        if let Some(donor) = self.all.get_mut(&node) {
            if donor.newest != Some(slot) {
                donor.not_before = None;
            }
            donor.newest = Some(slot);
        }
    }

    /// An attempt with a node has failed.
    pub fn failed(&mut self, node: NodeId, now: Instant) {
        if let Some(donor) = self.all.get_mut(&node) {
            donor.not_before = Some(now + donor.backoff.fail());
        }
    }

    /// Chooses the node that is asked now.
    pub fn choose(&self, requirements: Requirements, now: Instant) -> Choice {
        let of_use = |donor: &Donor| {
            donor
                .newest
                .is_none_or(|slot| slot >= requirements.at_least)
        };
        let donors = self.all.iter();
        let donors = donors.filter(|(_, donor)| donor.up && of_use(donor));
        let ready = |donor: &Donor| donor.not_before.is_none_or(|at| at <= now);
        let best = donors.clone().filter(|(_, donor)| ready(donor));
        let best = best.min_by_key(|(id, donor)| {
            let begun = requirements.begun == Some(**id);
            let leads = requirements.leader == Some(**id);
            // Nothing is less than something: who has told of none comes last.
            (
                donor.backoff.failures(),
                !begun,
                leads,
                Reverse(donor.newest),
                **id,
            )
        });
        match best {
            Some((id, _)) => Choice::Ask(*id),
            None => Choice::Wait(donors.filter_map(|(_, donor)| donor.not_before).min()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn donors() -> Donors {
        let mut donors = Donors::new([1, 2, 3]);
        for id in 1..=3 {
            donors.link(id, true);
        }
        donors
    }

    fn requirements(at_least: u64, leader: NodeId) -> Requirements {
        Requirements {
            at_least,
            leader: Some(leader),
            begun: None,
        }
    }

    #[test]
    fn a_follower_is_asked_before_the_leader_and_the_newest_first() {
        let now = Instant::now();
        let mut donors = donors();
        for (id, slot) in [(1, 30), (2, 20), (3, 10)] {
            donors.told(id, slot);
        }
        assert_eq!(donors.choose(requirements(5, 1), now), Choice::Ask(2));
        assert_eq!(donors.choose(requirements(5, 2), now), Choice::Ask(1));
        assert_eq!(donors.choose(requirements(25, 1), now), Choice::Ask(1));
        assert_eq!(donors.choose(requirements(31, 1), now), Choice::Wait(None));
        donors.link(1, false);
        assert_eq!(donors.choose(requirements(25, 1), now), Choice::Wait(None));
        let begun = Requirements {
            begun: Some(3),
            ..requirements(5, 1)
        };
        assert_eq!(donors.choose(begun, now), Choice::Ask(3));
    }

    #[test]
    fn who_has_failed_comes_later_and_is_left_alone_longer_each_time() {
        let mut now = Instant::now();
        let mut donors = donors();
        donors.link(3, false);
        donors.told(1, 10);
        donors.told(2, 20);
        assert_eq!(donors.choose(requirements(5, 1), now), Choice::Ask(2));
        donors.failed(2, now);
        assert_eq!(donors.choose(requirements(5, 1), now), Choice::Ask(1));
        donors.failed(1, now);
        let again = Choice::Wait(Some(now + PAUSE_LEAST));
        assert_eq!(donors.choose(requirements(5, 1), now), again);
        now += PAUSE_LEAST;
        assert_eq!(donors.choose(requirements(5, 1), now), Choice::Ask(2));
        donors.failed(2, now);
        assert_eq!(donors.choose(requirements(5, 1), now), Choice::Ask(1));
        for _ in 0..40 {
            donors.failed(1, now);
        }
        now += PAUSE_MOST;
        assert_eq!(donors.choose(requirements(5, 1), now), Choice::Ask(2));
        // News, or a new link, end the pause.
        donors.failed(2, now);
        donors.failed(1, now);
        donors.told(2, 20);
        assert!(matches!(
            donors.choose(requirements(5, 1), now),
            Choice::Wait(_)
        ));
        donors.told(2, 21);
        assert_eq!(donors.choose(requirements(5, 1), now), Choice::Ask(2));
    }

    #[test]
    fn one_that_has_told_of_none_is_asked_last() {
        let now = Instant::now();
        let mut donors = donors();
        donors.told(3, 7);
        assert_eq!(donors.choose(requirements(1, 9), now), Choice::Ask(3));
        donors.link(3, false);
        assert_eq!(donors.choose(requirements(1, 9), now), Choice::Ask(1));
    }
}
