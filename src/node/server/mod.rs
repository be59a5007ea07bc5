//! The wrapped server of this replica.
//!
//! * `process`: its process; `lifecycle`: when it is started, watched and stopped;
//! * `tape`: the memory shared with it; `feeder`: from the log to the tape; `output`: from the tape
//!   back;
//! * `syscall_filter`: system calls that the seccomp filter has caught;
//! * `traces`: all that the server does, on disk; `replay`: a recorded log once more, without a
//!   node;
//!   `replayed_state`: what a node would know then.

pub(crate) mod feeder;
pub(crate) mod lifecycle;
pub(crate) mod output;
pub(crate) mod process;
pub(crate) mod replay;
pub(crate) mod replayed_state;
pub(crate) mod stall;
pub(crate) mod start_error;
pub(crate) mod syscall_filter;
pub(crate) mod tape;
pub(crate) mod traces;
