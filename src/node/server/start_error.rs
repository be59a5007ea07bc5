//! Reasons why a server cannot be started or watched.

use brolga_checkpoint::CheckpointError;
use brolga_checkpoint::container::ContainerError;
use brolga_server_image::fingerprint::FingerprintError;
use brolga_server_image::launch::{LaunchError, WorkdirError};
use std::io;
use std::path::PathBuf;

/// The reason why a server cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program cannot be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The directories cannot be prepared.
    #[error(transparent)]
    Workdir(#[from] WorkdirError),
    /// A file of an earlier run is in the way.
    #[error("cannot remove {path}: {source}")]
    Remove {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A container is required, and cannot be made.
    #[error("the server cannot run in a container: {0}")]
    NoContainer(ContainmentError),
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    System {
        /// The action that failed.
        doing: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl StartError {
    /// For `map_err` on system calls.
    pub(crate) fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}

/// No container can be made for a server.
#[derive(Debug, thiserror::Error)]
pub enum ContainmentError {
    /// CRIU cannot be used.
    #[error(transparent)]
    Criu(#[from] CheckpointError),
    /// The files that CRIU itself needs cannot be told.
    #[error(transparent)]
    CriuFiles(#[from] FingerprintError),
    /// The kernel does not make it.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The files for the server's output cannot be opened.
    #[error(transparent)]
    Output(#[from] LaunchError),
}
