//! Reasons why a connection is refused. One line each: the other side shows it to its operator.

use super::wire::{FrameError, VERSION};
use crate::core::{LEARNERS_MAX, NodeId};

/// The reason why a connection is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The first frame is not that of a node.
    #[error("not a Brolga node")]
    NotANode,
    /// The node is of another build, with another protocol.
    #[error("node {from} speaks version {found}, not {VERSION}")]
    Version {
        /// The node.
        from: NodeId,
        /// Its version of the protocol.
        found: u32,
    },
    /// The joiner is of another build, with another protocol.
    #[error("the joiner speaks version {found}, the cluster {VERSION}")]
    JoinerVersion {
        /// Its version of the protocol.
        found: u32,
    },
    /// The node belongs to another cluster.
    #[error("node {from} is of cluster {found:032x}, not {expected:032x}")]
    ForeignCluster {
        /// The node.
        from: NodeId,
        /// Its cluster.
        found: u128,
        /// The cluster of this node.
        expected: u128,
    },
    /// The node wanted to reach another one.
    #[error("node {from} looks for node {wanted}, this is node {id}")]
    WrongNode {
        /// The node that has connected.
        from: NodeId,
        /// The node it looks for.
        wanted: NodeId,
        /// This node.
        id: NodeId,
    },
    /// The node is no member, or should have been dialed from here.
    #[error("node {0} is not expected here")]
    Unexpected(NodeId),
    /// Two processes call themselves the same learner.
    #[error("learner {0} is connected already: is its data directory in use twice?")]
    LearnerTwice(NodeId),
    /// The member serves as many learners as it can.
    #[error("{LEARNERS_MAX} learners are enough")]
    TooManyLearners,
    /// Bytes followed a request whose answer decides what they mean.
    #[error("it has to wait for the answer to its request")]
    Impatient,
    /// A frame of this kind does not belong here.
    #[error("a frame out of order ({0})")]
    OutOfOrder(&'static str),
    /// A consensus message cannot be decoded.
    #[error("a message that cannot be decoded")]
    Message,
    /// Bytes that are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}
