//! Checkpoints that are being written: staged, sealed, verified, and published by a rename.

use crate::error::CheckpointError;
use crate::store::directory::{
    Checkpoint, Directory, SLOT_DIGITS, STAGED, temporary_name, try_lock,
};
use crate::store::fingerprint::ServerFingerprint;
use crate::store::manifest::{self, Manifest, Part, Position};
use crate::store::verify::{seal, sync_directory, verify};
use nix::fcntl::Flock;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Attempts to create a staged directory, before something must be removing them on purpose.
const ATTEMPTS: u32 = 100;

/// A checkpoint that is being written. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    directory: Directory,
    path: PathBuf,
    slot: u64,
    /// Held so that no other process takes the directory for that of a dead writer.
    _lock: Flock<File>,
}

/// The origin of a checkpoint: the part of its manifest that its writer provides.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The cluster that the checkpoint belongs to.
    pub cluster: u128,
    /// The node that took the checkpoint.
    pub node: u64,
    /// The position in the log.
    pub position: Position,
    /// The server that was dumped.
    pub fingerprint: ServerFingerprint,
}

impl Directory {
    /// Begins a checkpoint of `slot`.
    ///
    /// # Errors
    /// A checkpoint of this slot exists, or the directory cannot be written.
    pub fn stage(&self, slot: u64) -> Result<Staged, CheckpointError> {
        if self.path_of(slot).exists() {
            return Err(CheckpointError::Exists(slot));
        }
        for _ in 0..ATTEMPTS {
            let name = temporary_name(&format!("{STAGED}{slot:0SLOT_DIGITS$}-"));
            let path = self.path().join(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(CheckpointError::file("create", &path))?,
            }
            // A process that cleans up may have been quicker: then it is gone, or locked.
            if let Ok(Some(lock)) = try_lock(&path)
                && path.exists()
            {
                return Ok(Staged::new(self.clone(), path, slot, lock));
            }
        }
        let busy = io::Error::other("another process keeps removing staged checkpoints");
        Err(CheckpointError::file("use", self.path())(busy))
    }
}

impl Staged {
    /// A checkpoint of `slot` that is being written at `path`, in `directory`; `lock` is that of
    /// its writer.
    pub(crate) fn new(directory: Directory, path: PathBuf, slot: u64, lock: Flock<File>) -> Self {
        Self {
            directory,
            path,
            slot,
            _lock: lock,
        }
    }

    /// Returns the directory for the parts.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Publishes the checkpoint: hashes and syncs every part, writes the manifest, reads everything
    /// back, and renames the directory. `progress` is called with the number of bytes of each read;
    /// each byte is read twice.
    ///
    /// # Errors
    /// Nothing is left of it then; earlier checkpoints are unchanged.
    pub fn commit(
        self,
        origin: Provenance,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Checkpoint, CheckpointError> {
        assert_eq!(origin.position.slot, self.slot, "staged for another slot");
        let mut parts = Vec::new();
        seal(&self.path, Path::new(""), &mut parts, progress)?;
        parts.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        self.check_shared(&parts)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let manifest = Manifest {
            cluster: origin.cluster,
            node: origin.node,
            position: origin.position,
            fingerprint: origin.fingerprint,
            taken_at: now.unwrap_or_default().as_secs(),
            parts,
        };
        self.publish(&manifest, progress)
    }

    /// Checks files that are hard links to those of an earlier checkpoint against its manifest.
    /// They were correct then; if they have changed since, the new manifest must not certify the
    /// damage.
    fn check_shared(&self, parts: &[Part]) -> Result<(), CheckpointError> {
        let mut earlier = HashMap::new();
        for checkpoint in self.directory.list()?.whole {
            for part in checkpoint.manifest.parts {
                if let Some(file) = shared_file(&checkpoint.path.join(&part.path)) {
                    earlier.insert(file, (part.bytes, part.kind));
                }
            }
        }
        for part in parts {
            let path = self.path.join(&part.path);
            let before = shared_file(&path).and_then(|file| earlier.get(&file));
            if before.is_some_and(|before| *before != (part.bytes, part.kind.clone())) {
                let what = "it is shared with an earlier checkpoint and was damaged since";
                return Err(CheckpointError::corrupt(&path, what));
            }
        }
        Ok(())
    }

    /// Publishes a checkpoint with parts that were received: as [`Staged::commit`], but under the
    /// given manifest, which the parts have to match.
    ///
    /// # Errors
    /// Names the first bad file; nothing is left of it then.
    pub fn commit_as(
        self,
        manifest: &Manifest,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Checkpoint, CheckpointError> {
        assert_eq!(manifest.position.slot, self.slot, "staged for another slot");
        let mut parts = Vec::new();
        seal(&self.path, Path::new(""), &mut parts, progress)?;
        self.publish(manifest, progress)
    }

    /// Writes the manifest, verifies the parts against it, and renames the directory.
    pub(crate) fn publish(
        self,
        manifest: &Manifest,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Checkpoint, CheckpointError> {
        let path = self.path.join(manifest::FILE_NAME);
        let bytes = manifest.encode()?;
        write_synced(&path, &bytes).map_err(CheckpointError::file("write", &path))?;
        sync_directory(&self.path)?;
        let manifest = Manifest::load(&self.path)?;
        verify(&self.path, &manifest, progress)?;
        let name = self.directory.path_of(self.slot);
        match fs::rename(&self.path, &name) {
            // Another writer was quicker: a directory is not renamed over one that is not empty.
            Err(_) if name.exists() => return Err(CheckpointError::Exists(self.slot)),
            other => other.map_err(CheckpointError::file("rename", &self.path))?,
        }
        sync_directory(self.directory.path())?;
        Ok(Checkpoint {
            path: name,
            manifest,
        })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // A published one has another path. What cannot be removed now is removed by the next
        // process that opens the directory.
        if self.path.exists() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Returns device and inode of a file that has several names.
fn shared_file(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let shared = metadata.is_file() && metadata.nlink() > 1;
    shared.then(|| (metadata.dev(), metadata.ino()))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
