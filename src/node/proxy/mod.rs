//! The stand-alone frontend, a process on the clients' machine, and the nodes' side of it.
//!
//! * `frontend`: the process itself; `server`: what a node does for such processes; `wire`: the
//!   protocol between them;
//! * `unacked_output`: the server's output that a stand-alone frontend has not acknowledged.

pub(crate) mod error;
pub(crate) mod frontend;
pub(crate) mod server;
pub(crate) mod unacked_output;
pub(crate) mod wire;
