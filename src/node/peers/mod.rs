//! The other nodes.
//!
//! * `links`: consensus, the leader, and which nodes can be reached;
//! * `frames`: messages between nodes beside those of consensus;
//! * `compatibility`: identical programs, libraries and initial files on all nodes;
//! * `learners`: nodes that follow and do not vote.

pub(crate) mod compatibility;
pub(crate) mod frames;
pub(crate) mod learners;
pub(crate) mod links;

use crate::peers::compatibility::Compatibility;
use crate::peers::learners::Learners;

/// The state kept about the other nodes, beside the links to them.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) compatibility: Compatibility,
    pub(crate) learners: Learners,
}
