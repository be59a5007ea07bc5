//! A server image: what a wrapped server is made of, and how its process is started from that.
//!
//! [`launch`] starts the process; [`elf`] inspects the program; [`fingerprint`] hashes program and
//! libraries, [`tree_digest`] the initial files; [`identity`] ties a data directory to one replica of one
//! cluster.

pub mod elf;
pub mod fingerprint;
pub mod identity;
pub mod launch;
pub mod tree_digest;
