//! The directory that holds a replica's checkpoints.
//!
//! ```text
//! DIRECTORY/00000000000000000123/          the checkpoint of slot 123
//!     manifest
//!     …                                    its parts
//! DIRECTORY/new-00000000000000000150-…/    staged: being written, or left by a writer that died
//! ```
//!
//! # Model
//!
//! A checkpoint begins as a *staged* directory that its writer keeps locked ([`super::staged`]). It
//! is renamed to its slot once it is complete, synced and verified. A directory with the name of a
//! slot was therefore complete at that time, and a staged directory without a lock was left by a
//! writer that died: it may be removed.
//!
//! # Invariants
//!
//! * Nothing in a published checkpoint is ever changed.
//! * A checkpoint is renamed before it is removed: an incomplete one never has the name of a slot.
//! * A checkpoint that is held ([`Checkpoint::hold`]) is not removed.
//! * Several processes may use a directory at once; the first to finish a slot publishes it.
//!
//! Deliberately absent: the meaning of the parts.

use crate::error::CheckpointError;
use crate::store::manifest::Manifest;
use crate::store::verify::{check_metadata, verify};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Digits of a slot in a directory's name: names sort as slots do.
pub(crate) const SLOT_DIGITS: usize = 20;
/// Prefix of staged checkpoints.
pub(super) const STAGED: &str = "new-";
/// Prefix of checkpoints that are being removed.
pub(super) const REMOVED: &str = "old-";

/// Counts the temporary names of this process, so that they differ.
static TEMPORARY_NAMES: AtomicU64 = AtomicU64::new(0);

/// The checkpoints of one replica.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

/// A published checkpoint that has passed all checks that do not read its contents.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its directory.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
}

/// The checkpoints in a directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// Complete checkpoints, the newest first.
    pub whole: Vec<Checkpoint>,
    /// Directories with the name of a checkpoint that are damaged or of another version, and why.
    pub damaged: Vec<(PathBuf, CheckpointError)>,
}

impl Directory {
    /// Creates the directory if it is missing, and removes what dead writers have left in it.
    ///
    /// # Errors
    /// The directory cannot be created or read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CheckpointError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(CheckpointError::file("create", &path))?;
        let directory = Self { path };
        directory.clean_up()?;
        Ok(directory)
    }

    /// Opens an existing directory for reading: nothing in it is changed.
    #[must_use]
    pub fn existing(path: impl Into<PathBuf>) -> Option<Self> {
        let path = path.into();
        path.is_dir().then_some(Self { path })
    }

    /// Returns the path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the sorted names of all entries.
    pub(crate) fn names(&self) -> Result<Vec<String>, CheckpointError> {
        let failed = || CheckpointError::file("read", &self.path);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            names.extend(name.to_str().map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes what dead processes have left half written or half removed, and returns the paths.
    /// What a living process works on stays.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn clean_up(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let mut removed = Vec::new();
        for name in self.names()? {
            if !name.starts_with(STAGED) && !name.starts_with(REMOVED) {
                continue;
            }
            let path = self.path.join(name);
            // Removed by another process, or in use: both are fine. The lock is held until the
            // directory is gone.
            let Ok(Some(_lock)) = try_lock(&path) else {
                continue;
            };
            fs::remove_dir_all(&path).map_err(CheckpointError::file("remove", &path))?;
            removed.push(path);
        }
        Ok(removed)
    }

    /// Returns the path of the checkpoint of `slot`, whether or not it exists.
    pub(crate) fn path_of(&self, slot: u64) -> PathBuf {
        self.path.join(format!("{slot:0SLOT_DIGITS$}"))
    }

    /// Lists all checkpoints, the newest first. Those with an obvious defect are listed apart: the
    /// manifest cannot be read, or a part is missing or has another length. [`Checkpoint::verify`]
    /// reads the contents as well.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Listing, CheckpointError> {
        let mut listing = Listing::default();
        for name in self.names()?.into_iter().rev() {
            let Some(slot) = slot_of(&name) else {
                continue;
            };
            let path = self.path.join(name);
            match load(&path, slot) {
                Ok(checkpoint) => listing.whole.push(checkpoint),
                // Removed meanwhile, by another process.
                Err(_) if !path.exists() => {}
                Err(error) => listing.damaged.push((path, error)),
            }
        }
        Ok(listing)
    }

    /// Removes all but the newest `keep` complete checkpoints. If there are `keep` complete ones,
    /// those that cannot be read are removed as well. A checkpoint that is held stays until the
    /// next time. Returns the paths of what was removed.
    ///
    /// # Errors
    /// A checkpoint cannot be removed.
    pub fn prune(&self, keep: usize) -> Result<Vec<PathBuf>, CheckpointError> {
        let Listing { whole, damaged } = self.list()?;
        let enough = whole.len() >= keep;
        let old = whole.into_iter().skip(keep).map(|one| one.path);
        let damaged = damaged.into_iter().map(|(path, _)| path).filter(|_| enough);
        let mut removed = Vec::new();
        for path in old.chain(damaged) {
            if self.remove(&path)? {
                removed.push(path);
            }
        }
        Ok(removed)
    }

    /// Renames a checkpoint, then removes it. Returns false if it is held; it stays then.
    ///
    /// # Errors
    /// The checkpoint cannot be removed; it may have been renamed.
    pub fn remove(&self, path: &Path) -> Result<bool, CheckpointError> {
        let _lock = match try_lock(path) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(false),
            // Another process was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(CheckpointError::file("lock", path)(error)),
        };
        let aside = self.path.join(temporary_name(REMOVED));
        fs::rename(path, &aside).map_err(CheckpointError::file("rename", path))?;
        fs::remove_dir_all(&aside).map_err(CheckpointError::file("remove", &aside))?;
        Ok(true)
    }
}

