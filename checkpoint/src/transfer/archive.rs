//! A checkpoint as one stream: a tar archive, compressed with zstd, that begins with the manifest. Its
//! parts are checked against the manifest when it is taken in; the frame's own checksum comes on top.
//!
//! Anything that can list and unpack `.tar.zst` files can look into one.

use crate::error::CheckpointError;
use crate::store::directory::{Checkpoint, Directory};
use crate::store::manifest::{self, Kind, Manifest, is_inside};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Default strength of the compression: what zstd calls 3, at some hundred megabytes per second.
pub const LEVEL_DEFAULT: i32 = 3;
const MODE: u32 = 0o600;

/// Writes `checkpoint` to `out`. `seen` is told how many more bytes of it were read.
///
/// # Errors
/// It cannot be read, `out` cannot be written, or it has changed its length.
pub fn export(
    checkpoint: &Checkpoint,
    out: impl Write,
    level: i32,
    seen: &mut dyn FnMut(u64),
) -> Result<(), CheckpointError> {
    let path = &checkpoint.path;
    let written = || -> io::Result<()> {
        let mut encoder = zstd::Encoder::new(out, level)?;
        encoder.include_checksum(true)?;
        let mut tar = tar::Builder::new(encoder);
        append_file(&mut tar, path, Path::new(manifest::FILE_NAME), seen)?;
        for part in &checkpoint.manifest.parts {
            match &part.kind {
                Kind::File { .. } => append_file(&mut tar, path, &part.path, seen)?,
                Kind::Directory => {
                    let mut header = header(tar::EntryType::Directory, 0);
                    tar.append_data(&mut header, &part.path, io::empty())?;
                }
                Kind::Link { target } => {
                    let mut header = header(tar::EntryType::Symlink, 0);
                    tar.append_link(&mut header, &part.path, target)?;
                }
            }
        }
        tar.into_inner()?.finish()?.flush()
    };
    written().map_err(CheckpointError::file("export", path))
}

fn header(kind: tar::EntryType, bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(bytes);
    header.set_mode(MODE);
    header
}

fn append_file(
    tar: &mut tar::Builder<impl Write>,
    directory: &Path,
    inner: &Path,
    seen: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let file = File::open(directory.join(inner))?;
    let bytes = file.metadata()?.len();
    let mut header = header(tar::EntryType::Regular, bytes);
    // No more than was promised, also when it grows; less is an error of the archive's.
    let counted = Counted {
        inner: file.take(bytes),
        seen,
    };
    tar.append_data(&mut header, inner, counted)
}

/// Takes a checkpoint from `input` into `directory`, all of it verified. `seen` is told how many more
/// bytes came.
///
/// # Errors
/// Nothing is left then. A stream that is cut or damaged is [`CheckpointError::Corrupt`].
pub fn import(
    directory: &Directory,
    input: impl Read,
    name: &Path,
    seen: &mut dyn FnMut(u64),
) -> Result<Checkpoint, CheckpointError> {
    let broken = |error: io::Error| CheckpointError::corrupt(name, error.to_string());
    let mut archive = tar::Archive::new(zstd::Decoder::new(input).map_err(broken)?);
    let mut entries = archive.entries().map_err(broken)?;
    let manifest = match entries.next() {
        Some(first) => read_manifest(&mut first.map_err(broken)?, name)?,
        None => return Err(CheckpointError::corrupt(name, "it is empty")),
    };
    let staged = directory.stage(manifest.position.slot)?;
    let mut wanted: BTreeSet<PathBuf> = manifest
        .parts
        .iter()
        .map(|part| part.path.clone())
        .collect();
    for entry in entries {
        let mut entry = entry.map_err(broken)?;
        let inner = entry.path().map_err(broken)?.into_owned();
        if !is_inside(&inner) || !wanted.remove(&inner) {
            let what = format!(
                "it holds {}, which its manifest does not name",
                inner.display()
            );
            return Err(CheckpointError::corrupt(name, what));
        }
        unpack(&mut entry, &staged.path().join(&inner), name, seen)?;
    }
    // The frame's checksum is at its very end. What is missing is named when everything is verified.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    staged.commit_as(&manifest, seen)
}

fn read_manifest(entry: &mut impl Read, name: &Path) -> Result<Manifest, CheckpointError> {
    let mut bytes = Vec::new();
    let read = entry.read_to_end(&mut bytes);
    read.map_err(|error| CheckpointError::corrupt(name, error.to_string()))?;
    Manifest::decode(&bytes, name)
}

fn unpack(
    entry: &mut tar::Entry<'_, impl Read>,
    path: &Path,
    name: &Path,
    seen: &mut dyn FnMut(u64),
) -> Result<(), CheckpointError> {
    let broken = |error: io::Error| CheckpointError::corrupt(name, error.to_string());
    let unwritable = || CheckpointError::file("write", path);
    if let Some(parent) = path.parent() {
        // By the manifest all of them are directories, never links.
        fs::create_dir_all(parent).map_err(unwritable())?;
    }
    match entry.header().entry_type() {
        tar::EntryType::Directory => fs::create_dir_all(path).map_err(unwritable()),
        tar::EntryType::Symlink => {
            let target = entry.link_name().map_err(broken)?;
            let target = target.ok_or_else(|| broken(io::ErrorKind::InvalidData.into()))?;
            std::os::unix::fs::symlink(&target, path).map_err(unwritable())
        }
        _ => {
            let mut file = File::options();
            let mut file = file
                .create_new(true)
                .write(true)
                .open(path)
                .map_err(unwritable())?;
            copy(entry, &mut file, seen, broken, unwritable())
        }
    }
}

/// Copies, and tells who is to blame when it fails.
fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    seen: &mut dyn FnMut(u64),
    broken: impl Fn(io::Error) -> CheckpointError,
    unwritable: impl FnOnce(io::Error) -> CheckpointError,
) -> Result<(), CheckpointError> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(error)),
        };
        if let Err(error) = to.write_all(&buffer[..count]) {
            return Err(unwritable(error));
        }
        seen(count as u64);
    }
}

struct Counted<'a, R> {
    inner: R,
    seen: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.seen)(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
