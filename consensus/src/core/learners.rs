//! Learners: nodes that follow the log and are no members.
//!
//! A learner is known by its absence from the members. It takes part like a member that does not
//! vote: it is sent what is chosen and what is proposed, writes it down, and its acknowledgements
//! help the leader's flow control. Nothing it says makes a quorum, and a member takes nothing else
//! from it.
//!
//! # Invariants
//!
//! * The peers of a member are the other members, in their order, and then the learners that it has
//!   met. Quorums, elections and questions about lost disks look at the members' part only.
//! * A learner's peers are the members. It never probes, prepares, promises, grants or answers.
//!
//! Nobody waits for a learner that does not come back: it is forgotten when another needs its
//! place.

use super::config::{LEARNERS_FROM, LEARNERS_MAX};
use super::{Core, Effects, Msg, Mutation, NodeId, Peer, Slot};

impl Core {
    /// Returns true if this node is no member.
    pub(super) fn is_learner(&self) -> bool {
        !self.config.members.contains(&self.config.id)
    }

    /// The peers whose votes count.
    pub(super) fn voters(&self) -> &[Peer] {
        let members = self.config.members.len() - usize::from(!self.is_learner());
        &self.peers[..members]
    }

    pub(super) fn is_member(&self, id: NodeId) -> bool {
        self.config.members.contains(&id)
    }

    /// Learners with a link to this node, and how far each is known to have come: 0 unless this
    /// node leads.
    pub fn learners(&self) -> impl Iterator<Item = (NodeId, Slot)> + '_ {
        let learners = &self.peers[self.voters().len()..];
        let linked = learners.iter().filter(|peer| peer.up);
        linked.map(|peer| (peer.id, peer.held()))
    }

    /// Returns true if a member accepts such a message from this sender.
    pub(super) fn heeds(&self, from: NodeId, msg: &Msg) -> bool {
        self.is_member(from) || matches!(msg, Msg::Accepted { .. } | Msg::Reject { .. })
    }

    /// A learner says hello: it is served from now on. False if there are too many, or this node is
    /// none that serves learners.
    pub(super) fn add_learner(&mut self, id: NodeId) -> bool {
        let members = self.voters().len();
        if id < LEARNERS_FROM || self.is_learner() {
            return false;
        }
        if self.peers.len() - members >= LEARNERS_MAX {
            let gone = (members..self.peers.len()).find(|index| !self.peers[*index].up);
            let Some(gone) = gone else {
                return false;
            };
            self.peers.remove(gone);
        }
        self.peers.push(Peer::new(id));
        true
    }

    /// Peers that a leader counts, which are the members.
    pub(super) fn counted(&self) -> &[Peer] {
        match self.mutated(Mutation::CountLearners) {
            true => &self.peers,
            false => self.voters(),
        }
    }

    /// Sends something to all other members.
    pub(super) fn send_members(&self, msg: &Msg, out: &mut Effects) {
        for peer in self.voters() {
            self.send(peer.id, msg.clone(), out);
        }
    }
}
