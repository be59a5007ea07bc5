//! A checkpoint as a single stream: a tar archive, compressed with zstd, whose first file is the
//! manifest. An import checks all parts against the manifest; the checksum of the zstd frame is checked
//! as well.
//!
//! Every tool that can list and unpack `.tar.zst` files can be used on it.

use crate::error::CheckpointError;
use crate::store::directory::{Checkpoint, Directory};
use crate::store::manifest::{self, Manifest, PartKind, is_inside};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Default compression level of zstd: some hundred megabytes per second.
pub const LEVEL_DEFAULT: i32 = 3;
/// Mode of all entries.
const MODE: u32 = 0o600;

/// Writes `checkpoint` to `out`. `progress` is called with the number of bytes of each read.
///
/// # Errors
/// The checkpoint cannot be read, `out` cannot be written, or a file has changed its length.
pub fn export(
    checkpoint: &Checkpoint,
    out: impl Write,
    level: i32,
    progress: &mut dyn FnMut(u64),
) -> Result<(), CheckpointError> {
    let path = &checkpoint.path;
    let written = || -> io::Result<()> {
        let mut encoder = zstd::Encoder::new(out, level)?;
        encoder.include_checksum(true)?;
        let mut tar = tar::Builder::new(encoder);
        append_file(&mut tar, path, Path::new(manifest::FILE_NAME), progress)?;
        for part in &checkpoint.manifest.parts {
            match &part.kind {
                PartKind::File { .. } => append_file(&mut tar, path, &part.path, progress)?,
                PartKind::Directory => {
                    let mut header = header(tar::EntryType::Directory, 0);
                    tar.append_data(&mut header, &part.path, io::empty())?;
                }
                PartKind::Link { target } => {
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
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let file = File::open(directory.join(inner))?;
    let bytes = file.metadata()?.len();
    let mut header = header(tar::EntryType::Regular, bytes);
    // No more than the header says, even if the file grows; less is an error of the archive.
    let counted = Counted {
        inner: file.take(bytes),
        progress,
    };
    tar.append_data(&mut header, inner, counted)
}

/// Reads a checkpoint from `input` into `directory` and verifies all of it. `progress` is called with
/// the number of bytes of each read. `name` stands for the stream in errors.
///
/// # Errors
/// A truncated or damaged stream is [`CheckpointError::Corrupt`]. Nothing is left of it then.
pub fn import(
    directory: &Directory,
    input: impl Read,
    name: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Checkpoint, CheckpointError> {
    let broken = |error: io::Error| CheckpointError::corrupt(name, error.to_string());
    let mut archive = tar::Archive::new(zstd::Decoder::new(input).map_err(broken)?);
    let mut entries = archive.entries().map_err(broken)?;
    let manifest = match entries.next() {
        Some(first) => read_manifest(&mut first.map_err(broken)?, name)?,
        None => return Err(CheckpointError::corrupt(name, "it is empty")),
    };
    let staged = directory.stage(manifest.position.slot)?;
    let mut missing: BTreeSet<PathBuf> = manifest
        .parts
        .iter()
        .map(|part| part.path.clone())
        .collect();
    for entry in entries {
        let mut entry = entry.map_err(broken)?;
        let inner = entry.path().map_err(broken)?.into_owned();
        if !is_inside(&inner) || !missing.remove(&inner) {
            let what = format!(
                "it holds {}, which its manifest does not list",
                inner.display()
            );
            return Err(CheckpointError::corrupt(name, what));
        }
        unpack(&mut entry, &staged.path().join(&inner), name, progress)?;
    }
    // The checksum of the frame is at its very end. Missing parts are found by the verification.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    staged.commit_as(&manifest, progress)
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
    progress: &mut dyn FnMut(u64),
) -> Result<(), CheckpointError> {
    let broken = |error: io::Error| CheckpointError::corrupt(name, error.to_string());
    let unwritable = || CheckpointError::file("write", path);
    if let Some(parent) = path.parent() {
        // The manifest lists all parents as directories, so none of them is a link.
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
            copy(entry, &mut file, progress, broken, unwritable())
        }
    }
}

/// Copies all bytes. A failure to read is reported by `broken`, a failure to write by `unwritable`.
fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    progress: &mut dyn FnMut(u64),
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
        progress(count as u64);
    }
}

/// A reader that reports its progress.
struct Counted<'a, R> {
    inner: R,
    progress: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.progress)(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
