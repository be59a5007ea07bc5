//! Links to the other nodes: the replica that consensus runs in, and frames between nodes.

use crate::peers::frames::PeerFrame;
use brolga_consensus::{Ballot, Event, NodeId, Replica};
use std::collections::BTreeMap;
use std::time::Instant;

/// The leader of a ballot, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) ballot: Ballot,
    pub(crate) leader: Option<NodeId>,
}

/// The replica of this node, and its links.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) replica: Replica,
    /// Events of the replica that are not handled yet.
    pub(crate) events: Vec<Event>,
    pub(crate) leadership: Leadership,
    /// Nodes to which there is no link, each with the time since when.
    pub(crate) down_since: BTreeMap<NodeId, Instant>,
    /// Why a link was refused, if no link came up since.
    pub(crate) refused: Option<String>,
    id: NodeId,
    frame: Vec<u8>,
}

impl Links {
    /// No link is up yet to any of the `others`.
    pub(crate) fn new(
        id: NodeId,
        replica: Replica,
        others: impl Iterator<Item = NodeId>,
        now: Instant,
    ) -> Self {
        Self {
            replica,
            events: Vec::new(),
            leadership: Leadership::default(),
            down_since: others.map(|other| (other, now)).collect(),
            refused: None,
            id,
            frame: Vec::new(),
        }
    }

    /// The leader, if it is known.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.leadership.leader
    }

    /// This node leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.leadership.leader == Some(self.id)
    }

    /// The leader, if it is known and this node or one that can be reached.
    pub(crate) fn reachable_leader(&self) -> Option<NodeId> {
        self.leader().filter(|leader| self.is_reachable(*leader))
    }

    /// A node is not known to be unreachable.
    pub(crate) fn is_reachable(&self, node: NodeId) -> bool {
        !self.down_since.contains_key(&node)
    }

    /// Sends a frame to a node. Returns false when the link is down or does not take it.
    pub(crate) fn send(&mut self, to: NodeId, frame: &PeerFrame<'_>) -> bool {
        frame.encode(&mut self.frame);
        self.replica.send_app(to, &self.frame)
    }

    /// The link to a node is up.
    pub(crate) fn up(&mut self, node: NodeId) {
        self.refused = None;
        self.down_since.remove(&node);
    }

    /// The link to a node is down, or there never was one.
    pub(crate) fn down(&mut self, node: NodeId, now: Instant) {
        self.down_since.entry(node).or_insert(now);
    }

    /// All nodes that are down count as down since now.
    pub(crate) fn restart_down_clocks(&mut self, now: Instant) {
        for since in self.down_since.values_mut() {
            *since = now;
        }
    }
}
