//! Seals the files of a checkpoint, and checks them against a manifest.

use crate::error::CheckpointError;
use crate::store::hash::hash_file;
use crate::store::manifest::{Manifest, Part, PartKind};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Checks that a part exists and has the right type and length.
pub(super) fn check_metadata(directory: &Path, part: &Part) -> Result<(), CheckpointError> {
    let path = directory.join(&part.path);
    let bad = |what: &str| Err(CheckpointError::corrupt(&path, what));
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return bad("it is missing"),
        Err(error) => return Err(CheckpointError::file("look at", &path)(error)),
    };
    match &part.kind {
        PartKind::File { .. } if !found.is_file() => bad("it is not a file"),
        PartKind::File { .. } if found.len() != part.bytes => bad(&format!(
            "it has {} bytes instead of {}",
            found.len(),
            part.bytes
        )),
        PartKind::Directory if !found.is_dir() => bad("it is not a directory"),
        PartKind::Link { .. } if !found.is_symlink() => bad("it is not a symbolic link"),
        PartKind::Link { target } if fs::read_link(&path).ok().as_ref() != Some(target) => {
            bad("it points elsewhere")
        }
        _ => Ok(()),
    }
}

/// Reads all parts and checks them against the manifest.
pub(super) fn verify(
    directory: &Path,
    manifest: &Manifest,
    progress: &mut dyn FnMut(u64),
) -> Result<(), CheckpointError> {
    for part in &manifest.parts {
        check_metadata(directory, part)?;
        let PartKind::File { hash } = part.kind else {
            continue;
        };
        let path = directory.join(&part.path);
        let read = hash_file(&path, progress).map_err(CheckpointError::file("read", &path))?;
        if read != (part.bytes, hash) {
            return Err(CheckpointError::corrupt(&path, "its checksum is wrong"));
        }
    }
    Ok(())
}

/// Hashes and syncs everything below `directory/inner` and appends it to `parts`. Contents are
/// synced before the directories that name them.
pub(super) fn seal(
    directory: &Path,
    inner: &Path,
    parts: &mut Vec<Part>,
    progress: &mut dyn FnMut(u64),
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
            kind: PartKind::Directory,
        };
        if kind.is_dir() {
            seal(directory, &part.path, parts, progress)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(CheckpointError::file("read", &full))?;
            part.kind = PartKind::Link { target };
        } else if kind.is_file() {
            let read = sync_and_hash(&full, progress);
            let (bytes, hash) = read.map_err(CheckpointError::file("sync", &full))?;
            part.bytes = bytes;
            part.kind = PartKind::File { hash };
        } else {
            let what = "it is neither a file, a directory nor a symbolic link";
            return Err(CheckpointError::corrupt(&full, what));
        }
        parts.push(part);
    }
    sync_directory(&here)
}

fn sync_and_hash(path: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<(u64, u128)> {
    File::open(path)?.sync_all()?;
    hash_file(path, progress)
}

/// Syncs the names in a directory.
pub(crate) fn sync_directory(path: &Path) -> Result<(), CheckpointError> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(CheckpointError::file("sync", path))
}
