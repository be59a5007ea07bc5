//! Tests of the node as a whole, with a fake server in place of a wrapped one.

mod checkpoint;
mod cluster;
mod divergence;
mod fake_server;
pub(crate) mod fuzz;
mod image;
