//! The errors that end the store.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The reason for which the store cannot start, or had to stop. One line each.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory could not be created, opened, locked or synced.
    #[error("cannot use data directory {path}: {source}")]
    DataDir {
        /// The data directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another process has the data directory open.
    #[error("data directory {0} is in use by another process")]
    DataDirInUse(PathBuf),
    /// The database exists but cannot be opened or read.
    #[error("cannot open database {path}: {source}")]
    Database {
        /// The database file.
        path: PathBuf,
        /// The error of the database.
        source: Box<redb::Error>,
    },
    /// The store cannot listen on the address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The requested address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// A resource needed to start is missing.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// Writes can no longer be made durable.
    #[error("stopped, because writes cannot be committed: {0}")]
    Commit(String),
}
