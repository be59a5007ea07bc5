//! A replica's checkpoints on disk.
//!
//! ```text
//! DIRECTORY/00000000000000000123/          the checkpoint of slot 123
//!     manifest
//!     …                                    its parts
//! DIRECTORY/new-00000000000000000150-…/    one that is being written, or was when somebody died
//! ```
//!
//! # Model
//!
//! A checkpoint begins as a *staged* directory that its writer holds locked. [`Staged::commit`] hashes
//! and syncs every part, writes the manifest, reads all of it back, and gives the directory its name.
//! So a directory with the name of a slot was whole once, and a staged one that nobody holds was left
//! by somebody who died: it may go.
//!
//! # Invariants
//!
//! * Nothing is ever changed in a checkpoint that has its name.
//! * A checkpoint that is removed loses its name first: half of one never has the name of a slot.
//! * One that is held ([`Checkpoint::hold`]) is not removed.
//! * Several processes may use a directory at once; the first to finish a slot has it.
//!
//! Deliberately absent: what the parts mean.

use crate::error::CheckpointError;
use crate::store::fingerprint::Identity;
use crate::store::manifest::{self, Kind, Manifest, Part, Position, hash_file};
use nix::fcntl::{Flock, FlockArg};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Digits of a slot in a name: names sort as slots do.
pub(crate) const SLOT_DIGITS: usize = 20;
const STAGED: &str = "new-";
const REMOVED: &str = "old-";
/// How often a place is looked for before somebody is in the way on purpose.
const STAGE_TRIES: u32 = 100;

/// Counts what this process has begun, so that names differ.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// The checkpoints of one replica.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

/// One that is whole as far as can be told without reading all of it.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its directory.
    pub path: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// What a listing finds.
#[derive(Debug, Default)]
pub struct Listing {
    /// The newest first.
    pub whole: Vec<Checkpoint>,
    /// What has the name of a checkpoint and is none, and why.
    pub damaged: Vec<(PathBuf, CheckpointError)>,
}

/// A checkpoint that is being written. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    pub(crate) directory: PathBuf,
    pub(crate) path: PathBuf,
    pub(crate) slot: u64,
    /// Held so that nobody takes it for a dead one's.
    pub(crate) _lock: Flock<File>,
}

/// What the writer of a checkpoint says about it.
#[derive(Clone, Debug)]
pub struct About {
    /// The cluster it belongs to.
    pub cluster: u128,
    /// The node that took it.
    pub node: u64,
    /// Where in the log it was taken.
    pub position: Position,
    /// What it may be restored by.
    pub identity: Identity,
}

impl Directory {
    /// Makes the directory if it is missing, and removes what dead writers have left in it.
    ///
    /// # Errors
    /// It cannot be made or read.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CheckpointError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(CheckpointError::file("create", &path))?;
        let directory = Self { path };
        directory.clean_up()?;
        Ok(directory)
    }

    /// One that is there, to be read: nothing in it is changed.
    #[must_use]
    pub fn existing(path: impl Into<PathBuf>) -> Option<Self> {
        let path = path.into();
        path.is_dir().then_some(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

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

    /// Removes what was being written or removed when somebody died. What a living process is at
    /// stays.
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
            // Gone or in use: both are fine. The lock is held until it is gone.
            let Ok(Some(_lock)) = try_lock(&path) else {
                continue;
            };
            fs::remove_dir_all(&path).map_err(CheckpointError::file("remove", &path))?;
            removed.push(path);
        }
        Ok(removed)
    }

    /// Begins a checkpoint of `slot`.
    ///
    /// # Errors
    /// There is one already, or the directory cannot be written.
    pub fn stage(&self, slot: u64) -> Result<Staged, CheckpointError> {
        if self.of(slot).exists() {
            return Err(CheckpointError::Exists(slot));
        }
        for _ in 0..STAGE_TRIES {
            let count = BEGUN.fetch_add(1, Ordering::Relaxed);
            let name = format!(
                "{STAGED}{slot:0SLOT_DIGITS$}-{}-{count}",
                std::process::id()
            );
            let path = self.path.join(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(CheckpointError::file("create", &path))?,
            }
            // Somebody who cleans up may have been quicker: then it is gone, or locked.
            if let Ok(Some(lock)) = try_lock(&path)
                && path.exists()
            {
                return Ok(Staged {
                    directory: self.path.clone(),
                    path,
                    slot,
                    _lock: lock,
                });
            }
        }
        let busy = io::Error::other("others keep removing what is begun in it");
        Err(CheckpointError::file("use", &self.path)(busy))
    }

    pub(crate) fn of(&self, slot: u64) -> PathBuf {
        self.path.join(format!("{slot:0SLOT_DIGITS$}"))
    }

    /// All checkpoints, the newest first, with what is damaged in an obvious way apart: a manifest that
    /// cannot be read, a part that is missing or has another length. [`Checkpoint::verify`] reads all.
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
            match look(&path, slot) {
                Ok(checkpoint) => listing.whole.push(checkpoint),
                // Removed meanwhile, by another process.
                Err(_) if !path.exists() => {}
                Err(error) => listing.damaged.push((path, error)),
            }
        }
        Ok(listing)
    }

    /// Removes all but the newest `keep` that are whole, and what is damaged if `keep` are whole; one
    /// that somebody reads stays until the next time. Gives what was removed.
    ///
    /// # Errors
    /// Something cannot be removed.
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

    /// Removes a checkpoint, after it has lost its name; false: somebody reads it, and it stays.
    ///
    /// # Errors
    /// It cannot be removed; it may have lost its name.
    pub fn remove(&self, path: &Path) -> Result<bool, CheckpointError> {
        let _lock = match try_lock(path) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(false),
            // Another process was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(CheckpointError::file("lock", path)(error)),
        };
        let count = BEGUN.fetch_add(1, Ordering::Relaxed);
        let name = format!("{REMOVED}{}-{count}", std::process::id());
        let aside = self.path.join(name);
        fs::rename(path, &aside).map_err(CheckpointError::file("rename", path))?;
        fs::remove_dir_all(&aside).map_err(CheckpointError::file("remove", &aside))?;
        Ok(true)
    }
}

