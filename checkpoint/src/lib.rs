//! Checkpoint and restore of a replica: the interface, and the tools ([`criu`]). **No checkpoint is taken
//! yet**; a replica that starts replays its whole log.
//!
//! A checkpoint at slot *k* is everything that a replica needs to go on at *k + 1*: an image of the
//! server's process tree, the state of scheduler and virtual sockets (which lie in memory of that
//! tree), the changes to its working directory, and a manifest that names and checks them all. The
//! tape is not in it: it is a window that the node fills again from the log.
//!
//! It is taken at an idle point, when every thread of the server is parked in the interposer. Client
//! connections stay: there is no state of theirs in the kernel.
//!
//! Invariants that an implementation has to keep:
//!
//! * A checkpoint is written aside, synced and renamed: it is there whole or not at all.
//! * The log before a checkpoint may be dropped only when the checkpoint was verified.
//! * Restoring leads to the same output and schedule hashes at *k* as having run there.
//!
//! Deliberately absent: Paxos messages, sockets of clients, the decision when to take one.
#![forbid(unsafe_code)]

pub mod criu;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What a replica's server has done up to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The last slot that the checkpoint contains.
    pub slot: u64,
    /// Output hash there.
    pub output_hash: u64,
    /// Schedule hash there.
    pub schedule_hash: u64,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Path within the checkpoint's directory.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// CRC-32C of its content.
    pub crc32c: u32,
}

/// What a checkpoint consists of. Written last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The cluster it belongs to.
    pub cluster: u128,
    /// Where in the log it was taken.
    pub position: Position,
    /// All its files.
    pub parts: Vec<Part>,
}

/// Why a checkpoint could not be taken or restored. The three are for different people: the first for
/// whoever runs the machine, the second for whoever keeps the disks, the third for us.
#[derive(Debug)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The machine does not allow it (no CRIU, no privilege). Full replay still works.
    Unsupported(String),
    /// A part is missing or does not match its checksum: use another checkpoint.
    Corrupt(PathBuf),
    /// The system failed.
    System(io::Error),
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(why) => write!(f, "checkpoints are not possible here: {why}"),
            Self::Corrupt(path) => write!(f, "corrupt checkpoint: {}", path.display()),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CheckpointError {}

/// Takes and restores checkpoints of one replica's server.
pub trait Checkpointer {
    /// A server that was brought back.
    type Server;

    /// Dumps the parked process tree of `server_pid` into `directory`, which is empty; it runs on
    /// afterwards. All that is put there are plain files, so that a manifest can list them and another
    /// machine can be sent them.
    ///
    /// # Errors
    /// See [`CheckpointError`]; what is in `directory` then is of no use, and the server runs on.
    fn dump(
        &mut self,
        server_pid: u32,
        position: Position,
        directory: &Path,
    ) -> Result<(), CheckpointError>;

    /// Brings the server back from what [`Checkpointer::dump`] has put into `directory`, parked at the
    /// position of the dump. The caller has verified the files.
    ///
    /// # Errors
    /// See [`CheckpointError`]; no process is left then.
    fn restore(&mut self, directory: &Path) -> Result<Self::Server, CheckpointError>;
}
