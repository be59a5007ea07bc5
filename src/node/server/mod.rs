//! The wrapped server of this replica.
//!
//! * `process`: its process; `lifecycle`: started, watched, restarted and ended; `start_error`: why
//!   it cannot be started; `stall`: a thread that holds up the others;
//! * `tape`: the memory shared with it; `feeder`: from the log to the tape; `output`: from the tape
//!   back;
//! * `hashes`: hashes of the last slots; `recent_outputs`: the last records;
//! * `syscall_filter`: system calls that the seccomp filter has caught;
//! * `traces`: all output of the server, on disk.

pub(crate) mod feeder;
pub(crate) mod hashes;
pub(crate) mod lifecycle;
pub(crate) mod output;
pub(crate) mod process;
pub(crate) mod recent_outputs;
pub(crate) mod stall;
pub(crate) mod start_error;
pub(crate) mod syscall_filter;
pub(crate) mod tape;
pub(crate) mod traces;
