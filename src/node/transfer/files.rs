//! The files of a checkpoint as they come: what is there already, what is added, whether it is as
//! it should be.
//!
//! # Invariants
//!
//! * A file with several names is never written to: it is a part of another checkpoint.
//! * A file counts as there only after its content was read and has the manifest's hash.
//! * Zeros are left out, so that holes stay holes.

use super::donor::is_zero;
use super::pieces::Missing;
use super::progress::Progress;
use brolga_checkpoint::{CheckpointError, Directory, Part, PartKind, Partial, hash_file};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Files shorter than this are not looked for elsewhere.
const SHARED_BYTES_LEAST: u64 = 64 << 10;
/// The least piece that the file system allocates.
const BLOCK_BYTES: usize = 4 << 10;
const READ_BYTES: usize = 256 << 10;

/// The state of a file when its last piece has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// As the manifest says.
    Right,
    /// Not so, and some of it was here before: that may be what is wrong. Nothing of it is left.
    Resumed,
    /// Not so, and all of it came from this donor. Nothing of it is left.
    Wrong,
}

/// The file that grows.
struct Growing {
    file: u32,
    to: File,
    hash: Xxh3,
    resumed: bool,
}

/// The files of the checkpoint that is being fetched.
pub struct Files<'a> {
    partial: &'a Partial,
    progress: &'a Progress,
    /// Hashes of what is there of files that are not whole.
    begun: HashMap<u32, Xxh3>,
    growing: Option<Growing>,
}

impl<'a> Files<'a> {
    /// Looks at what is there, or in other checkpoints in `directory`; gives what is missing.
    ///
    /// # Errors
    /// Files cannot be read or made.
    pub fn look(
        partial: &'a Partial,
        directory: &Directory,
        progress: &'a Progress,
    ) -> Result<(Self, Vec<Missing>), CheckpointError> {
        let mut files = Self {
            partial,
            progress,
            begun: HashMap::new(),
            growing: None,
        };
        let elsewhere = contents(directory)?;
        let mut missing = Vec::new();
        for (file, part) in (0..).zip(&partial.manifest().parts) {
            let PartKind::File { hash } = part.kind else {
                continue;
            };
            let path = partial.path().join(&part.path);
            let have = files.have(file, part, hash, &path, &elsewhere);
            let have = have.map_err(failed("look at", &path))?;
            progress.found(have);
            missing.push(Missing {
                file,
                have,
                bytes: part.bytes,
            });
        }
        Ok((files, missing))
    }