/// Keeps a checkpoint from being removed.
#[derive(Debug)]
#[must_use]
pub struct Hold(#[expect(dead_code, reason = "it is there to be dropped")] Flock<File>);

impl Checkpoint {
    /// Nobody removes it as long as what is returned lives, in this process or another; `None`: it is
    /// being removed.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn hold(&self) -> Result<Option<Hold>, CheckpointError> {
        let failed = CheckpointError::file("open", &self.path);
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let Ok(lock) = Flock::lock(file, FlockArg::LockSharedNonblock) else {
            return Ok(None);
        };
        // It may have lost its name between the two.
        let named = fs::metadata(&self.path).ok();
        let held = lock.metadata().map_err(CheckpointError::System)?;
        let same = named.is_some_and(|it| (it.dev(), it.ino()) == (held.dev(), held.ino()));
        Ok(same.then_some(Hold(lock)))
    }

    /// Its slot.
    #[must_use]
    pub fn slot(&self) -> u64 {
        self.manifest.position.slot
    }

    /// Reads all of it. `seen` is told how many more bytes were read.
    ///
    /// # Errors
    /// Names the first bad file, in the order of paths.
    pub fn verify(&self, seen: &mut dyn FnMut(u64)) -> Result<(), CheckpointError> {
        verify(&self.path, &self.manifest, seen)
    }
}

impl Staged {
    /// Where the parts go.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it a checkpoint: hashes and syncs every part, writes the manifest, reads everything back,
    /// and names it. `seen` is told how many more bytes were dealt with: each byte twice.
    ///
    /// # Errors
    /// Nothing is left then; the last good checkpoint is what it was.
    pub fn commit(
        self,
        about: About,
        seen: &mut dyn FnMut(u64),
    ) -> Result<Checkpoint, CheckpointError> {
        assert_eq!(about.position.slot, self.slot, "staged for another slot");
        let mut parts = Vec::new();
        seal(&self.path, Path::new(""), &mut parts, seen)?;
        parts.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        self.check_shared(&parts)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let manifest = Manifest {
            cluster: about.cluster,
            node: about.node,
            position: about.position,
            identity: about.identity,
            taken_at: now.unwrap_or_default().as_secs(),
            parts,
        };
        self.publish(&manifest, seen)
    }

    /// What this one shares with another by a hard link was checked then: it has to be as it was, or
    /// damage there would be vouched for here.
    fn check_shared(&self, parts: &[Part]) -> Result<(), CheckpointError> {
        let path = self.directory.clone();
        let mut known = HashMap::new();
        for other in (Directory { path }).list()?.whole {
            for part in other.manifest.parts {
                if let Some(file) = shared_file(&other.path.join(&part.path)) {
                    known.insert(file, (part.bytes, part.kind));
                }
            }
        }
        for part in parts {
            let path = self.path.join(&part.path);
            let before = shared_file(&path).and_then(|file| known.get(&file));
            if before.is_some_and(|before| *before != (part.bytes, part.kind.clone())) {
                let what = "it is shared with an earlier checkpoint and was damaged since";
                return Err(CheckpointError::corrupt(&path, what));
            }
        }
        Ok(())
    }

    /// As [`Staged::commit`], for parts that were fetched: they have to be what `manifest` says.
    ///
    /// # Errors
    /// Names the first bad file; nothing is left then.
    pub fn commit_as(
        self,
        manifest: &Manifest,
        seen: &mut dyn FnMut(u64),
    ) -> Result<Checkpoint, CheckpointError> {
        assert_eq!(manifest.position.slot, self.slot, "staged for another slot");
        let mut parts = Vec::new();
        seal(&self.path, Path::new(""), &mut parts, seen)?;
        self.publish(manifest, seen)
    }

