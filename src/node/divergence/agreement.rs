//! Which replicas agree with this one, up to where, and who is in the minority where they do not.
//!
//! Hashes are cumulative: replicas that agree at one slot agree at all slots before it. So each node
//! needs to say only where its server is now. When a hash differs, the first slot that does is
//! searched for between the last one known to be equal and this one; there all replicas vote with
//! their hashes, and each node comes to the verdict by itself:
//!
//! * a majority has this node's hash: the others are wrong, and nothing changes here;
//! * a majority has another hash: this node's server is wrong ([`Verdict::Minority`]);
//! * neither: nobody knows who is right. That stays so until more replicas have told.
//!
//! Sans-IO: says what it wants to ask in [`Ledger::next_question`], and is told the answers.

use crate::server::output::{History, SlotHashes};
use brolga_consensus::NodeId;
use std::collections::{BTreeMap, VecDeque};

/// Reports of one peer that wait for the own server to get there.
const AHEAD_MAX: usize = 1024;
/// Slots told in answer to one probe.
const SAMPLES_MAX: u64 = 32;

/// What this node knows of one other replica.
#[derive(Debug, Default)]
struct Peer {
    up: bool,
    /// The last slot at which it was equal.
    agreed: u64,
    /// The first slot known to differ, as the peer has it.
    differs: Option<SlotHashes>,
    /// A majority has found it wrong; it is not listened to until it agrees again.
    condemned: bool,
    /// The first slot that differs could not be made out any closer.
    forgotten: bool,
    asked: bool,
    /// Where it says that its server is.
    latest: SlotHashes,
    /// What it has said of slots that are still to come here.
    ahead: VecDeque<SlotHashes>,
}

/// A question to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The node.
    pub to: NodeId,
    /// It is to tell of slots above this one
    pub low: u64,
    /// up to this one.
    pub high: u64,
}

/// Where replicas differ, and who with whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    /// The first slot that differs.
    pub slot: u64,
    /// The slot before was equal, so that this is the first one for certain.
    pub exact: bool,
    /// The hashes here.
    pub ours: SlotHashes,
    /// Another replica that has other ones.
    pub with: NodeId,
    /// Its hashes.
    pub theirs: SlotHashes,
}

/// How a dispute has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These replicas are wrong.
    Others(Vec<NodeId>),
    /// This one is wrong.
    Minority,
}

/// See the module's description.
#[derive(Debug)]
pub struct Ledger {
    majority: usize,
    /// 1 if what this node computes counts, 0 if it is a learner.
    own: usize,
    peers: BTreeMap<NodeId, Peer>,
    dispute: Option<Dispute>,
    applied: u64,
    /// This server is wrong, and nothing more is to be said about it until it starts again.
    sentenced: bool,
}

impl Ledger {
    /// Nothing is known of `peers`, which are all other members.
    pub fn new(peers: impl IntoIterator<Item = NodeId>) -> Self {
        Self::with_own(1, peers)
    }

    /// The same for a node that is no member: only what a majority of `peers` has computed counts.
    pub fn of_learner(peers: impl IntoIterator<Item = NodeId>) -> Self {
        Self::with_own(0, peers)
    }

    fn with_own(own: usize, peers: impl IntoIterator<Item = NodeId>) -> Self {
        let peers = peers.into_iter().map(|peer| (peer, Peer::default()));
        let peers: BTreeMap<_, _> = peers.collect();
        let members = peers.len() + own;
        Self {
            majority: members / 2 + 1,
            own,
            peers,
            dispute: None,
            applied: 0,
            sentenced: false,
        }
    }

    /// The own server starts from slot 1 again; what it did before counts no more.
    pub fn restart(&mut self) {
        for peer in self.peers.values_mut() {
            *peer = Peer {
                up: peer.up,
                condemned: peer.condemned,
                latest: peer.latest,
                ahead: [peer.latest].into(),
                ..Peer::default()
            };
        }
        self.dispute = None;
        self.applied = 0;
        self.sentenced = false;
    }

