//! A checkpoint as a single stream: a tar archive, compressed with zstd, whose first file is the
//! manifest. An import checks all parts against the manifest; the checksum of the zstd frame is
//! checked as well.
//!
//! Every tool that can list and unpack `.tar.zst` files can be used on it.

use crate::error::CheckpointError;
use crate::store::directory::{Checkpoint, Directory};
use crate::store::manifest::{self, Manifest, Part, PartKind};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Default compression level of zstd: some hundred megabytes per second.
pub const LEVEL_DEFAULT: i32 = 3;
/// More bytes than an archive needs beside its parts: its end, and what other tools add there.
const OVERHEAD_BYTES_MAX: u64 = 1 << 20;
/// More bytes than the headers of one part need, with long names and padding.
const PART_OVERHEAD_BYTES_MAX: u64 = 32 << 10;
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

/// Reads a checkpoint from `input` into `directory` and verifies all of it. `progress` is called
/// with the number of bytes of each read. `name` stands for the stream in errors.
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
    let left = Cell::new(manifest::BYTES_MAX + OVERHEAD_BYTES_MAX);
    let decoder = zstd::Decoder::new(input).map_err(broken)?;
    let mut archive = tar::Archive::new(Limited {
        inner: decoder,
        left: &left,
    });
    let mut entries = archive.entries().map_err(broken)?;
    let manifest = match entries.next() {
        Some(first) => read_manifest(&mut first.map_err(broken)?, name)?,
        None => return Err(CheckpointError::corrupt(name, "it is empty")),
    };
    left.set(stream_bytes_max(&manifest));
    let staged = directory.stage(manifest.position.slot)?;
    let parts = manifest.parts.iter();
    let mut missing: BTreeMap<&Path, &Part> =
        parts.map(|part| (part.path.as_path(), part)).collect();
    for entry in entries {
        let mut entry = entry.map_err(broken)?;
        let inner = entry.path().map_err(broken)?.into_owned();
        let Some(part) = missing.remove(inner.as_path()) else {
            let what = format!(
                "it holds {}, which its manifest does not list",
                inner.display()
            );
            return Err(CheckpointError::corrupt(name, what));
        };
        unpack(&mut entry, part, staged.path(), name, progress)?;
    }
    // The checksum of the frame is at its very end. Missing parts are found by the verification.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    staged.commit_as(&manifest, progress)
}

/// An upper bound of the length of an archive: contents, and headers with long names.
fn stream_bytes_max(manifest: &Manifest) -> u64 {
    let headers = manifest.parts.len() as u64 * PART_OVERHEAD_BYTES_MAX;
    manifest
        .bytes()
        .saturating_add(headers)
        .saturating_add(OVERHEAD_BYTES_MAX)
}

fn read_manifest(
    entry: &mut tar::Entry<'_, impl Read>,
    name: &Path,
) -> Result<Manifest, CheckpointError> {
    if entry.size() > manifest::BYTES_MAX {
        let what = format!("a manifest of {} bytes is too large", entry.size());
        return Err(CheckpointError::corrupt(name, what));
    }
    let mut bytes = Vec::new();
    let read = entry.read_to_end(&mut bytes);
    read.map_err(|error| CheckpointError::corrupt(name, error.to_string()))?;
    Manifest::decode(&bytes, name)
}

/// Creates one part in `directory`. It has to be of the type that the manifest says, so that
/// nothing is ever written through a link.
fn unpack(
    entry: &mut tar::Entry<'_, impl Read>,
    part: &Part,
    directory: &Path,
    name: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(), CheckpointError> {
    let path = &directory.join(&part.path);
    let broken = |error: io::Error| CheckpointError::corrupt(name, error.to_string());
    let unwritable = || CheckpointError::file("write", path);
    let bad = |what| {
        let what = format!("{} {what}", part.path.display());
        Err(CheckpointError::corrupt(name, what))
    };
    if let Some(parent) = path.parent() {
        // The manifest lists all parents as directories, so none of them is a link.
        fs::create_dir_all(parent).map_err(unwritable())?;
    }
    match (&part.kind, entry.header().entry_type()) {
        (PartKind::Directory, tar::EntryType::Directory) => {
            fs::create_dir_all(path).map_err(unwritable())
        }
        (PartKind::Link { .. }, tar::EntryType::Symlink) => {
            let target = entry.link_name().map_err(broken)?;
            let target = target.ok_or_else(|| broken(io::ErrorKind::InvalidData.into()))?;
            std::os::unix::fs::symlink(&target, path).map_err(unwritable())
        }
        (PartKind::Directory | PartKind::Link { .. }, _)
        | (_, tar::EntryType::Directory | tar::EntryType::Symlink) => {
            bad("is of another type than its manifest says")
        }
        (PartKind::File { .. }, _) if entry.size() > part.bytes => {
            bad("is longer than its manifest says")
        }
        (PartKind::File { .. }, _) => {
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

/// A reader that fails after a number of bytes: a damaged stream must not fill the memory.
struct Limited<'a, R> {
    inner: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(count as u64);
        let too_long = || io::Error::new(io::ErrorKind::InvalidData, "it is longer than its parts");
        self.left.set(left.ok_or_else(too_long)?);
        Ok(count)
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
