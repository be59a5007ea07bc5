//! Leaders die, majorities are lost, and nothing happens at all.

pub mod failover;
pub mod idle;
pub mod quorum;
