//! Events that a replica reports to its caller.

use crate::core::{Ballot, NodeId, Slot};
use bytes::Bytes;

/// A report to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The leadership changed.
    Leader {
        /// Highest ballot promised here.
        ballot: Ballot,
        /// The leader, if one is known.
        leader: Option<NodeId>,
        /// This node leads, and all it recovered is chosen: it may propose.
        ready: bool,
    },
    /// The link to a node works.
    PeerUp(NodeId),
    /// The link to a node is gone.
    PeerDown(NodeId),
    /// An application frame arrived.
    App {
        /// Sender.
        from: NodeId,
        /// Frame.
        bytes: Bytes,
    },
    /// A connection was refused, here or by the other side (foreign cluster, unknown node, other
    /// version); it is tried again.
    Refused {
        /// The reason, in one line.
        message: String,
    },
    /// The leader has dropped slots that this node lacks; its log begins at `first`. The node needs
    /// a checkpoint of the slot before, or of a later one. Said again until
    /// [`super::Replica::install`].
    Behind {
        /// The first slot of the leader's log.
        first: Slot,
    },
    /// The log now begins at this slot: see [`super::Replica::truncate`].
    Truncated {
        /// The slot.
        first: Slot,
    },
    /// A part of the log that a lagging node needs cannot be read; that node gets no further from
    /// here.
    Damaged {
        /// The place and the damage, in one line.
        message: String,
    },
}
