//! Errors of taking, reading and restoring checkpoints.

use crate::container::ContainerError;
use std::io;
use std::path::{Path, PathBuf};

/// A failure to take, read or restore a checkpoint.
///
/// The first variant concerns the administrator of the machine, those in the middle whoever looks
/// after its disks, the last two the developers of Brolga.
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
        /// The defect.
        what: String,
    },
    /// The checkpoint was written by a build that uses another version of the format.
    #[error(
        "{path} is in checkpoint format {found}, and this build reads format {readable}: use the \
         build of brolga that wrote it, or another checkpoint", path = path.display()
    )]
    Version {
        /// The manifest.
        path: PathBuf,
        /// The version of its format.
        found: u32,
        /// The version that this build reads and writes.
        readable: u32,
    },
    /// A checkpoint of this slot exists already.
    #[error("there is a checkpoint of slot {0} already")]
    Exists(u64),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
    /// A file or directory cannot be used.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File {
        /// The operation.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// CRIU was interrupted while it worked inside the server. The server must not continue: code
    /// or memory of CRIU may be left in it.
    #[error("{0}")]
    Interrupted(String),
    /// A dump or restore failed; a description.
    #[error("{0}")]
    Failed(String),
}

impl CheckpointError {
    /// An error about the first bad file.
    pub(crate) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }

    /// Names the operation and the path, for `map_err` on system calls.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

impl From<ContainerError> for CheckpointError {
    fn from(error: ContainerError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Names the file in the error of an operation on it.
pub(crate) fn with_path(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.to_owned();
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
