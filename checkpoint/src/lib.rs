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
pub mod image;
mod store;
mod transfer;

pub use image::Compression;
pub use store::directory::{Checkpoint, Directory, Hold, Staged};
pub use store::fingerprint::{FileMark, Identity, Mismatch};
pub use store::manifest::{Kind, Manifest, Part, Position};
pub use store::{directory, manifest};
pub use transfer::archive;
pub use transfer::partial::Partial;

use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint could not be taken or restored. The kinds are for different people: the first for
/// whoever runs the machine, those in the middle for whoever keeps the disks, the last for us.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The machine does not allow it (no CRIU, no privilege). Full replay still works.
    #[error("checkpoints are not possible here: {0}")]
    Unsupported(String),
    /// A part is missing or does not match its checksum: use another checkpoint.
    #[error("corrupt checkpoint: {path}: {what}", path = path.display())]
    Corrupt {
        /// The first bad file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It is whole, and another version of this program has written it.
    #[error("{path} has format {found}, which this version cannot read", path = path.display())]
    Version {
        /// The manifest.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A checkpoint of this slot is there already.
    #[error("there is a checkpoint of slot {0} already")]
    Exists(u64),
    /// The system failed.
    #[error(transparent)]
    System(#[from] io::Error),
    /// A file or directory cannot be used.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// CRIU was broken off in the middle of the server, which may not go on as it is: code or memory of
    /// CRIU's can be left in it.
    #[error("{0}")]
    Interrupted(String),
    /// Dump or restore failed; in words.
    #[error("{0}")]
    Failed(String),
}

impl CheckpointError {
    pub(crate) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }

    /// For `map_err` on system calls.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

impl From<container::ContainerError> for CheckpointError {
    fn from(error: container::ContainerError) -> Self {
        Self::Failed(error.to_string())
    }
}

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

/// Takes and restores images of one replica's server. What is in the directory besides is its caller's.
pub trait Checkpointer {
    /// A server that was brought back.
    type Server;

    /// Dumps the process tree of `server_pid` into `directory`, which exists and is empty; the tree runs
    /// on afterwards. The caller has seen to it that every thread is parked. What is written may be
    /// regular files, directories and symbolic links; it need not be synced. Of these only names and
    /// contents survive a transfer: owners, modes and times that matter have to be inside a file.
    ///
    /// # Errors
    /// See [`CheckpointError`]; the server runs on all the same, unless it is
    /// [`CheckpointError::Interrupted`]: then the caller has to end it. What is left in `directory` is
    /// the caller's to remove.
    fn dump(
        &mut self,
        server_pid: u32,
        position: Position,
        directory: &Path,
    ) -> Result<(), CheckpointError>;

    /// Brings the server back from a directory that [`Checkpointer::dump`] wrote, parked as it was. The
    /// caller has verified it.
    ///
    /// # Errors
    /// See [`CheckpointError`]; no process is left then.
    fn restore(&mut self, directory: &Path) -> Result<Self::Server, CheckpointError>;
}
