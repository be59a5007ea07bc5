//! A checkpoint that comes from elsewhere piece by piece, and is continued when somebody died over it.
//!
//! ```text
//! DIRECTORY/part-00000000000000000123-…/     what is there so far of the checkpoint of slot 123
//!     manifest                               all of it, from the start
//!     …                                      its parts
//! ```
//!
//! The name has the hash of the manifest, so what is there is always of the same checkpoint, whoever
//! it comes from. Each part grows from its beginning. How far it is to be trusted is for its writer to
//! find out by reading it: after a crash of the machine there may be anything in it.
//!
//! # Invariants
//!
//! * One process at a time writes to it; it holds it locked.
//! * It becomes a checkpoint as any other does: synced, read back, renamed.
//! * Nothing is written outside of it: a manifest that names such a path is none.

use crate::error::CheckpointError;
use crate::store::directory::{
    Checkpoint, Directory, SLOT_DIGITS, Staged, sync_directory, try_lock,
};
use crate::store::manifest::{FILE_NAME, Kind, Manifest};
use nix::fcntl::Flock;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

const PARTIAL: &str = "part-";

/// See the module's description. Dropping it leaves it on disk.
#[derive(Debug)]
pub struct Partial {
    directory: Directory,
    path: PathBuf,
    manifest: Manifest,
    lock: Flock<File>,
}

impl Directory {
    /// Begins or continues to take in what `manifest` describes. Its directories and links are there then.
    ///
    /// # Errors
    /// Somebody else is at it, or it cannot be written.
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
        // Torn by a crash it is no manifest, which is noticed by its checksum.
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

    /// What is there in part, the newest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn partials(&self) -> Result<Vec<Manifest>, CheckpointError> {
        let names = self.names()?.into_iter().rev();
        let partial = names.filter(|name| name.starts_with(PARTIAL));
        let manifests = partial.map(|name| Manifest::load(&self.path().join(name)));
        Ok(manifests.filter_map(Result::ok).collect())
    }

    /// Removes all that is there in part and that nobody is at.
    ///
    /// # Errors
    /// The directory cannot be read, or something cannot be removed.
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
    /// Where the parts go.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is to be.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Parents come before what is in them: a path that goes on behind another's is greater.
    fn prepare(&self) -> Result<(), CheckpointError> {
        let mut parts: Vec<_> = self.manifest.parts.iter().collect();
        parts.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        for part in parts {
            let path = self.path.join(&part.path);
            let made = match &part.kind {
                Kind::Directory => fs::create_dir(&path),
                Kind::Link { target } => symlink(target, &path),
                Kind::File { .. } => Ok(()),
            };
            match made {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(CheckpointError::file("create", &path))?,
            }
        }
        Ok(())
    }

    /// Makes it a checkpoint, in the place of one of the same slot if `replaces` says that there is
    /// one and it is damaged. `seen` is told how many more bytes were read back.
    ///
    /// # Errors
    /// Names the first bad file; nothing is left then.
    pub fn commit(
        self,
        replaces: bool,
        seen: &mut dyn FnMut(u64),
    ) -> Result<Checkpoint, CheckpointError> {
        self.sync()?;
        let slot = self.manifest.position.slot;
        let damaged = self.directory.of(slot);
        if replaces && damaged.exists() {
            self.directory.remove(&damaged)?;
        }
        let staged = Staged {
            directory: self.directory.path().to_path_buf(),
            path: self.path,
            slot,
            _lock: self.lock,
        };
        staged.publish(&self.manifest, seen)
    }

    /// Files first, then what names them.
    fn sync(&self) -> Result<(), CheckpointError> {
        for part in &self.manifest.parts {
            let path = self.path.join(&part.path);
            if let Kind::File { .. } = part.kind {
                let sync = File::open(&path).and_then(|file| file.sync_all());
                sync.map_err(CheckpointError::file("sync", &path))?;
            }
        }
        for part in &self.manifest.parts {
            if part.kind == Kind::Directory {
                sync_directory(&self.path.join(&part.path))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "partial_tests.rs"]
mod tests;
