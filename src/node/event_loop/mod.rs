//! The event loop: one thread, one `mio` poll. The only room that names all the others.
//!
//! * `node`: what a replica consists of, and its main loop;
//! * `iteration`: what one iteration does, in order.

pub(crate) mod iteration;
pub(crate) mod node;
