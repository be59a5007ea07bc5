//! The layout of a node's data directory.

use super::{NEW_MARK, NodeConfig};
use std::path::PathBuf;

impl NodeConfig {
    /// The socket that `brolga status` asks.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// The server's working directory.
    #[must_use]
    pub fn work_dir(&self) -> PathBuf {
        self.data_dir.join("work")
    }

    /// The server's directory for temporary files.
    #[must_use]
    pub fn temporary_dir(&self) -> PathBuf {
        self.data_dir.join("tmp")
    }

    /// The durable log.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.data_dir.join("log")
    }

    /// The changes that the server's container makes to the machine's files.
    #[must_use]
    pub fn container_dir(&self) -> PathBuf {
        self.data_dir.join("container")
    }

    /// The mark of a node that has never run, removed at its first start.
    #[must_use]
    pub fn new_mark(&self) -> PathBuf {
        self.data_dir.join(NEW_MARK)
    }

    /// The mark of a replica that was found compatible with a majority and has served.
    #[must_use]
    pub fn served_mark(&self) -> PathBuf {
        self.data_dir.join("served")
    }

    /// The list of all files that the server starts with, if there are any.
    #[must_use]
    pub fn genesis_list(&self) -> PathBuf {
        self.data_dir.join("genesis.list")
    }

    /// The list of all files of the root, if one is given.
    #[must_use]
    pub fn root_list(&self) -> PathBuf {
        self.data_dir.join("root.list")
    }

    /// The directory of this node's checkpoints.
    #[must_use]
    pub fn checkpoint_dir(&self) -> PathBuf {
        self.data_dir.join("checkpoints")
    }

    /// The genesis that was fetched from another node.
    #[must_use]
    pub fn fetched_genesis(&self) -> PathBuf {
        self.data_dir.join("genesis")
    }

    /// The server's standard output.
    #[must_use]
    pub fn server_stdout(&self) -> PathBuf {
        self.data_dir.join("server.out")
    }

    /// The server's standard error.
    #[must_use]
    pub fn server_stderr(&self) -> PathBuf {
        self.data_dir.join("server.err")
    }
}
