//! Quarantine: a majority has found the server of this replica faulty. It is remembered on disk
//! until the server agrees again.

use brolga_config::{ConfigError, read_toml};
use brolga_os::files::{FileError, write_whole};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The reason why a node is in quarantine. Kept in its data directory until its server agrees
/// again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The first slot at which its server is faulty.
    pub slot: u64,
    /// The divergence report, in words.
    pub reason: String,
    /// Number of times that its server was started from its genesis since, to see whether it agrees
    /// then.
    pub replays: u32,
}

/// The file of a quarantine cannot be read, written or removed.
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
    /// Loads the quarantine that an earlier run has left, if it has.
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

    /// Saves it, so that a restart finds it.
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

    /// Ends it.
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
