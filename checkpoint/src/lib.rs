//! Checkpoints of a replica: what a checkpoint contains, the directory in which checkpoints are
//! kept, and the tools that take and restore one ([`criu`], [`container`], [`image`]).
//!
//! # Model
//!
//! A checkpoint at slot *k* is everything that a replica needs to continue at *k + 1*: an image of
//! the server's process tree (which includes the state of the scheduler and of the virtual sockets:
//! both live in its memory), the changes to its files, the state of the node, and a [`Manifest`]
//! that lists and checksums them all. The tape is not part of it: it is a window that the node
//! refills from the log.
//!
//! A checkpoint is taken at an idle point, when every thread of the server is parked in the
//! interposer. Client connections survive: the kernel holds no state of theirs.
//!
//! * [`Checkpointer`] dumps a parked server into a directory, and restores it.
//! * [`Directory`] holds a replica's checkpoints: it publishes a dump whole or not at all, lists,
//!   verifies and prunes.
//! * [`Partial`] is a checkpoint that is being received piece by piece.
//! * [`image::compress_image`] makes an image smaller.
//! * [`archive`] turns a checkpoint into a single stream and back.
//!
//! # Invariants
//!
//! * A checkpoint is written aside, synced and renamed: it exists whole or not at all.
//! * The log before a checkpoint may be dropped only after the checkpoint was verified.
//! * A restore leads to the same output and schedule hashes at *k* as running up to *k*.
//!
//! # Versions
//!
//! The first line of a manifest carries the version of the whole checkpoint format
//! ([`manifest::VERSION`]): the manifest, the image and the archive, whose first file it is. A
//! checkpoint of another version is refused with [`CheckpointError::Version`]. A change of any of
//! these formats needs a new version.
//!
//! Deliberately absent: Paxos messages, sockets of clients, the decision when to take one.

pub mod container;
pub mod criu;
mod error;
pub mod image;
mod store;
mod transfer;

pub use error::CheckpointError;
pub use image::{Checkpointer, Compression};
pub use store::directory::{Checkpoint, Directory, Hold, Listing};
pub use store::fingerprint::{FileFingerprint, Mismatch, ServerFingerprint};
pub use store::hash::hash_file;
pub use store::manifest;
pub use store::manifest::{Manifest, Part, PartKind, Position};
pub use store::staged::{Provenance, Staged};
pub use transfer::archive;
pub use transfer::partial::Partial;

use std::path::Path;

/// Checks that checkpoints are possible on this machine, for a server that has its files below
/// `directory`: CRIU has to work, and a container is created there as a trial.
///
/// # Errors
/// [`CheckpointError::Unsupported`] with one line for the administrator of the machine.
pub fn probe(directory: &Path) -> Result<criu::Criu, CheckpointError> {
    let criu = criu::Criu::probe()?;
    let state = directory.join("probe");
    let plan = container::Plan {
        state: state.clone(),
        root: None,
        bound: Vec::new(),
        generated: Vec::new(),
    };
    let created = container::Container::create(plan).map(drop);
    // Empty by now; what the kernel has not released yet does no harm.
    let _ = std::fs::remove_dir_all(state);
    created.map_err(|error| CheckpointError::Unsupported(error.to_string()))?;
    Ok(criu)
}
