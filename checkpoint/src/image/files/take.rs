//! Taking a snapshot.

use super::index::{CONTENTS, ENCODING, Entry, INDEX, Index, Kind, Source};
use super::index::{content_path, read_index};
use super::{attributes, content};
use crate::error::with_path;
use crate::image::compressed_file::stored;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file that has changed this shortly before a snapshot may have changed after it without showing.
const MARGIN_SECONDS: i64 = 2;
const PERMISSIONS: u32 = 0o7777;
const CONTENT_MODE: u32 = 0o600;

/// A directory (or a single file) to take.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Under which name it is brought back.
    pub name: String,
    /// Where it is.
    pub top: PathBuf,
}

/// Writes the trees into `directory`. `previous` is the directory of the snapshot before; `restless` are
/// files (by tree and path below its top) whose changes do not show, which are copied each time.
///
/// # Errors
/// A file cannot be read, or the snapshot not be written; what is there then is of no use.
pub fn take(
    trees: &[Tree],
    directory: &Path,
    previous: Option<&Path>,
    restless: &HashSet<(String, PathBuf)>,
) -> io::Result<()> {
    let contents = directory.join(CONTENTS);
    fs::create_dir(&contents).map_err(with_path(&contents))?;
    let mut taking = Taking {
        directory,
        previous: Previous::read(previous),
        restless,
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

/// Contents of the snapshot before that may still be right.
#[derive(Default)]
struct Previous {
    directory: PathBuf,
    taken_at: i64,
    contents: HashMap<Source, (u64, u64)>,
}

impl Previous {
    /// One that cannot be read is as good as none.
    fn read(directory: Option<&Path>) -> Self {
        let Some((directory, index)) = directory.and_then(|it| Some((it, read_index(it).ok()?)))
        else {
            return Self::default();
        };
        let contents = index.entries.iter().filter_map(|entry| match entry.kind {
            Kind::File { bytes, content, .. } => Some((entry.source, (bytes, content))),
            _ => None,
        });
        Self {
            directory: directory.to_owned(),
            taken_at: index.taken_at,
            contents: contents.collect(),
        }
    }

    /// The same content, if the file has surely not changed.
    fn content_of(&self, source: &Source, bytes: u64) -> Option<PathBuf> {
        let (before, content) = self.contents.get(source)?;
        let settled = source.changed.0 + MARGIN_SECONDS < self.taken_at;
        (settled && *before == bytes).then(|| content_path(&self.directory, *content))
    }
}

struct Taking<'a> {
    directory: &'a Path,
    previous: Previous,
    restless: &'a HashSet<(String, PathBuf)>,
    trees: &'a [Tree],
    index: Index,
    /// Files with several names: the entry of the first.
    linked: HashMap<(u64, u64), u64>,
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
        let source = Source {
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
        source: &Source,
    ) -> io::Result<Kind> {
        let kind = file.file_type();
        if kind.is_dir() {
            return Ok(Kind::Directory);
        }
        if kind.is_symlink() {
            let target = fs::read_link(at)?.into_os_string();
            return Ok(Kind::Link {
                target: target.as_bytes().to_vec(),
            });
        }
        if file.nlink() > 1 {
            let next = self.index.entries.len() as u64;
            let first = *self.linked.entry((file.dev(), file.ino())).or_insert(next);
            if first != next {
                return Ok(Kind::Again { entry: first });
            }
        }
        if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
            return Ok(Kind::Special {
                kind: file.mode() & libc::S_IFMT,
                device: file.rdev(),
            });
        }
        self.contents += 1;
        let content = self.contents;
        let bytes = file.len();
        let restless = (self.trees[tree].name.clone(), path.to_owned());
        let known = self.previous.content_of(source, bytes);
        let known = known.filter(|_| !self.restless.contains(&restless));
        let shared = self.store(at, content, known.as_deref())?;
        Ok(Kind::File {
            bytes,
            content,
            shared,
        })
    }

    /// True when it shares its blocks with the file.
    fn store(&self, at: &Path, content: u64, known: Option<&Path>) -> io::Result<bool> {
        let to = content_path(self.directory, content);
        if let Some(known) = known {
            // A link may fail (another file system, too many of them): then there is a copy.
            let plain = fs::hard_link(known, &to);
            if plain.is_ok() || fs::hard_link(stored(known), stored(&to)).is_ok() {
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
