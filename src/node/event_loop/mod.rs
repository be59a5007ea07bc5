//! The event loop: one thread, one `mio` poll. The only room that names all the others.
//!
//! * `node`: what a replica consists of, and its main loop;
//! * `iteration`: what one iteration does, in order;
//! * `checkpointing`, `divergence`, `transfers`: how those rooms and the rest of the node meet.

mod checkpointing;
mod divergence;
pub(crate) mod iteration;
pub(crate) mod node;
mod transfers;