    /// The part of a file that is here, whose content was read.
    fn have(
        &mut self,
        file: u32,
        part: &Part,
        hash: u128,
        path: &Path,
        elsewhere: &HashMap<(u64, u128), PathBuf>,
    ) -> io::Result<u64> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() && found.len() == part.bytes => {
                if hash_file(path, &mut |_| ())? == (part.bytes, hash) {
                    return Ok(part.bytes);
                }
            }
            Ok(found) if found.is_file() && found.len() < part.bytes && found.nlink() == 1 => {
                let begun = hash_of_all(&mut File::open(path)?)?;
                self.begun.insert(file, begun);
                return Ok(found.len());
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if part.bytes == 0 {
                    File::create_new(path)?;
                    return Ok(0);
                }
                return Ok(match elsewhere.get(&(part.bytes, hash)) {
                    Some(other) if link(other, part.bytes, hash, path) => part.bytes,
                    _ => 0,
                });
            }
            Err(error) => return Err(error),
        }
        fs::remove_file(path)?;
        if part.bytes == 0 {
            File::create_new(path)?;
        }
        Ok(0)
    }

    fn part(&self, file: u32) -> Option<(&'a Part, PathBuf)> {
        let part = self
            .partial
            .manifest()
            .parts
            .get(usize::try_from(file).ok()?)?;
        Some((part, self.partial.path().join(&part.path)))
    }

    /// Adds a piece to the end of its file; `None` is `bytes` of zeros.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(
        &mut self,
        file: u32,
        offset: u64,
        bytes: u32,
        content: Option<&[u8]>,
    ) -> Result<(), CheckpointError> {
        let Some((_, path)) = self.part(file) else {
            return Err(CheckpointError::Failed("a file that nobody knows".into()));
        };
        let written = self.append(file, offset, bytes, content, &path);
        written.map_err(failed("write", &path))?;
        self.progress.came(bytes.into());
        Ok(())
    }

    fn append(
        &mut self,
        file: u32,
        offset: u64,
        bytes: u32,
        content: Option<&[u8]>,
        path: &Path,
    ) -> io::Result<()> {
        let mut growing = match self.growing.take() {
            Some(growing) if growing.file == file => growing,
            _ => self.open(file, path)?,
        };
        let end = offset + u64::from(bytes);
        match content {
            Some(content) => {
                growing.hash.update(content);
                let written = write_blocks(&growing.to, offset, content)?;
                if offset + written < end {
                    growing.to.set_len(end)?;
                }
            }
            None => {
                let zeros = vec![0; bytes as usize];
                growing.hash.update(&zeros);
                growing.to.set_len(end)?;
            }
        }
        self.growing = Some(growing);
        Ok(())
    }

    fn open(&mut self, file: u32, path: &Path) -> io::Result<Growing> {
        let mut options = File::options();
        let to = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let begun = self.begun.remove(&file);
        Ok(Growing {
            file,
            to,
            resumed: begun.is_some(),
            hash: begun.unwrap_or_default(),
        })
    }

    /// The last piece of a file was added.
    ///
    /// # Errors
    /// A wrong file cannot be removed.
    pub fn finish(&mut self, file: u32) -> Result<Whole, CheckpointError> {
        let growing = self.growing.take().filter(|growing| growing.file == file);
        let (Some(growing), Some((part, path))) = (growing, self.part(file)) else {
            return Err(CheckpointError::Failed("a file that nobody knows".into()));
        };
        let found = growing.hash.digest128();
        if (part.kind == PartKind::File { hash: found }) {
            return Ok(Whole::Right);
        }
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        self.progress.lost(part.bytes);
        Ok(match growing.resumed {
            true => Whole::Resumed,
            false => Whole::Wrong,
        })
    }

    /// The length of the file.
    pub fn length(&self, file: u32) -> u64 {
        self.part(file).map_or(0, |(part, _)| part.bytes)
    }

    /// The path, for people.
    pub fn name(&self, file: u32) -> String {
        let part = self.part(file);
        part.map_or_else(String::new, |(part, _)| part.path.display().to_string())
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::File {
        action,
        path,
        source,
    }
}

/// Contents of the checkpoints that are here.
fn contents(directory: &Directory) -> Result<HashMap<(u64, u128), PathBuf>, CheckpointError> {
    let mut contents = HashMap::new();
    for checkpoint in directory.list()?.whole {
        for part in checkpoint.manifest.parts {
            if let PartKind::File { hash } = part.kind
                && part.bytes >= SHARED_BYTES_LEAST
            {
                contents.insert((part.bytes, hash), checkpoint.path.join(part.path));
            }
        }
    }
    Ok(contents)
}

/// Gives `other` another name if it is what its manifest says it was; otherwise it is fetched.
fn link(other: &Path, bytes: u64, hash: u128, path: &Path) -> bool {
    let right = hash_file(other, &mut |_| ()).is_ok_and(|found| found == (bytes, hash));
    right && fs::hard_link(other, path).is_ok()
}

fn hash_of_all(from: &mut File) -> io::Result<Xxh3> {
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hash),
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes all blocks but those of zeros; gives how far it was written.
fn write_blocks(to: &File, offset: u64, content: &[u8]) -> io::Result<u64> {
    let mut end = 0;
    let mut at = 0;
    while at < content.len() {
        let mut next = at;
        while next < content.len() && !is_zero(block(content, next)) {
            next += block(content, next).len();
        }
        if next > at {
            to.write_all_at(&content[at..next], offset + at as u64)?;
            end = next as u64;
        }
        at = next;
        while at < content.len() && is_zero(block(content, at)) {
            at += block(content, at).len();
        }
    }
    Ok(end)
}

fn block(content: &[u8], at: usize) -> &[u8] {
    &content[at..content.len().min(at + BLOCK_BYTES)]
}