    /// The link to a node works.
    pub fn peer_up(&mut self, peer: NodeId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.up = true;
            peer.asked = false;
        }
    }

    /// The link to a node is gone.
    pub fn peer_down(&mut self, peer: NodeId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.up = false;
        }
    }

    /// The slot up to which enough other replicas agree with this one to make a majority with it.
    pub fn agreed_upto(&self) -> u64 {
        let Some(others) = self.majority.checked_sub(1 + self.own) else {
            return u64::MAX;
        };
        let mut agreed: Vec<u64> = self.peers.values().map(|peer| peer.agreed).collect();
        agreed.sort_unstable_by(|one, other| other.cmp(one));
        agreed.get(others).copied().unwrap_or_default()
    }

    /// Some replica differs, and it is not settled that it is the one that is wrong.
    pub fn in_doubt(&self) -> bool {
        let mut peers = self.peers.values();
        self.sentenced || peers.any(|peer| peer.differs.is_some() && !peer.condemned)
    }

    /// What the replicas do not agree about and no majority has settled yet.
    pub fn dispute(&self) -> Option<&Dispute> {
        self.dispute.as_ref()
    }

    // ---- what is heard ----

    /// A replica says where its server is.
    pub fn report(&mut self, from: NodeId, hashes: SlotHashes, history: &History) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.latest = hashes;
        if hashes.slot <= self.applied {
            return self.compare(from, hashes, history);
        }
        if peer.ahead.len() == AHEAD_MAX {
            // The own server is far behind. Any of them will do, so every other one is dropped.
            let mut keep = false;
            peer.ahead.retain(|_| {
                keep = !keep;
                keep
            });
        }
        // A server that was started again reports slots that it has reported before.
        while peer
            .ahead
            .back()
            .is_some_and(|last| last.slot >= hashes.slot)
        {
            peer.ahead.pop_back();
        }
        peer.ahead.push_back(hashes);
    }

    /// The own server has got to slot `applied`.
    pub fn progressed(&mut self, applied: u64, history: &History) {
        self.applied = applied;
        for id in self.ids() {
            while let Some(peer) = self.peers.get_mut(&id)
                && let Some(hashes) = peer.ahead.front().copied()
                && hashes.slot <= applied
            {
                peer.ahead.pop_front();
                self.compare(id, hashes, history);
            }
        }
    }

    /// A replica answers a question.
    pub fn samples(
        &mut self,
        from: NodeId,
        (low, high): (u64, u64),
        hashes: &[SlotHashes],
        history: &History,
    ) {
        let applied = self.applied;
        for one in hashes.iter().filter(|one| one.slot <= applied) {
            self.compare(from, *one, history);
        }
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.asked = false;
        let between = |one: &SlotHashes| low < one.slot && one.slot < high;
        let searched = peer.differs.is_some_and(|differs| differs.slot == high);
        peer.forgotten |= searched && !hashes.iter().any(between);
    }

    /// What a replica that asks is told.
    pub fn answer(low: u64, high: u64, history: &History) -> Vec<SlotHashes> {
        let steps = high.saturating_sub(low).min(SAMPLES_MAX);
        let mut told: Vec<SlotHashes> = Vec::new();
        for step in 1..=steps {
            let target = low + (high - low).saturating_mul(step) / steps;
            let after = told.last().map_or(low, |last| last.slot);
            told.extend(history.last_between(after, target));
        }
        told
    }

    fn compare(&mut self, from: NodeId, theirs: SlotHashes, history: &History) {
        let (Some(peer), Some(ours)) = (self.peers.get_mut(&from), history.at(theirs.slot)) else {
            return;
        };
        let slot = theirs.slot;
        if ours == theirs {
            peer.agreed = peer.agreed.max(slot);
            if peer.differs.is_some_and(|differs| differs.slot <= slot) {
                peer.differs = None;
            }
            if peer.differs.is_none() {
                peer.forgotten = false;
                peer.condemned = false;
            }
            return;
        }
        if slot <= peer.agreed {
            // It has started again, and does something else than before.
            peer.agreed = 0;
        }
        if peer.differs.is_none_or(|differs| slot < differs.slot) {
            peer.differs = Some(theirs);
            peer.forgotten = false;
        }
    }

    // ---- the search, and the vote ----

    /// The next thing to ask, if any; it counts as asked.
    pub fn next_question(&mut self, history: &History) -> Option<Question> {
        if self.sentenced {
            return None;
        }
        let disputed = self.dispute.as_ref().map(|dispute| dispute.slot);
        let ids = self.ids();
        let (to, low, high) = ids.into_iter().find_map(|id| {
            let peer = &self.peers[&id];
            if !peer.up || peer.asked || peer.condemned {
                return None;
            }
            let (low, high) = match peer.differs {
                Some(differs) if !is_located(peer, history) => (peer.agreed, differs.slot),
                Some(_) => return None,
                None => {
                    let slot = disputed.filter(|slot| peer.agreed < *slot)?;
                    (peer.latest.slot >= slot).then_some((slot - 1, slot))?
                }
            };
            Some((id, low, high))
        })?;
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.asked = true;
        }
        Some(Question { to, low, high })
    }

    /// Looks for the first difference; true when there is a new one to be told of.
    pub fn find_dispute(&mut self, history: &History) -> bool {
        if self.sentenced {
            return false;
        }
        let located = self.peers.iter().filter_map(|(id, peer)| {
            let theirs = peer.differs.filter(|_| !peer.condemned)?;
            is_located(peer, history).then_some((*id, theirs, !peer.forgotten))
        });
        let first = located.min_by_key(|(_, theirs, _)| theirs.slot);
        let found = first.and_then(|(with, theirs, exact)| {
            Some(Dispute {
                slot: theirs.slot,
                exact,
                ours: history.at(theirs.slot)?,
                with,
                theirs,
            })
        });
        let known = |dispute: &Dispute| found.as_ref().is_some_and(|it| it.slot == dispute.slot);
        if self.dispute.as_ref().is_some_and(known) {
            return false;
        }
        self.dispute = found;
        self.dispute.is_some()
    }

    /// Counts the votes at the slot in dispute. A verdict ends it.
    pub fn decide(&mut self) -> Option<(Dispute, Verdict)> {
        let dispute = self.dispute.as_ref()?;
        let slot = dispute.slot;
        let peers = || self.peers.values().filter(|peer| !peer.condemned);
        let with_us = self.own + peers().filter(|peer| peer.agreed >= slot).count();
        let same = |hashes: SlotHashes| peers().filter(|it| it.differs == Some(hashes)).count();
        let others = peers().filter_map(|peer| peer.differs);
        let most = others.map(same).max().unwrap_or_default();
        let verdict = if with_us >= self.majority {
            let wrong = self.peers.iter_mut().filter(|(_, peer)| {
                !peer.condemned && peer.differs.is_some_and(|it| it.slot <= slot)
            });
            let condemn = |(id, peer): (&NodeId, &mut Peer)| {
                peer.condemned = true;
                *id
            };
            Verdict::Others(wrong.map(condemn).collect())
        } else if most >= self.majority {
            self.sentenced = true;
            Verdict::Minority
        } else {
            return None;
        };
        Some((self.dispute.take()?, verdict))
    }

    fn ids(&self) -> Vec<NodeId> {
        self.peers.keys().copied().collect()
    }
}

