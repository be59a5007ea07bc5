//! Checkpoints of this replica: when they are taken, how, and what the log needs to keep.
//!
//! In the order of one checkpoint:
//!
//! * `procedure`: from the request to the truncated log; it owns the state of this room;
//! * `schedule`: when one is due; `coordination`: one replica at a time;
//! * `node_state`: the node's part of it; `writer`: the thread that writes it;
//! * `truncation`: how much of the log is kept behind it;
//! * `restore`: going back to one.

pub(crate) mod coordination;
pub(crate) mod node_state;
pub(crate) mod procedure;
pub(crate) mod restore;
pub(crate) mod schedule;
pub(crate) mod truncation;
pub(crate) mod writer;
