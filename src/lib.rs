//! The `brolga` program as a library: command line, node daemon, frontend, launcher.
//!
//! Reading order: [`cli`] parses a command line; [`run`] supervises a whole local cluster; `node` is
//! one replica; [`launch`] starts its wrapped server; [`admin`] is how one asks a node how it is.

pub mod admin;
pub mod config;
pub mod elf;
pub mod launch;
