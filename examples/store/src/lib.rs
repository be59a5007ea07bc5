//! A small, ordinary key-value server: the storage service bundled with Brolga.
//!
//! There is **no replication code here**, on purpose. This is the kind of program Brolga is for: one
//! process, blocking sockets, a thread per connection, mutexes, condition variables and a database
//! on disk. Run by itself it is a durable single-node store; run under Brolga it is a replicated
//! one, and not a line of it differs.
//!
//! Reading order:
//! - [`resp`]: the wire format (RESP2 and inline commands), parsing and replies; no I/O.
//! - `command`: what a request asks for.
//! - `view`: the keys in memory and the writes not yet on disk; what each command means; no I/O.
//! - `disk`: the keys on disk, in a redb database.
//! - `store`: joins the two with a lock and leader/follower group commit.
//! - `session`, `server`: one connection; all of them.
//!
//! # Guarantees
//!
//! Commands are linearizable: each takes effect, atomically, in the order in which the store's lock
//! is taken, and the commands of one connection in the order sent.
//!
//! **No reply is sent before everything it reveals is durable.** A write is acknowledged after the
//! transaction that holds it has committed; a read of a key with a write still on its way to disk is
//! answered after that write has committed. So a reply never tells of something that a crash could
//! take back. A read of any other key waits for nothing.
//!
//! If a transaction cannot be committed (a full disk), the store stops: what it holds in memory is
//! then ahead of what it can promise.
//!
//! # Limits
//!
//! All keys and values are held in memory as well. Keys do not expire; there is one database (0); a
//! key is at most [`KEY_BYTES_MAX`] and a value [`VALUE_BYTES_MAX`] long.
#![forbid(unsafe_code)]

mod command;
mod disk;
pub mod resp;
mod server;
mod session;
mod store;
mod view;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use server::Server;

/// How the store is run. Usable as part of a command line (`#[command(flatten)]`) or by itself.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// Address to accept connections on.
    #[arg(long, value_name = "ADDRESS", default_value_t = Options::default().listen)]
    pub listen: SocketAddr,

    /// Directory the data is kept in; created if missing.
    #[arg(long = "data", value_name = "DIR", default_value_os_t = Options::default().data_dir)]
    pub data_dir: PathBuf,

    /// What an acknowledged write survives.
    #[arg(long, value_enum, default_value_t = Options::default().sync)]
    pub sync: SyncMode,

    /// Connections served at a time; more are refused with an error.
    #[arg(long, value_name = "COUNT", default_value_t = Options::default().max_connections)]
    pub max_connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 7600)),
            data_dir: PathBuf::from("store-data"),
            sync: SyncMode::Full,
            max_connections: 1024,
        }
    }
}

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SyncMode {
    /// A crash of the machine: each transaction is synced to disk.
    Full,
    /// A crash of the store (kill -9), not of the machine: written to the file, never synced.
    None,
}

impl SyncMode {
    /// The name used on the command line and in `INFO`.
    pub fn name(self) -> &'static str {
        match self {
            SyncMode::Full => "full",
            SyncMode::None => "none",
        }
    }
}

/// Why the store could not start, or had to stop. Each is displayed as one line.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory could not be created, opened, locked or synced.
    #[error("cannot use data directory {path}: {source}")]
    DataDir {
        /// The data directory.
        path: PathBuf,
        /// What the system said.
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
        /// What the database said.
        source: Box<redb::Error>,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A resource needed to start is missing.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// Writes can no longer be made durable.
    #[error("stopped, because writes cannot be committed: {0}")]
    Commit(String),
}

/// Serves until killed, or until a client sends `SHUTDOWN`, which is the only way this returns `Ok`.
///
/// Announces itself with one line on standard output once connections are accepted. The caller is
/// expected to end the process when this returns: threads blocked on their clients, and the
/// listening socket, are left to that.
pub fn run(options: Options) -> Result<(), StoreError> {
    let server = Server::bind(options)?;
    server.announce();
    server.serve()
}
