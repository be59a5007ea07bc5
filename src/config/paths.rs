//! What lies where in a node's data directory.

use super::{NEW_MARK, NodeConfig};
use std::path::PathBuf;

impl NodeConfig {
    /// Where `brolga status` asks.
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

    /// What the server's container keeps of changes to the machine's files.
    #[must_use]
    pub fn container_dir(&self) -> PathBuf {
        self.data_dir.join("container")
    }

    /// Present until the first start of a node that has never run: see [`crate::cluster`].
    #[must_use]
    pub fn new_mark(&self) -> PathBuf {
        self.data_dir.join(NEW_MARK)
    }

    /// Present once this replica was found to be of the same kind as a majority and has served.
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

    /// Where its checkpoints are.
    #[must_use]
    pub fn checkpoint_dir(&self) -> PathBuf {
        self.data_dir.join("checkpoints")
    }

    /// Where a genesis goes that comes from another node.
    #[must_use]
    pub fn fetched_genesis(&self) -> PathBuf {
        self.data_dir.join("genesis")
    }

    /// What the server writes to standard output.
    #[must_use]
    pub fn server_stdout(&self) -> PathBuf {
        self.data_dir.join("server.out")
    }

    /// What the server writes to standard error.
    #[must_use]
    pub fn server_stderr(&self) -> PathBuf {
        self.data_dir.join("server.err")
    }
}