/// Keeps a checkpoint from being removed, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Hold(#[expect(dead_code, reason = "it is there to be dropped")] Flock<File>);

impl Checkpoint {
    /// Keeps all processes from removing the checkpoint while the returned value lives. `None`
    /// means that it is being removed already.
    ///
    /// # Errors
    /// The checkpoint cannot be opened.
    pub fn hold(&self) -> Result<Option<Hold>, CheckpointError> {
        let failed = CheckpointError::file("open", &self.path);
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let Ok(lock) = Flock::lock(file, FlockArg::LockSharedNonblock) else {
            return Ok(None);
        };
        // It may have been renamed between opening and locking.
        let named = fs::metadata(&self.path).ok();
        let held = lock.metadata().map_err(CheckpointError::System)?;
        let same = named.is_some_and(|it| (it.dev(), it.ino()) == (held.dev(), held.ino()));
        Ok(same.then_some(Hold(lock)))
    }

    /// Returns the slot of the checkpoint.
    #[must_use]
    pub fn slot(&self) -> u64 {
        self.manifest.position.slot
    }

    /// Reads all files and checks them against the manifest. `progress` is called with the number
    /// of bytes of each read.
    ///
    /// # Errors
    /// Names the first bad file, in the order of paths.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<(), CheckpointError> {
        verify(&self.path, &self.manifest, progress)
    }
}

/// Returns a name that nothing else in the directory has.
pub(super) fn temporary_name(prefix: &str) -> String {
    let count = TEMPORARY_NAMES.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{}-{count}", std::process::id())
}

/// Locks a directory exclusively; `None` if another process has a lock on it.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    let file = File::open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Returns the slot in the name of a checkpoint.
fn slot_of(name: &str) -> Option<u64> {
    let digits = name.len() == SLOT_DIGITS && name.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| name.parse().ok()).flatten()
}

/// Reads the manifest of a checkpoint and checks its parts, without reading their contents.
fn load(path: &Path, slot: u64) -> Result<Checkpoint, CheckpointError> {
    let manifest = Manifest::load(path)?;
    if manifest.position.slot != slot {
        let what = format!("it is of slot {}", manifest.position.slot);
        return Err(CheckpointError::corrupt(path, what));
    }
    for part in &manifest.parts {
        check_metadata(path, part)?;
    }
    let path = path.to_path_buf();
    Ok(Checkpoint { path, manifest })
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
