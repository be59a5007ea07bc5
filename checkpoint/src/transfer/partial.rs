//! A checkpoint that is received piece by piece; after a crash, the transfer is continued.
//!
//! ```text
//! DIRECTORY/part-00000000000000000123-…/     the received part of the checkpoint of slot 123
//!     manifest                               complete from the start
//!     …                                      its parts
//! ```
//!
//! The name contains the hash of the manifest, so all that was received belongs to the same
//! checkpoint, whichever node sent it. Each part grows from its beginning. Its writer has to read
//! it to find out how much of it is valid: after a crash of the machine it may contain anything.
//!
//! # Invariants
//!
//! * One process at a time writes to it and holds its lock.
//! * It is published as any other checkpoint: synced, read back, renamed.
//! * Nothing is written outside of its directory: a manifest that lists such a path is refused.

use crate::error::CheckpointError;
use crate::store::directory::{Checkpoint, Directory, SLOT_DIGITS, try_lock};
use crate::store::manifest::{FILE_NAME, Manifest, PartKind};
use crate::store::staged::Staged;
use crate::store::verify::sync_directory;
use nix::fcntl::Flock;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// Prefix of partial checkpoints.
const PARTIAL: &str = "part-";

/// A partially received checkpoint. It stays on disk when it is dropped.
#[derive(Debug)]
pub struct Partial {
    directory: Directory,
    path: PathBuf,
    manifest: Manifest,
    lock: Flock<File>,
}

impl Directory {
    /// Begins or continues to receive the checkpoint that `manifest` describes. Its directories and
    /// links are created.
    ///
    /// # Errors
    /// Another process is receiving it, or it cannot be written.
    pub fn partial(&self, manifest: Manifest) -> Result<Partial, CheckpointError> {
        let slot = manifest.position.slot;
        let encoded = manifest.encode()?;
        let hash = xxh3_128(&encoded);
        let name = format!("{PARTIAL}{slot:0SLOT_DIGITS$}-{hash:032x}");
        let path = self.path().join(name);
        fs::create_dir_all(&path).map_err(CheckpointError::file("create", &path))?;
        let lock = try_lock(&path).map_err(CheckpointError::file("lock", &path))?;
        let lock = lock.ok_or_else(|| {
            let what = format!("{} is being written by another process", path.display());
            CheckpointError::Failed(what)
        })?;
        // If a crash leaves it incomplete, its checksum will be wrong.
        let file = path.join(FILE_NAME);
        fs::write(&file, &encoded).map_err(CheckpointError::file("write", &file))?;
        let directory = self.clone();
        let partial = Partial {
            directory,
            path,
            manifest,
            lock,
        };
        partial.prepare()?;
        Ok(partial)
    }

    /// Returns the manifests of all partial checkpoints, the newest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn partials(&self) -> Result<Vec<Manifest>, CheckpointError> {
        let names = self.names()?.into_iter().rev();
        let partial = names.filter(|name| name.starts_with(PARTIAL));
        let manifests = partial.map(|name| Manifest::load(&self.path().join(name)));
        Ok(manifests.filter_map(Result::ok).collect())
    }

    /// Removes all partial checkpoints that no process is receiving.
    ///
    /// # Errors
    /// The directory cannot be read, or a partial checkpoint cannot be removed.
    pub fn drop_partials(&self) -> Result<(), CheckpointError> {
        for name in self.names()? {
            let path = self.path().join(&name);
            if name.starts_with(PARTIAL)
                && let Ok(Some(_lock)) = try_lock(&path)
            {
                fs::remove_dir_all(&path).map_err(CheckpointError::file("remove", &path))?;
            }
        }
        Ok(())
    }
}

impl Partial {
    /// Returns the directory for the parts.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the manifest of the whole checkpoint.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Creates directories and links, parents first: a path is less than those below it.
    fn prepare(&self) -> Result<(), CheckpointError> {
        let mut parts: Vec<_> = self.manifest.parts.iter().collect();
        parts.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        for part in parts {
            let path = self.path.join(&part.path);
            let made = match &part.kind {
                PartKind::Directory => fs::create_dir(&path),
                PartKind::Link { target } => symlink(target, &path),
                PartKind::File { .. } => Ok(()),
            };
            match made {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(CheckpointError::file("create", &path))?,
            }
        }
        Ok(())
    }

    /// Publishes the checkpoint. `replaces` says that a published one of the same slot is damaged;
    /// it is removed first. `progress` is called with the number of bytes of each read.
    ///
    /// # Errors
    /// Names the first bad file; nothing is left of it then.
    pub fn commit(
        self,
        replaces: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Checkpoint, CheckpointError> {
        self.sync()?;
        let slot = self.manifest.position.slot;
        let damaged = self.directory.path_of(slot);
        if replaces && damaged.exists() {
            self.directory.remove(&damaged)?;
        }
        let staged = Staged::new(self.directory, self.path, slot, self.lock);
        staged.publish(&self.manifest, progress)
    }

    /// Syncs the files, then the directories that name them.
    fn sync(&self) -> Result<(), CheckpointError> {
        for part in &self.manifest.parts {
            let path = self.path.join(&part.path);
            if let PartKind::File { .. } = part.kind {
                let sync = File::open(&path).and_then(|file| file.sync_all());
                sync.map_err(CheckpointError::file("sync", &path))?;
            }
        }
        for part in &self.manifest.parts {
            if part.kind == PartKind::Directory {
                sync_directory(&self.path.join(&part.path))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "partial_tests.rs"]
mod tests;
