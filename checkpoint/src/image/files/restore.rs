//! Bringing a snapshot back.

use super::index::{Entry, Index, Kind, content_path, joined};
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

/// Makes the tree `name` of the snapshot in `directory` again at `top`; what is there is wiped.
///
/// # Errors
/// There is no such tree, or a file cannot be made; `top` is incomplete then.
pub fn bring_back(index: &Index, directory: &Path, name: &str, top: &Path) -> io::Result<()> {
    let tree = index.trees.iter().position(|tree| tree == name);
    let tree =
        tree.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no files of {name}")))?;
    wipe(top).map_err(with_path(top))?;
    let mine = |entry: &&Entry| usize::from(entry.tree) == tree;
    for entry in index.entries.iter().filter(mine) {
        let at = place(top, entry);
        make(index, directory, top, entry, &at).map_err(with_path(&at))?;
    }
    // Directories last, innermost first: making things in them changes their times.
    for entry in index.entries.iter().rev().filter(mine) {
        if entry.kind == Kind::Directory {
            let at = place(top, entry);
            set_times(&at, entry).map_err(with_path(&at))?;
        }
    }
    Ok(())
}

fn wipe(top: &Path) -> io::Result<()> {
    let wiped = match fs::symlink_metadata(top) {
        Ok(file) if file.is_dir() => fs::remove_dir_all(top),
        Ok(_) => fs::remove_file(top),
        Err(error) => Err(error),
    };
    match wiped {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn place(top: &Path, entry: &Entry) -> PathBuf {
    joined(top, &entry.path)
}

fn make(index: &Index, directory: &Path, top: &Path, entry: &Entry, at: &Path) -> io::Result<()> {
    match &entry.kind {
        Kind::Directory => fs::create_dir(at)?,
        Kind::File { content, .. } => {
            let path = content_path(directory, *content);
            if !compressed_file::expand(&path, at, entry.mode)? {
                content::copy(&mut File::open(path)?, at, entry.mode)?;
            }
        }
        Kind::Again { entry: first } => {
            let first = usize::try_from(*first)
                .ok()
                .and_then(|ix| index.entries.get(ix));
            let first = first.ok_or(io::ErrorKind::InvalidData)?;
            // Of another tree it cannot be: that may be on another file system by now.
            if first.tree != entry.tree {
                return Err(io::ErrorKind::InvalidData.into());
            }
            return fs::hard_link(place(top, first), at);
        }
        Kind::Link { target } => symlink(OsStr::from_bytes(target), at)?,
        Kind::Special { kind, device } => {
            let kind = SFlag::from_bits_truncate(*kind);
            mknod(at, kind, Mode::from_bits_truncate(entry.mode), *device)?;
        }
    }
    lchown(at, Some(entry.user), Some(entry.group))?;
    for (name, value) in &entry.attributes {
        attributes::set(at, name, value)?;
    }
    if !matches!(entry.kind, Kind::Link { .. }) {
        fs::set_permissions(at, Permissions::from_mode(entry.mode))?;
    }
    set_times(at, entry)
}

fn set_times(at: &Path, entry: &Entry) -> io::Result<()> {
    let time = TimeSpec::new(entry.modified.0, entry.modified.1);
    let follow = UtimensatFlags::NoFollowSymlink;
    Ok(utimensat(nix::fcntl::AT_FDCWD, at, &time, &time, follow)?)
}
