//! Checkpoints of a replica: what they consist of, the directory in which they are kept, and the
//! tools ([`criu`], [`container`], [`image`]).
//!
//! # Model
//!
//! A checkpoint at slot *k* is everything that a replica needs to go on at *k + 1*: an image of the
//! server's process tree, the state of scheduler and virtual sockets (which lie in memory of that
//! tree), the changes to its files, what the node knew, and a [`Manifest`] that names and
//! checks them all. The tape is not in it: it is a window that the node fills again from the log.
//!
//! It is taken at an idle point, when every thread of the server is parked in the interposer. Client
//! connections stay: there is no state of theirs in the kernel.
//!
//! * [`Checkpointer`] dumps a parked server into a directory, and brings it back: the mechanics.
//! * [`Directory`] holds a replica's checkpoints: it makes a dump a checkpoint that is there whole or
//!   not at all, lists, verifies, prunes.
//! * [`Partial`] is one that comes from elsewhere piece by piece.
//! * [`image::compress_image`] makes an image smaller.
//! * [`archive`] turns one into a single stream and back.
//!
//! # Invariants
//!
//! * A checkpoint is written aside, synced and renamed: it is there whole or not at all.
//! * The log before a checkpoint may be dropped only when the checkpoint was verified.
//! * Restoring leads to the same output and schedule hashes at *k* as having run there.
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
pub use store::directory::{Checkpoint, Directory, Hold, Staged};
pub use store::fingerprint::{FileMark, Identity, Mismatch};
pub use store::manifest::{Kind, Manifest, Part, Position};
pub use store::{directory, manifest};
pub use transfer::archive;
pub use transfer::partial::Partial;

use std::path::Path;

/// Finds out whether checkpoints are possible on this machine of a server that has its files below
/// `directory`: CRIU has to work, and a container is made there to see that it can be.
///
/// # Errors
/// [`CheckpointError::Unsupported`] with one line for whoever runs the machine.
pub fn probe(directory: &Path) -> Result<criu::Criu, CheckpointError> {
    let criu = criu::Criu::probe()?;
    let state = directory.join("probe");
    let plan = container::Plan {
        state: state.clone(),
        root: None,
        bound: Vec::new(),
        made: Vec::new(),
    };
    let made = container::Container::create(plan).map(drop);
    // Empty now; what the kernel still holds is in the way of nobody.
    let _ = std::fs::remove_dir_all(state);
    made.map_err(|error| CheckpointError::Unsupported(error.to_string()))?;
    Ok(criu)
}
