//! The event loop: one thread, one `mio` poll. The only room that names all the others.
//!
//! * `node`: what a replica consists of, and its main loop; `opening`: how it is assembled;
//! * `sources`: poll tokens; `poll`: what is ready, and sleep; `iteration`: one iteration, in
//!   order;
//! * `routing`: log entries and server records to frontends; `requests`: from frontends to the log;
//! * `peer_events`: elections, links and frames of other nodes;
//! * `lifecycle`, `expiry`, `compatibility`, `checkpointing`, `divergence`, `transfers`: each wires
//!   one concern of a room to the rest of the node;
//! * `status_report`: the state of all of it.

mod checkpointing;
mod compatibility;
mod divergence;
mod expiry;
mod iteration;
mod lifecycle;
pub(crate) mod node;
mod opening;
mod peer_events;
mod poll;
mod requests;
mod routing;
mod sources;
mod status_report;
mod transfers;
