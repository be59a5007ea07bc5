//! From what clients say to slots of the log.
//!
//! * `leader_link`: the way of a follower's events to the leader;
//! * `proposer`: what a leader proposes, and when;
//! * `operator_signals`: signals that an operator sends to the server.

pub(crate) mod leader_link;
pub(crate) mod operator_signals;
pub(crate) mod proposer;
