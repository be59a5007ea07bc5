//! The options of the store, as they are given on a command line.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Options of the store. They can be part of another command line (`#[command(flatten)]`).
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

/// The crash that an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SyncMode {
    /// A crash of the machine: each transaction is synced to disk.
    Full,
    /// A crash of the store (kill -9), not of the machine: written to the file, never synced.
    None,
}

impl SyncMode {
    /// Returns the name used on the command line and in `INFO`.
    pub fn name(self) -> &'static str {
        match self {
            SyncMode::Full => "full",
            SyncMode::None => "none",
        }
    }
}
