//! Checkpoint coordination: one replica at a time takes a checkpoint, the one that holds the
//! checkpoint token.
//!
//! ```text
//!  due ──▶ a follower requests the token from the leader  ◀─ no answer: requests again
//!                                │ granted: nobody else holds it
//!                                ▼
//!   the others: busy ◀── told to all ◀── it takes a checkpoint ──▶ released: told to all
//! ```
//!
//! # Invariants
//!
//! * The leader grants the token to one node at a time, and to none while it takes a checkpoint
//!   itself, while any node says that it is busy, or before every connected node has said under
//!   *this* ballot whether it is busy: so a token that an earlier leader granted is respected by
//!   the next.
//! * A node holds the token until it says that it is done or its link goes down.
//! * The leader goes last: when every connected follower has a newer checkpoint than it has itself,
//!   or when a checkpoint is overdue: a follower may be unable to take any.
//!
//! A checkpoint that an operator has requested needs the token too, but waits for no follower, and
//! needs no token when there is no leader to grant it.
//!
//! Sans-IO: messages to be sent are returned.

use crate::checkpoint::schedule::Schedule;
use brolga_consensus::{Ballot, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// A message about the checkpoint token. Each is sent with the ballot that its sender is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenMessage {
    /// To the leader: the sender wants to take a checkpoint.
    Request,
    /// From the leader: take it now.
    Grant,
    /// The sender takes a checkpoint.
    Busy,
    /// The sender takes none; a token that is on its way to it stays valid.
    Idle,
    /// The sender is done, or does not want the token any more.
    Release,
}

impl TokenMessage {
    /// Returns the number of the message in a frame.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// Returns the message with a number.
    pub fn of_number(number: u32) -> Option<Self> {
        let all = [
            Self::Request,
            Self::Grant,
            Self::Busy,
            Self::Idle,
            Self::Release,
        ];
        all.into_iter().find(|message| message.number() == number)
    }
}

/// The cluster, as this node sees it.
#[derive(Clone, Debug)]
pub(crate) struct ClusterView {
    pub(crate) node: NodeId,
    pub(crate) leader: Option<NodeId>,
    pub(crate) ballot: Ballot,
    /// The other members whose link works.
    pub(crate) connected: Vec<NodeId>,
}

impl ClusterView {
    fn leads(&self) -> bool {
        self.leader == Some(self.node)
    }
}

/// The decision of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Nothing,
    /// To take a checkpoint.
    Begin,
    /// To send a message.
    Send(NodeId, TokenMessage),
}

/// Decides when this node takes a checkpoint: one has to be wanted, and its turn.
#[derive(Debug)]
pub(crate) struct Coordination {
    pub(crate) schedule: Schedule,
    token: Token,
}

impl Coordination {
    /// A coordination in which nobody holds the token.
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            token: Token::default(),
        }
    }

    /// Decides about a checkpoint that is wanted here while none is being taken. `requested`: an
    /// operator waits for it; `followers_ahead`: all connected nodes have a newer one.
    pub(crate) fn consider(
        &mut self,
        requested: bool,
        followers_ahead: bool,
        cluster: &ClusterView,
        now: Instant,
    ) -> Decision {
        let reachable = |leader: &NodeId| cluster.connected.contains(leader);
        if cluster.leads() {
            let first = requested || followers_ahead || self.schedule.is_overdue(now);
            if first && self.token.is_free(cluster) {
                return Decision::Begin;
            }
        } else if let Some(leader) = cluster.leader.filter(reachable) {
            if self.schedule.requests(now) {
                return Decision::Send(leader, TokenMessage::Request);
            }
        } else if requested {
            return Decision::Begin;
        }
        Decision::Nothing
    }

    /// Takes in a message of another node. `busy`: a checkpoint is being taken here; `wanted`: one
    /// is wanted here.
    pub(crate) fn receive(
        &mut self,
        (from, message, ballot): (NodeId, TokenMessage, Ballot),
        (busy, wanted): (bool, bool),
        cluster: &ClusterView,
    ) -> Decision {
        self.token.receive(from, message, ballot);
        let current = ballot == cluster.ballot;
        match message {
            TokenMessage::Request if current && cluster.leads() => {
                if busy || !self.token.is_free(cluster) {
                    return Decision::Nothing;
                }
                self.token.grant(from);
                Decision::Send(from, TokenMessage::Grant)
            }
            // The leader is told when the checkpoint is complete.
            TokenMessage::Grant if busy => Decision::Nothing,
            TokenMessage::Grant if current && cluster.leader == Some(from) && wanted => {
                Decision::Begin
            }
            TokenMessage::Grant => Decision::Send(from, TokenMessage::Release),
            TokenMessage::Request
            | TokenMessage::Busy
            | TokenMessage::Idle
            | TokenMessage::Release => Decision::Nothing,
        }
    }

    /// A message did not reach a node.
    pub(crate) fn not_sent(&mut self, to: NodeId, message: TokenMessage) {
        if message == TokenMessage::Grant {
            self.token.revoke(to);
        }
    }

    /// The link to a node went down.
    pub(crate) fn lost(&mut self, node: NodeId) {
        self.token.lost(node);
    }

    /// Another ballot counts.
    pub(crate) fn ballot_changed(&mut self) {
        self.token.ballot_changed();
        self.schedule.forget_request();
    }
}

