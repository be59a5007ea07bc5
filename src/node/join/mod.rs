//! Joining: how a fresh machine becomes a learner (`brolga node --join ADDR`).
//!
//! ```text
//! joiner ── connects ──▶ a member, at its peer address
//!        ── cluster? ──▶
//!        ◀── the configuration of that node
//!        ── genesis? ──▶        only if there is one
//!        ◀── entries and their bytes
//! ```
//!
//! The joiner makes its own configuration of that, with a number of its own, and starts as any node
//! does: it dials all members, follows the log, and runs its own replica of the server.
//!
//! * `joiner`: the joining side; `handler`: the member's side; `wire`: the protocol between them;
//! * `genesis`: the files that a server starts with, on their way; `await_genesis`: a member
//!   without them.
//!
//! # Invariants
//!
//! * `config.toml` is written last: a directory that has one has everything. One without is begun
//!   again.
//! * Nothing that comes in is trusted: lengths are bounded, paths stay below the genesis.
//!
//! Deliberately absent: encryption and authentication. A machine that reaches a peer address learns
//! the configuration, environment included; peer addresses belong in a closed network.

mod await_genesis;
mod genesis;
mod handler;
mod joiner;
pub(crate) mod wire;

pub use await_genesis::await_genesis;
pub use handler::JoinHandler;
pub use joiner::{JoinOptions, join};

use std::time::Duration;

/// A side that sends nothing for longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Name of a node's configuration in its data directory.
pub const CONFIG_NAME: &str = "config.toml";

#[cfg(test)]
mod tests;
