//! Recorded runs of a server, looked at without a node.
//!
//! * `runner`: a recorded log is fed to a server once more;
//! * `replayed_state`: the state that a node would have then, so that it can be a checkpoint;
//! * `trace_diff`: the first operation in which two traces differ.

pub(crate) mod replayed_state;
pub(crate) mod runner;
pub(crate) mod trace_diff;
