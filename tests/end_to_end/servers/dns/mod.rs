//! Servers of the domain name system.

pub mod client;
pub mod nsd;
pub mod unbound;
