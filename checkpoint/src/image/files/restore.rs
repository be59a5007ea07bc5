//! Restores a tree from a snapshot.

use super::index::{Entry, EntryKind, Index, content_path, joined};
use super::{attributes, content};
use crate::error::with_path;
use crate::image::compressed_file;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// Restores the tree `name` of the snapshot in `directory` at `top`; what exists there is removed.
///
/// # Errors
/// There is no such tree, or a file cannot be created; `top` is incomplete then.
pub fn restore(index: &Index, directory: &Path, name: &str, top: &Path) -> io::Result<()> {
    let tree = index.trees.iter().position(|tree| tree == name);
    let tree = tree.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("no tree {name} in the snapshot"),
        )
    })?;
    remove(top).map_err(with_path(top))?;
    let in_tree = |entry: &&Entry| usize::from(entry.tree) == tree;
    for entry in index.entries.iter().filter(in_tree) {
        let at = path_of(top, entry);
        create(index, directory, top, entry, &at).map_err(with_path(&at))?;
    }
    // Times of directories last, innermost first: creating files in a directory changes its times.
    for entry in index.entries.iter().rev().filter(in_tree) {
        if entry.kind == EntryKind::Directory {
            let at = path_of(top, entry);
            set_times(&at, entry).map_err(with_path(&at))?;
        }
    }
    Ok(())
}

fn remove(top: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(top) {
        Ok(file) if file.is_dir() => fs::remove_dir_all(top),
        Ok(_) => fs::remove_file(top),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn path_of(top: &Path, entry: &Entry) -> PathBuf {
    joined(top, &entry.path)
}

fn create(index: &Index, directory: &Path, top: &Path, entry: &Entry, at: &Path) -> io::Result<()> {
    match &entry.kind {
        EntryKind::Directory => fs::create_dir(at)?,
        EntryKind::File { content, .. } => {
            let path = content_path(directory, *content);
            if !compressed_file::decompress(&path, at, entry.mode)? {
                content::copy(&mut File::open(path)?, at, entry.mode)?;
            }
        }
        EntryKind::HardLink { entry: first } => {
            let first = usize::try_from(*first)
                .ok()
                .and_then(|ix| index.entries.get(ix));
            let first = first.ok_or(io::ErrorKind::InvalidData)?;
            // Trees may be on different file systems, so a hard link never crosses them.
            if first.tree != entry.tree {
                return Err(io::ErrorKind::InvalidData.into());
            }
            return fs::hard_link(path_of(top, first), at);
        }
        EntryKind::Link { target } => symlink(OsStr::from_bytes(target), at)?,
        EntryKind::Special { kind, device } => {
            let kind = SFlag::from_bits_truncate(*kind);
            mknod(at, kind, Mode::from_bits_truncate(entry.mode), *device)?;
        }
    }
    lchown(at, Some(entry.user), Some(entry.group))?;
    for (name, value) in &entry.attributes {
        attributes::set(at, name, value)?;
    }
    if !matches!(entry.kind, EntryKind::Link { .. }) {
        fs::set_permissions(at, Permissions::from_mode(entry.mode))?;
    }
    set_times(at, entry)
}

fn set_times(at: &Path, entry: &Entry) -> io::Result<()> {
    let time = TimeSpec::new(entry.modified.0, entry.modified.1);
    let follow = UtimensatFlags::NoFollowSymlink;
    Ok(utimensat(nix::fcntl::AT_FDCWD, at, &time, &time, follow)?)
}
