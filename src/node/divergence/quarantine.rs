//! A replica whose server a majority has found wrong: what is remembered of it on disk, and the
//! frontend that serves its clients meanwhile.

use crate::error::NodeError;
use crate::proxy::frontend::{Sidecar, SidecarConfig, SidecarHandle};
use brolga_config::{ConfigError, NodeConfig, read_toml};
use brolga_os::files::{FileError, write_whole};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

/// Why a node is in quarantine. Kept in its data directory until its server agrees again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The first slot at which its server is wrong.
    pub slot: u64,
    /// The difference, in words.
    pub reason: String,
    /// How often its server was started from its genesis since, to see whether it agrees then.
    pub replays: u32,
}

/// Why what is on disk about it cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ConfigError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// It cannot be removed.
    #[error("cannot remove {path}: {source}")]
    Remove {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("quarantine.toml")
}

impl Quarantine {
    /// What an earlier run has left.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, QuarantineError> {
        let path = file(data_dir);
        match path.exists() {
            true => Ok(Some(read_toml(&path)?)),
            false => Ok(None),
        }
    }

    /// Makes sure that a restart finds it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, data_dir: &Path) -> Result<(), QuarantineError> {
        let text = toml::to_string(self).map_err(|error| FileError {
            action: "write",
            path: file(data_dir),
            source: io::Error::other(error),
        })?;
        let text = format!("# This replica's server differed from a majority's.\n{text}");
        Ok(write_whole(&file(data_dir), &text)?)
    }

    /// It is over.
    ///
    /// # Errors
    /// The file stays.
    pub fn lift(data_dir: &Path) -> Result<(), QuarantineError> {
        let path = file(data_dir);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(QuarantineError::Remove { path, source })
            }
            _ => Ok(()),
        }
    }
}

/// Serves clients at this node's address from the other replicas, as a frontend alone does.
#[derive(Debug)]
pub struct StandIn {
    handle: SidecarHandle,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Starts it; the node itself must have closed its ports.
    ///
    /// # Errors
    /// The operating system refuses something.
    pub fn start(config: &NodeConfig) -> Result<Self, NodeError> {
        let others = config.members.iter().filter(|it| it.id != config.node);
        let (sidecar, handle) = Sidecar::open(SidecarConfig {
            cluster: config.cluster.0,
            publish: config.publish_address(),
            nodes: others.map(|member| member.sidecar).collect(),
        })?;
        let run = move || {
            if let Err(error) = sidecar.run() {
                tracing::warn!(%error, "clients cannot be served from other replicas");
            }
        };
        let thread = thread::Builder::new().name("stand-in".into()).spawn(run);
        let thread = thread.map_err(NodeError::doing("cannot start a thread"))?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.handle.shutdown();
        // A panic of the thread has been shown already; its ports are closed either way.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarantine_outlives_the_node_until_it_is_lifted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Quarantine::load(dir.path()).unwrap(), None);
        let quarantine = Quarantine {
            slot: 7,
            reason: "it says \"another!\"".into(),
            replays: 1,
        };
        quarantine.save(dir.path()).unwrap();
        assert_eq!(Quarantine::load(dir.path()).unwrap(), Some(quarantine));
        Quarantine::lift(dir.path()).unwrap();
        Quarantine::lift(dir.path()).unwrap();
        assert_eq!(Quarantine::load(dir.path()).unwrap(), None);
    }
}
