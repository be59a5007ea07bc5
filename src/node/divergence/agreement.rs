//! Agreement: up to which slot other replicas agree with this one, and which are in the minority
//! where they do not.
//!
//! Hashes are cumulative: replicas that agree at one slot agree at all slots before it. So each
//! node needs to say only where its server is now. When a hash differs, the first slot that does is
//! searched for between the last one known to be equal and this one; there all replicas vote with
//! their hashes, and each node comes to the verdict by itself:
//!
//! * a majority has this node's hash: the others are faulty, and nothing changes here;
//! * a majority has another hash: this node's server is faulty ([`Verdict::SelfFaulty`]);
//! * neither: nobody knows who is right. That stays so until more replicas have told.
//!
//! Sans-IO: questions to other nodes are returned by [`Agreement::next_question`], and answers are
//! passed in.

use crate::server::hashes::{History, SlotHashes};
use brolga_consensus::NodeId;
use std::collections::{BTreeMap, VecDeque};

/// Reports of one peer that wait for the own server to get there.
const AHEAD_MAX: usize = 1024;
/// Slots told in answer to one probe.
const SAMPLES_MAX: u64 = 32;

/// The state of one other replica, as far as it is known.
#[derive(Debug, Default)]
struct Peer {
    up: bool,
    /// The last slot at which it was equal.
    agreed: u64,
    /// The first slot known to differ, as the peer has it.
    differs: Option<SlotHashes>,
    /// A majority has found it faulty; it does not vote until it agrees again.
    faulty: bool,
    /// The first slot that differs could not be made out any closer.
    forgotten: bool,
    asked: bool,
    /// The last slot that it has told, with its hashes.
    latest: SlotHashes,
    /// Hashes that it has told of slots that are still to come here.
    ahead: VecDeque<SlotHashes>,
}

/// A question to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The node.
    pub to: NodeId,
    /// The question is about slots above this one
    pub low: u64,
    /// up to this one.
    pub high: u64,
}

/// A slot at which replicas differ.
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
    /// The hashes there.
    pub theirs: SlotHashes,
}

/// The end of a dispute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These replicas are faulty.
    OthersFaulty(Vec<NodeId>),
    /// This one is faulty.
    SelfFaulty,
}

/// The agreement of this replica with each of the others.
#[derive(Debug)]
pub struct Agreement {
    majority: usize,
    /// 1 if what this node computes counts, 0 if it is a learner.
    own: usize,
    peers: BTreeMap<NodeId, Peer>,
    dispute: Option<Dispute>,
    applied: u64,
    /// A majority has found the own server faulty: nothing is compared until it starts again.
    self_faulty: bool,
}

impl Agreement {
    /// The agreement of a member. Nothing is known of `peers`, which are all other members.
    pub fn new(peers: impl IntoIterator<Item = NodeId>) -> Self {
        Self::with_own(1, peers)
    }

    /// The agreement of a learner: only what a majority of `peers` has computed counts.
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
            self_faulty: false,
        }
    }

    /// The own server starts from slot 1 again; what it did before counts no more.
    pub fn restart(&mut self) {
        for peer in self.peers.values_mut() {
            *peer = Peer {
                up: peer.up,
                faulty: peer.faulty,
                latest: peer.latest,
                ahead: [peer.latest].into(),
                ..Peer::default()
            };
        }
        self.dispute = None;
        self.applied = 0;
        self.self_faulty = false;
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

    /// Returns true when a replica differs that was not found faulty.
    pub fn in_doubt(&self) -> bool {
        let mut peers = self.peers.values();
        self.self_faulty || peers.any(|peer| peer.differs.is_some() && !peer.faulty)
    }

    /// The dispute that no majority has settled yet.
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

    /// Answers a question of another replica.
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
                peer.faulty = false;
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
        if self.self_faulty {
            return None;
        }
        let disputed = self.dispute.as_ref().map(|dispute| dispute.slot);
        let ids = self.ids();
        let (to, low, high) = ids.into_iter().find_map(|id| {
            let peer = &self.peers[&id];
            if !peer.up || peer.asked || peer.faulty {
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
        if self.self_faulty {
            return false;
        }
        let located = self.peers.iter().filter_map(|(id, peer)| {
            let theirs = peer.differs.filter(|_| !peer.faulty)?;
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
        let peers = || self.peers.values().filter(|peer| !peer.faulty);
        let with_us = self.own + peers().filter(|peer| peer.agreed >= slot).count();
        let same = |hashes: SlotHashes| peers().filter(|it| it.differs == Some(hashes)).count();
        let others = peers().filter_map(|peer| peer.differs);
        let most = others.map(same).max().unwrap_or_default();
        let verdict = if with_us >= self.majority {
            let faulty = self
                .peers
                .iter_mut()
                .filter(|(_, peer)| !peer.faulty && peer.differs.is_some_and(|it| it.slot <= slot));
            let convict = |(id, peer): (&NodeId, &mut Peer)| {
                peer.faulty = true;
                *id
            };
            Verdict::OthersFaulty(faulty.map(convict).collect())
        } else if most >= self.majority {
            self.self_faulty = true;
            Verdict::SelfFaulty
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
mod tests;
