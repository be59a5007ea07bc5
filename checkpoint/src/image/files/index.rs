//! The index of a snapshot: every name, its kind, owner, mode, times and attributes.

use crate::error::with_path;
use crate::store::manifest::is_inside;
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// File name of the index, in the snapshot's directory.
pub const INDEX: &str = "files.index";
/// Name of the directory of contents, in the snapshot's directory.
pub const CONTENTS: &str = "files";
/// A larger index is refused. The limit keeps a damaged length from allocating memory; it does not
/// change the encoding.
const INDEX_BYTES_MAX: usize = 1 << 30;
pub(super) const ENCODING: Configuration<LittleEndian, Varint, Limit<INDEX_BYTES_MAX>> =
    bincode::config::standard().with_limit();

/// All files of the trees. Its encoding is part of the image.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The time of the snapshot, in seconds since the Unix epoch.
    pub(super) taken_at: i64,
    /// The names of the trees.
    pub(super) trees: Vec<String>,
    /// All files; directories come before what is in them.
    pub(super) entries: Vec<Entry>,
}

/// One name in a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Index of its tree.
    pub(super) tree: u16,
    /// Path relative to the tree's top; empty for the top itself.
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryKind,
    /// Permissions.
    pub(super) mode: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    /// Modification time.
    pub(super) modified: (i64, i64),
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) source: FileVersion,
}

/// Device, inode and change time of a file, which differ if it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct FileVersion {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) changed: (i64, i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum EntryKind {
    Directory,
    /// A regular file.
    File {
        /// Length of its content.
        bytes: u64,
        /// Number of its content.
        content: u64,
        /// The content shares its blocks with the file.
        shared: bool,
    },
    /// Another name of an earlier entry.
    HardLink {
        entry: u64,
    },
    Link {
        target: Vec<u8>,
    },
    /// A FIFO, socket or device: type bits and device number.
    Special {
        kind: u32,
        device: u64,
    },
}

impl Index {
    /// Reads an index from `bytes`.
    ///
    /// # Errors
    /// It is damaged or too large.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let decoded = bincode::serde::decode_from_slice(bytes, ENCODING);
        let (index, used): (Self, usize) = decoded.map_err(|error| invalid(&error.to_string()))?;
        if used != bytes.len() {
            return Err(invalid("it has bytes after its end"));
        }
        match index.misplaced() {
            Some(number) => Err(invalid(&format!("entry {number} is misplaced"))),
            None => Ok(index),
        }
    }

    /// Returns the number of an entry of no tree, or outside of its tree, or below something that
    /// is not a directory, or whose name is taken, or that is a hard link to no earlier entry of
    /// its tree. Without these, nothing is ever written through a link.
    fn misplaced(&self) -> Option<usize> {
        let mut directories = HashSet::new();
        let mut names = HashSet::new();
        let numbered = self.entries.iter().enumerate();
        for (number, entry) in numbered {
            let path = Path::new(OsStr::from_bytes(&entry.path));
            let parent = path.parent().unwrap_or(Path::new(""));
            let is_top = entry.path.is_empty();
            let placed = is_top || is_inside(path) && directories.contains(&(entry.tree, parent));
            let linked = match entry.kind {
                EntryKind::HardLink { entry: first } => usize::try_from(first)
                    .ok()
                    .filter(|first| *first < number)
                    .is_some_and(|first| self.entries[first].tree == entry.tree),
                _ => true,
            };
            let in_tree = usize::from(entry.tree) < self.trees.len();
            if !in_tree || !placed || !linked || !names.insert((entry.tree, path)) {
                return Some(number);
            }
            if entry.kind == EntryKind::Directory {
                directories.insert((entry.tree, path));
            }
        }
        None
    }

    /// Returns the names of the trees.
    pub fn trees(&self) -> impl Iterator<Item = &str> {
        self.trees.iter().map(String::as_str)
    }

    /// Returns the paths of all files in those trees for which `place_of` returns the top.
    pub fn paths(&self, place_of: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
        let places: Vec<Option<PathBuf>> = self.trees().map(place_of).collect();
        let path = |entry: &Entry| {
            let place = places.get(usize::from(entry.tree))?.as_ref()?;
            Some(joined(place, &entry.path))
        };
        self.entries.iter().filter_map(path).collect()
    }
}

/// Appends a path; an empty one is the top itself.
pub(super) fn joined(top: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() {
        return top.to_owned();
    }
    top.join(OsStr::from_bytes(path))
}

pub(super) fn content_path(directory: &Path, content: u64) -> PathBuf {
    directory.join(CONTENTS).join(format!("{content:06}"))
}

/// Returns the contents of the snapshot in `directory` that are copies.
///
/// # Errors
/// The index cannot be read.
pub(crate) fn own_contents(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let own = |entry: &Entry| match entry.kind {
        EntryKind::File {
            content, shared, ..
        } if !shared => Some(content_path(directory, content)),
        _ => None,
    };
    let paths = read_index(directory)?.entries;
    let paths = paths.iter().filter_map(own);
    // A link to a content that was compressed for an earlier snapshot has another name.
    Ok(paths.filter(|path| path.exists()).collect())
}

/// Reads the index of the snapshot in `directory`.
///
/// # Errors
/// It is missing, damaged or too large.
pub fn read_index(directory: &Path) -> io::Result<Index> {
    let path = directory.join(INDEX);
    let bytes = fs::read(&path).map_err(with_path(&path))?;
    Index::decode(&bytes).map_err(with_path(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index that format 1 has written, of every kind of entry.
    const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/1/files.index");

    fn entry(path: &[u8], kind: EntryKind) -> Entry {
        Entry {
            tree: 0,
            path: path.to_vec(),
            kind,
            mode: 0o640,
            user: 33,
            group: 70_000,
            modified: (-1, 999_999_999),
            attributes: vec![(b"user.a".to_vec(), b"\x00\xff".to_vec())],
            source: FileVersion {
                device: 0xfe01,
                inode: 1234,
                changed: (1_700_000_001, 5),
            },
        }
    }

    #[test]
    fn the_index_is_read_and_written_as_format_1() {
        let file = EntryKind::File {
            bytes: 300,
            content: 1,
            shared: true,
        };
        let link = EntryKind::Link {
            target: b"f".to_vec(),
        };
        let fifo = EntryKind::Special {
            kind: 0o10_000,
            device: 0,
        };
        let index = Index {
            taken_at: 1_700_000_000,
            trees: vec!["work".into(), "shm".into()],
            entries: vec![
                entry(b"", EntryKind::Directory),
                entry(b"f", file),
                entry(b"g", EntryKind::HardLink { entry: 1 }),
                entry(b"l", link),
                entry(b"p", fifo),
            ],
        };
        assert_eq!(
            bincode::serde::encode_to_vec(&index, ENCODING).unwrap(),
            GOLDEN
        );
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(INDEX), GOLDEN).unwrap();
        assert_eq!(read_index(dir.path()).unwrap(), index);
    }
}
