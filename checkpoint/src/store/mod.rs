//! The checkpoints of one replica on disk.
//!
//! * [`directory`]: the directory that holds them: staging, listing, pruning;
//! * `staged`: checkpoints that are being written;
//! * `verify`: seals the files of a checkpoint and checks them against its manifest;
//! * [`manifest`]: the list of a checkpoint's files, with its position and server;
//! * `fingerprint`: the server fingerprint, and the first difference between two of them;
//! * `hash`, `hexadecimal`: checksums of files, and how they are written.

pub(crate) mod directory;
pub(crate) mod fingerprint;
pub(crate) mod hash;
mod hexadecimal;
pub mod manifest;
pub(crate) mod staged;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod verify;
