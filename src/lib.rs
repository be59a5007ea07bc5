//! The `brolga` program as a library: command line, node daemon, frontend, launcher.
//!
//! Reading order: [`cli`] parses a command line; [`run`] supervises a local cluster; [`node`] is
//! one replica; [`launch`] starts its wrapped server; [`admin`] is how one asks a node how it is,
//! and [`survey`] asks all of them; [`restore`] chooses what to go back to; [`check`] disturbs a cluster
//! to see whether its replicas differ; [`join`] makes a learner of a fresh machine; [`ports`] picks ports.

pub mod admin;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod elf;
pub mod fingerprint;
pub mod identity;
pub mod join;
pub mod launch;
pub mod listing;
pub mod node;
pub mod ports;
pub mod restore;
pub mod run;
pub mod survey;