    pub(crate) fn publish(
        self,
        manifest: &Manifest,
        seen: &mut dyn FnMut(u64),
    ) -> Result<Checkpoint, CheckpointError> {
        let path = self.path.join(manifest::FILE_NAME);
        let bytes = manifest.encode()?;
        write_synced(&path, &bytes).map_err(CheckpointError::file("write", &path))?;
        sync_directory(&self.path)?;
        let manifest = Manifest::load(&self.path)?;
        verify(&self.path, &manifest, seen)?;
        let name = self.directory.join(format!("{:0SLOT_DIGITS$}", self.slot));
        match fs::rename(&self.path, &name) {
            // Another writer was quicker: a directory is not renamed over one that is not empty.
            Err(_) if name.exists() => return Err(CheckpointError::Exists(self.slot)),
            other => other.map_err(CheckpointError::file("rename", &self.path))?,
        }
        sync_directory(&self.directory)?;
        Ok(Checkpoint {
            path: name,
            manifest,
        })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // It is gone when it was named; what cannot be removed now is removed by the next who opens the
        // directory.
        if self.path.exists() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Device and inode of a file that has several names.
fn shared_file(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let shared = metadata.is_file() && metadata.nlink() > 1;
    shared.then(|| (metadata.dev(), metadata.ino()))
}

/// The lock on a directory, if it is there and nobody has it.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    let file = File::open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn slot_of(name: &str) -> Option<u64> {
    let digits = name.len() == SLOT_DIGITS && name.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| name.parse().ok()).flatten()
}

fn look(path: &Path, slot: u64) -> Result<Checkpoint, CheckpointError> {
    let manifest = Manifest::load(path)?;
    if manifest.position.slot != slot {
        let what = format!("it is of slot {}", manifest.position.slot);
        return Err(CheckpointError::corrupt(path, what));
    }
    for part in &manifest.parts {
        check_shape(path, part)?;
    }
    let path = path.to_path_buf();
    Ok(Checkpoint { path, manifest })
}

/// Whether a part is there and of the right kind and length.
fn check_shape(directory: &Path, part: &Part) -> Result<(), CheckpointError> {
    let path = directory.join(&part.path);
    let bad = |what: &str| Err(CheckpointError::corrupt(&path, what));
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return bad("it is missing"),
        Err(error) => return Err(CheckpointError::file("look at", &path)(error)),
    };
    match &part.kind {
        Kind::File { .. } if !found.is_file() => bad("it is not a file"),
        Kind::File { .. } if found.len() != part.bytes => bad(&format!(
            "it has {} bytes instead of {}",
            found.len(),
            part.bytes
        )),
        Kind::Directory if !found.is_dir() => bad("it is not a directory"),
        Kind::Link { .. } if !found.is_symlink() => bad("it is not a symbolic link"),
        Kind::Link { target } if fs::read_link(&path).ok().as_ref() != Some(target) => {
            bad("it points elsewhere")
        }
        _ => Ok(()),
    }
}

fn verify(
    directory: &Path,
    manifest: &Manifest,
    seen: &mut dyn FnMut(u64),
) -> Result<(), CheckpointError> {
    for part in &manifest.parts {
        check_shape(directory, part)?;
        let Kind::File { hash } = part.kind else {
            continue;
        };
        let path = directory.join(&part.path);
        let read = hash_file(&path, seen).map_err(CheckpointError::file("read", &path))?;
        if read != (part.bytes, hash) {
            return Err(CheckpointError::corrupt(&path, "its checksum is wrong"));
        }
    }
    Ok(())
}

/// Hashes and syncs everything below `directory/inner`, contents before the directories that name them.
fn seal(
    directory: &Path,
    inner: &Path,
    parts: &mut Vec<Part>,
    seen: &mut dyn FnMut(u64),
) -> Result<(), CheckpointError> {
    let here = directory.join(inner);
    let failed = || CheckpointError::file("read", &here);
    for entry in fs::read_dir(&here).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let path = inner.join(entry.file_name());
        let full = entry.path();
        let kind = entry
            .file_type()
            .map_err(CheckpointError::file("look at", &full))?;
        let mut part = Part {
            path,
            bytes: 0,
            kind: Kind::Directory,
        };
        if kind.is_dir() {
            seal(directory, &part.path, parts, seen)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(CheckpointError::file("read", &full))?;
            part.kind = Kind::Link { target };
        } else if kind.is_file() {
            let read = sync_and_hash(&full, seen);
            let (bytes, hash) = read.map_err(CheckpointError::file("sync", &full))?;
            part.bytes = bytes;
            part.kind = Kind::File { hash };
        } else {
            let what = "it is neither a file, a directory nor a symbolic link";
            return Err(CheckpointError::corrupt(&full, what));
        }
        parts.push(part);
    }
    sync_directory(&here)
}

fn sync_and_hash(path: &Path, seen: &mut dyn FnMut(u64)) -> io::Result<(u64, u128)> {
    File::open(path)?.sync_all()?;
    hash_file(path, seen)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub(crate) fn sync_directory(path: &Path) -> Result<(), CheckpointError> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(CheckpointError::file("sync", path))
}

#[cfg(test)]
#[path = "directory_tests.rs"]
pub(crate) mod tests;
