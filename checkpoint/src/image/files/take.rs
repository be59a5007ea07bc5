//! Takes a snapshot.

use super::index::{CONTENTS, ENCODING, Entry, EntryKind, FileVersion, INDEX, Index};
use super::index::{content_path, read_index};
use super::{attributes, content};
use crate::error::with_path;
use crate::image::compressed_file::compressed_name;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file that changed this shortly before a snapshot may have changed again without another time.
const MARGIN_SECONDS: i64 = 2;
const PERMISSIONS: u32 = 0o7777;
const CONTENT_MODE: u32 = 0o600;

/// A directory (or a single file) to include.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The name in the snapshot.
    pub name: String,
    /// The path of the directory.
    pub top: PathBuf,
}

/// Writes a snapshot of `trees` into `directory`. `previous` is the directory of the previous
/// snapshot. `volatile` are files (by tree and path below its top) whose changes do not show in
/// their times; they are copied each time.
///
/// # Errors
/// A file cannot be read, or the snapshot cannot be written; it is unusable then.
pub fn take(
    trees: &[Tree],
    directory: &Path,
    previous: Option<&Path>,
    volatile: &HashSet<(String, PathBuf)>,
) -> io::Result<()> {
    let contents = directory.join(CONTENTS);
    fs::create_dir(&contents).map_err(with_path(&contents))?;
    let mut taking = Taking {
        directory,
        previous: Previous::read(previous),
        volatile,
        trees,
        index: Index {
            taken_at: now(),
            trees: trees.iter().map(|tree| tree.name.clone()).collect(),
            entries: Vec::new(),
        },
        linked: HashMap::new(),
        contents: 0,
    };
    for number in 0..trees.len() {
        taking.walk(number, Path::new(""))?;
    }
    let encoded =
        bincode::serde::encode_to_vec(&taking.index, ENCODING).map_err(io::Error::other)?;
    let index = directory.join(INDEX);
    fs::write(&index, encoded).map_err(with_path(&index))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}

/// Contents of the previous snapshot that may be up to date.
#[derive(Default)]
struct Previous {
    directory: PathBuf,
    taken_at: i64,
    contents: HashMap<FileVersion, (u64, u64)>,
}

impl Previous {
    /// Reads the previous snapshot; nothing is reused from one that cannot be read.
    fn read(directory: Option<&Path>) -> Self {
        let Some((directory, index)) = directory.and_then(|it| Some((it, read_index(it).ok()?)))
        else {
            return Self::default();
        };
        let contents = index.entries.iter().filter_map(|entry| match entry.kind {
            EntryKind::File { bytes, content, .. } => Some((entry.source, (bytes, content))),
            _ => None,
        });
        Self {
            directory: directory.to_owned(),
            taken_at: index.taken_at,
            contents: contents.collect(),
        }
    }

    /// Returns the content of a file that has certainly not changed.
    fn content_of(&self, source: &FileVersion, bytes: u64) -> Option<PathBuf> {
        let (before, content) = self.contents.get(source)?;
        let settled = source.changed.0 + MARGIN_SECONDS < self.taken_at;
        (settled && *before == bytes).then(|| content_path(&self.directory, *content))
    }
}

struct Taking<'a> {
    directory: &'a Path,
    previous: Previous,
    volatile: &'a HashSet<(String, PathBuf)>,
    trees: &'a [Tree],
    index: Index,
    /// Index of the first entry of each file with several names, by device and inode.
    linked: HashMap<(u64, u64), u64>,
    /// Number of contents so far.
    contents: u64,
}

impl Taking<'_> {
    fn walk(&mut self, tree: usize, path: &Path) -> io::Result<()> {
        let top = &self.trees[tree].top;
        let at = if path.as_os_str().is_empty() {
            top.clone()
        } else {
            top.join(path)
        };
        let file = fs::symlink_metadata(&at).map_err(with_path(&at))?;
        let source = FileVersion {
            device: file.dev(),
            inode: file.ino(),
            changed: (file.ctime(), file.ctime_nsec()),
        };
        let kind = self
            .kind(tree, path, &at, &file, &source)
            .map_err(with_path(&at))?;
        self.index.entries.push(Entry {
            tree: u16::try_from(tree).map_err(io::Error::other)?,
            path: path.as_os_str().as_bytes().to_vec(),
            kind,
            mode: file.mode() & PERMISSIONS,
            user: file.uid(),
            group: file.gid(),
            modified: (file.mtime(), file.mtime_nsec()),
            attributes: attributes::read(&at).map_err(with_path(&at))?,
            source,
        });
        if file.is_dir() {
            for name in sorted_names(&at).map_err(with_path(&at))? {
                self.walk(tree, &path.join(name))?;
            }
        }
        Ok(())
    }

    fn kind(
        &mut self,
        tree: usize,
        path: &Path,
        at: &Path,
        file: &Metadata,
        source: &FileVersion,
    ) -> io::Result<EntryKind> {
        let kind = file.file_type();
        if kind.is_dir() {
            return Ok(EntryKind::Directory);
        }
        if kind.is_symlink() {
            let target = fs::read_link(at)?.into_os_string();
            return Ok(EntryKind::Link {
                target: target.as_bytes().to_vec(),
            });
        }
        if file.nlink() > 1 {
            let next = self.index.entries.len() as u64;
            let first = *self.linked.entry((file.dev(), file.ino())).or_insert(next);
            if first != next {
                return Ok(EntryKind::HardLink { entry: first });
            }
        }
        if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
            return Ok(EntryKind::Special {
                kind: file.mode() & libc::S_IFMT,
                device: file.rdev(),
            });
        }
        self.contents += 1;
        let content = self.contents;
        let bytes = file.len();
        let volatile = (self.trees[tree].name.clone(), path.to_owned());
        let unchanged = self.previous.content_of(source, bytes);
        let unchanged = unchanged.filter(|_| !self.volatile.contains(&volatile));
        let shared = self.store(at, content, unchanged.as_deref())?;
        Ok(EntryKind::File {
            bytes,
            content,
            shared,
        })
    }

    /// Stores a content. Returns true if it shares its blocks with the file.
    fn store(&self, at: &Path, content: u64, unchanged: Option<&Path>) -> io::Result<bool> {
        let to = content_path(self.directory, content);
        if let Some(unchanged) = unchanged {
            // A link may fail (another file system, too many links): then the content is copied.
            let plain = fs::hard_link(unchanged, &to);
            if plain.is_ok()
                || fs::hard_link(compressed_name(unchanged), compressed_name(&to)).is_ok()
            {
                return Ok(false);
            }
        }
        content::copy(&mut File::open(at)?, &to, CONTENT_MODE)
    }
}

fn sorted_names(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name());
    }
    names.sort_by(|a: &std::ffi::OsString, b| OsStr::cmp(a, b));
    Ok(names)
}
