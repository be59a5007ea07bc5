//! The index of a snapshot: every name, its kind, owner, mode, times and attributes.

use crate::error::with_path;
use bincode::config::Configuration;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The index, within the snapshot's directory.
pub const INDEX: &str = "files.index";
/// The contents, within the snapshot's directory.
pub const CONTENTS: &str = "files";
pub(super) const ENCODING: Configuration = bincode::config::standard();

/// All that was in the trees.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// When it was taken, in seconds since the epoch.
    pub(super) taken_at: i64,
    /// The trees, by name.
    pub(super) trees: Vec<String>,
    /// Parents come before what is in them.
    pub(super) entries: Vec<Entry>,
}

/// One name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Index of its tree.
    pub(super) tree: u16,
    /// Below the tree's top; empty for the top itself.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Permissions.
    pub(super) mode: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    /// Modification time.
    pub(super) modified: (i64, i64),
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) source: Source,
}

/// What tells whether a file has changed: device, inode, change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) changed: (i64, i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Directory,
    /// Its length, the number of its content, and whether that shares its blocks with the file.
    File {
        bytes: u64,
        content: u64,
        shared: bool,
    },
    /// Another name of an entry before it.
    Again {
        entry: u64,
    },
    Link {
        target: Vec<u8>,
    },
    /// Type bits and device number.
    Special {
        kind: u32,
        device: u64,
    },
}

impl Index {
    /// Its trees, by name.
    pub fn trees(&self) -> impl Iterator<Item = &str> {
        self.trees.iter().map(String::as_str)
    }

    /// The paths of all names, in the trees that `place_of` knows the place of.
    pub fn paths(&self, place_of: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
        let places: Vec<Option<PathBuf>> = self.trees().map(place_of).collect();
        let path = |entry: &Entry| {
            let place = places.get(usize::from(entry.tree))?.as_ref()?;
            Some(joined(place, &entry.path))
        };
        self.entries.iter().filter_map(path).collect()
    }
}

/// The top itself for an empty path.
pub(super) fn joined(top: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() {
        return top.to_owned();
    }
    top.join(OsStr::from_bytes(path))
}

pub(super) fn content_path(directory: &Path, content: u64) -> PathBuf {
    directory.join(CONTENTS).join(format!("{content:06}"))
}

/// Contents of the snapshot in `directory` that are copies.
///
/// # Errors
/// There is no snapshot.
pub(crate) fn own_contents(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let own = |entry: &Entry| match entry.kind {
        Kind::File {
            content, shared, ..
        } if !shared => Some(content_path(directory, content)),
        _ => None,
    };
    let paths = read_index(directory)?.entries;
    let paths = paths.iter().filter_map(own);
    // A link to what an earlier one has compressed is there under another name.
    Ok(paths.filter(|path| path.exists()).collect())
}

/// Reads the index of the snapshot in `directory`.
///
/// # Errors
/// It is not there, or is not one.
pub fn read_index(directory: &Path) -> io::Result<Index> {
    let path = directory.join(INDEX);
    let bytes = fs::read(&path).map_err(with_path(&path))?;
    let decoded = bincode::serde::decode_from_slice(&bytes, ENCODING);
    let (index, used): (Index, usize) = decoded
        .map_err(|error| with_path(&path)(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    if used != bytes.len() {
        return Err(with_path(&path)(io::ErrorKind::InvalidData.into()));
    }
    Ok(index)
}
