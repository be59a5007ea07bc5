//! A snapshot of files: whole trees, as an index and numbered plain files.
//!
//! ```text
//! DIR/files.index      every name, its kind, owner, mode, times, attributes
//! DIR/files/000001 …   contents
//! ```
//!
//! The trees must not change meanwhile. A content is shared with the tree where the file system can
//! (reflink), else with the snapshot before it if the file has not changed since (hard link), else it is
//! copied without its holes. The snapshot before is therefore never written to again, by anybody.
//!
//! Contents may be compressed later ([`crate::image::compressed_file`]); links are then to what is compressed.
//!
//! Whether a file has changed is told by its change time, as for any incremental backup. Two cases escape
//! it: changes within a tick of the kernel's clock after the last look, and writing through a mapping that
//! was written to before. The first is met by a margin, the second by the caller, who names such files.
//!
//! Deliberately absent: checksums (the manifest's), identities of files as the server sees them.

mod attributes;
mod content;
mod restore;
mod take;

pub use restore::{bring_back, read_index};
pub use take::{Tree, take};

use bincode::config::Configuration;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The index, within the snapshot's directory.
pub const INDEX: &str = "files.index";
/// The contents, within the snapshot's directory.
pub const CONTENTS: &str = "files";
const ENCODING: Configuration = bincode::config::standard();

/// All that was in the trees.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// When it was taken, in seconds since the epoch.
    taken_at: i64,
    /// The trees, by name.
    trees: Vec<String>,
    /// Parents come before what is in them.
    entries: Vec<Entry>,
}

/// One name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Index of its tree.
    tree: u16,
    /// Below the tree's top; empty for the top itself.
    path: Vec<u8>,
    kind: Kind,
    /// Permissions.
    mode: u32,
    user: u32,
    group: u32,
    /// Modification time.
    modified: (i64, i64),
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
    source: Source,
}

/// What tells whether a file has changed: device, inode, change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Source {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
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
fn joined(top: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() {
        return top.to_owned();
    }
    top.join(OsStr::from_bytes(path))
}

fn content_path(directory: &Path, content: u64) -> PathBuf {
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

/// Says which file it was about.
pub(crate) fn about(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.to_owned();
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
