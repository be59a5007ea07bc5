//! Checkpoints of this replica: when they are taken, how, and what the log needs to keep.
//!
//! * `schedule`: when one is due, and one replica at a time; `procedure`: how far one is;
//! * `writer`: the thread that writes it; `node_state`: the node's part of it;
//! * `truncation`: how much of the log is kept.

pub(crate) mod node_state;
pub(crate) mod procedure;
pub(crate) mod schedule;
pub(crate) mod truncation;
pub(crate) mod writer;
