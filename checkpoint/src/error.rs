//! Why a checkpoint cannot be taken, read or restored.

use crate::container::ContainerError;
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