/// The checkpoint token, as far as this node knows.
#[derive(Debug, Default)]
struct Token {
    /// The node that this one, as the leader, has given the token to.
    holder: Option<NodeId>,
    busy: BTreeSet<NodeId>,
    /// The ballot under which each node has last said whether it is busy.
    told: BTreeMap<NodeId, Ballot>,
}

impl Token {
    /// Takes note of a message.
    fn receive(&mut self, from: NodeId, message: TokenMessage, ballot: Ballot) {
        match message {
            TokenMessage::Busy => {
                self.busy.insert(from);
            }
            TokenMessage::Request | TokenMessage::Idle | TokenMessage::Release => {
                self.busy.remove(&from);
            }
            // It comes from the leader and says nothing about the leader's own checkpoints.
            TokenMessage::Grant => return,
        }
        if message == TokenMessage::Release && self.holder == Some(from) {
            self.holder = None;
        }
        self.told.insert(from, ballot);
    }

    /// The link to a node went down: the node does not hold the token any more.
    fn lost(&mut self, node: NodeId) {
        self.busy.remove(&node);
        self.told.remove(&node);
        if self.holder == Some(node) {
            self.holder = None;
        }
    }

    /// Another ballot counts: a token that this node has granted is not its own any more.
    fn ballot_changed(&mut self) {
        self.holder = None;
    }

    /// Returns true when none of the `connected` nodes holds the token, or may hold it from an
    /// earlier leader.
    fn is_free(&self, cluster: &ClusterView) -> bool {
        let told = |node: &NodeId| self.told.get(node) == Some(&cluster.ballot);
        self.holder.is_none() && self.busy.is_empty() && cluster.connected.iter().all(told)
    }

    /// Gives the token to a node.
    fn grant(&mut self, to: NodeId) {
        self.holder = Some(to);
    }

    /// The token did not reach the node that it was granted to.
    fn revoke(&mut self, node: NodeId) {
        if self.holder == Some(node) {
            self.holder = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_at_a_time_has_the_token_also_across_a_change_of_leaders() {
        let ballot = |round| Ballot { round, node: 1 };
        let mut token = Token::default();
        let connected = [2, 3];
        let view = |connected: &[NodeId], round| ClusterView {
            node: 1,
            leader: Some(1),
            ballot: ballot(round),
            connected: connected.to_vec(),
        };
        assert!(
            !token.is_free(&view(&connected, 1)),
            "nobody has said anything"
        );
        token.receive(2, TokenMessage::Request, ballot(1));
        assert!(
            !token.is_free(&view(&connected, 1)),
            "3 may have one of an earlier leader"
        );
        token.receive(3, TokenMessage::Idle, ballot(1));
        assert!(token.is_free(&view(&connected, 1)));
        token.grant(2);
        token.receive(2, TokenMessage::Idle, ballot(1));
        assert!(
            !token.is_free(&view(&connected, 1)),
            "it has not heard of it yet"
        );
        token.receive(2, TokenMessage::Busy, ballot(1));
        token.ballot_changed();
        token.receive(3, TokenMessage::Idle, ballot(2));
        assert!(!token.is_free(&view(&connected, 2)));
        token.receive(2, TokenMessage::Release, ballot(2));
        assert!(token.is_free(&view(&connected, 2)));
        token.grant(3);
        token.lost(3);
        assert!(token.is_free(&view(&[2], 2)));
        assert!(
            !token.is_free(&view(&connected, 2)),
            "it is back and has said nothing"
        );
    }

    #[test]
    fn messages_have_numbers() {
        for number in 0..5 {
            assert_eq!(TokenMessage::of_number(number).unwrap().number(), number);
        }
        assert_eq!(TokenMessage::of_number(5), None);
    }
}