/// There is no slot left that may differ before the first one known to.
fn is_located(peer: &Peer, history: &History) -> bool {
    let Some(differs) = peer.differs else {
        return false;
    };
    let between = || history.last_between(peer.agreed, differs.slot - 1);
    peer.forgotten || between().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three replicas that all apply slots 1 to `slots`, of which some do something else from a slot on.
    struct Room {
        histories: BTreeMap<NodeId, History>,
        ledgers: BTreeMap<NodeId, Ledger>,
    }

    fn hashes(slot: u64, kind: u64) -> SlotHashes {
        SlotHashes {
            slot,
            output_hash: slot * 10 + kind,
            schedule_hash: slot,
        }
    }

    impl Room {
        /// `wrong`: who differs, from which slot on, and in which way.
        fn new(slots: u64, wrong: &[(NodeId, u64, u64)]) -> Self {
            Self::with_slots(&(1..=slots), wrong)
        }

        fn with_slots(
            slots: &(impl IntoIterator<Item = u64> + Clone),
            wrong: &[(NodeId, u64, u64)],
        ) -> Self {
            let mut room = Self {
                histories: BTreeMap::new(),
                ledgers: BTreeMap::new(),
            };
            for id in 1..=3 {
                room.histories.insert(id, History::default());
                let ledger = Ledger::new((1..=3).filter(|peer| *peer != id));
                room.ledgers.insert(id, ledger);
                for slot in slots.clone() {
                    let kind = wrong
                        .iter()
                        .find(|(who, from, _)| *who == id && slot >= *from);
                    room.apply(id, hashes(slot, kind.map_or(0, |(_, _, kind)| *kind)));
                }
            }
            room
        }

        fn apply(&mut self, id: NodeId, hashes: SlotHashes) {
            let history = self.histories.get_mut(&id).unwrap();
            history.put(hashes);
            let ledger = self.ledgers.get_mut(&id).unwrap();
            ledger.progressed(hashes.slot, history);
        }

        fn link(&mut self, ids: &[NodeId]) {
            for one in ids {
                for other in ids.iter().filter(|other| *other != one) {
                    self.ledgers.get_mut(one).unwrap().peer_up(*other);
                    let last = self.ledgers[other].applied;
                    let said = self.histories[other].at(last);
                    self.report(*other, *one, said.unwrap());
                }
            }
        }

        fn report(&mut self, from: NodeId, to: NodeId, hashes: SlotHashes) {
            let ledger = self.ledgers.get_mut(&to).unwrap();
            ledger.report(from, hashes, &self.histories[&to]);
        }

        /// Asks and answers until nobody has a question, and counts the votes.
        fn settle(&mut self, id: NodeId) -> (Option<(Dispute, Verdict)>, u32) {
            let ledger = self.ledgers.get_mut(&id).unwrap();
            let history = &self.histories[&id];
            let mut asked = 0;
            loop {
                ledger.find_dispute(history);
                let decided = ledger.decide();
                if decided.is_some() {
                    return (decided, asked);
                }
                let Some(Question { to, low, high }) = ledger.next_question(history) else {
                    return (None, asked);
                };
                asked += 1;
                let told = Ledger::answer(low, high, &self.histories[&to]);
                ledger.samples(to, (low, high), &told, history);
            }
        }
    }

    #[test]
    fn replicas_that_are_equal_say_so() {
        let mut room = Room::new(50, &[]);
        room.link(&[1, 2, 3]);
        let ledger = &room.ledgers[&1];
        assert_eq!(ledger.agreed_upto(), 50);
        assert!(!ledger.in_doubt());
        assert_eq!(room.settle(1), (None, 0));
        assert_eq!(Ledger::new([]).agreed_upto(), u64::MAX);
        assert_eq!(Ledger::new([2]).agreed_upto(), 0);
    }

    #[test]
    fn a_learner_is_judged_by_a_majority_of_the_members_alone() {
        // Node 4 is no member. It stands alone against three, or with one of two who differ.
        for wrong in [vec![(4, 2, 1)], vec![(3, 2, 1), (4, 2, 1)]] {
            let (verdict, _) = learner_room(&wrong).settle(4);
            assert_eq!(verdict.unwrap().1, Verdict::Minority, "{wrong:?}");
        }
        let mut right = learner_room(&[(3, 2, 1)]);
        let (verdict, _) = right.settle(4);
        assert_eq!(verdict.unwrap().1, Verdict::Others(vec![3]));
        assert_eq!(right.ledgers[&4].agreed_upto(), 3);
        // One member is as good as the learner's own word: not good enough.
        let mut ledger = Ledger::of_learner(1..=3);
        assert_eq!(ledger.agreed_upto(), 0);
        let mut history = History::default();
        history.put(hashes(1, 0));
        ledger.progressed(1, &history);
        ledger.report(1, hashes(1, 0), &history);
        assert_eq!(ledger.agreed_upto(), 0);
        ledger.report(2, hashes(1, 0), &history);
        assert_eq!(ledger.agreed_upto(), 1);
    }

    /// Three members and a learner, number 4, all linked.
    fn learner_room(wrong: &[(NodeId, u64, u64)]) -> Room {
        let mut room = Room::new(3, wrong);
        room.histories.insert(4, History::default());
        room.ledgers.insert(4, Ledger::of_learner(1..=3));
        let kind = wrong.iter().find(|(who, ..)| *who == 4);
        for slot in 1..=3 {
            let kind = kind.filter(|(_, from, _)| slot >= *from);
            room.apply(4, hashes(slot, kind.map_or(0, |(_, _, kind)| *kind)));
        }
        room.link(&[1, 2, 3, 4]);
        room
    }

    #[test]
    fn the_first_slot_is_found_and_the_minority_named() {
        let mut room = Room::new(40_000, &[(2, 7_777, 1)]);
        room.link(&[1, 2, 3]);
        assert!(room.ledgers[&1].in_doubt());
        let (found, asked) = room.settle(1);
        let (dispute, verdict) = found.unwrap();
        assert_eq!(
            (dispute.slot, dispute.exact, dispute.with),
            (7_777, true, 2)
        );
        assert_eq!(dispute.theirs, hashes(7_777, 1));
        assert_eq!(verdict, Verdict::Others(vec![2]));
        assert!(asked <= 5, "{asked} questions");
        assert!(!room.ledgers[&1].in_doubt());
        let (found, _) = room.settle(2);
        let (dispute, verdict) = found.unwrap();
        assert_eq!((dispute.slot, verdict), (7_777, Verdict::Minority));
        assert!(room.ledgers[&2].in_doubt());
        assert_eq!(room.ledgers[&2].agreed_upto(), 7_776);
    }

    #[test]
    fn slots_without_entries_do_not_confuse_the_search() {
        let mut room = Room::with_slots(&[3, 4, 9, 20, 21, 300], &[(3, 20, 1)]);
        room.link(&[1, 2, 3]);
        let (dispute, verdict) = room.settle(1).0.unwrap();
        assert_eq!((dispute.slot, dispute.exact), (20, true));
        assert_eq!(verdict, Verdict::Others(vec![3]));
    }

    #[test]
    fn two_alone_do_not_know_who_is_right_until_the_third_comes() {
        let mut room = Room::new(20, &[(2, 5, 1)]);
        room.link(&[1, 2]);
        for id in [1, 2] {
            assert_eq!(room.settle(id).0, None);
            let ledger = &room.ledgers[&id];
            assert!(ledger.in_doubt());
            assert_eq!(ledger.dispute().unwrap().slot, 5);
            assert!(ledger.agreed_upto() < 5);
        }
        room.link(&[1, 2, 3]);
        assert_eq!(room.settle(1).0.unwrap().1, Verdict::Others(vec![2]));
        assert_eq!(room.settle(2).0.unwrap().1, Verdict::Minority);
        assert_eq!(room.settle(3).0.unwrap().1, Verdict::Others(vec![2]));
    }

    #[test]
    fn three_opinions_make_no_majority() {
        let mut room = Room::new(20, &[(2, 5, 1), (3, 5, 2)]);
        room.link(&[1, 2, 3]);
        for id in 1..=3 {
            assert_eq!(room.settle(id).0, None);
            assert!(room.ledgers[&id].in_doubt());
        }
    }

    #[test]
    fn one_after_the_other_may_be_wrong() {
        let mut room = Room::new(20, &[(2, 5, 1), (3, 9, 2)]);
        room.link(&[1, 2, 3]);
        let (dispute, verdict) = room.settle(1).0.unwrap();
        assert_eq!((dispute.slot, verdict), (5, Verdict::Others(vec![2])));
        let (found, _) = room.settle(1);
        assert_eq!(found, None, "at 9 there are three opinions");
        assert_eq!(room.ledgers[&1].dispute().unwrap().slot, 9);
        assert_eq!(room.settle(2).0.unwrap().1, Verdict::Minority);
    }

    #[test]
    fn who_starts_again_and_agrees_is_forgiven() {
        let mut room = Room::new(20, &[(2, 5, 1)]);
        room.link(&[1, 2, 3]);
        room.settle(1).0.unwrap();
        room.settle(2).0.unwrap();
        room.histories.insert(2, History::default());
        room.ledgers.get_mut(&2).unwrap().restart();
        for slot in 1..=20 {
            room.apply(2, hashes(slot, 0));
            room.report(2, 1, hashes(slot, 0));
        }
        assert_eq!(
            room.ledgers[&2].agreed_upto(),
            20,
            "the peers' last word is kept"
        );
        assert!(!room.ledgers[&2].in_doubt());
        room.apply(2, hashes(21, 1));
        room.apply(1, hashes(21, 0));
        room.report(2, 1, hashes(21, 1));
        assert!(room.ledgers[&1].in_doubt(), "it is listened to again");
    }

    #[test]
    fn a_server_far_behind_keeps_some_of_what_it_is_told() {
        let mut room = Room::new(1, &[]);
        room.link(&[1, 2, 3]);
        for slot in 2..10_000 {
            room.report(2, 1, hashes(slot, 0));
        }
        for slot in 2..10_000 {
            room.apply(1, hashes(slot, 0));
        }
        assert_eq!(room.ledgers[&1].agreed_upto(), 9_999);
    }

    #[test]
    fn what_is_forgotten_is_said_to_be_inexact() {
        let mut room = Room::new(20, &[(2, 5, 1)]);
        let mut short = History::default();
        for slot in 15..=20 {
            short.put(hashes(slot, 1));
        }
        room.histories.insert(2, short);
        room.link(&[1, 2, 3]);
        let (dispute, verdict) = room.settle(1).0.unwrap();
        assert_eq!((dispute.slot, dispute.exact), (15, false));
        assert_eq!(verdict, Verdict::Others(vec![2]));
    }
}
