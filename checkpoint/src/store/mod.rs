//! The checkpoints of one replica on disk.
//!
//! * [`directory`]: the directory in which they lie, written whole or not at all, verified, pruned;
//! * [`manifest`]: what a checkpoint says of itself;
//! * [`fingerprint`]: of which server it is.

pub mod directory;
pub mod fingerprint;
mod hexadecimal;
pub mod manifest;
