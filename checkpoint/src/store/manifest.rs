//! What a checkpoint says of itself: where it was taken, by what, and which files it consists of.
//!
//! On disk it is one line of text and a JSON object:
//!
//! ```text
//! brolga-checkpoint 1 0123456789abcdef…      version, and XXH3 (128 bits) of all that follows
//! { "cluster": …, "node": …, "position": …, "identity": …, "parts": [ … ] }
//! ```
//!
//! The checksums are against accidents (torn writes, rotten disks, cut transfers), not against anybody.

use crate::error::CheckpointError;
use crate::store::fingerprint::Identity;
use crate::store::hexadecimal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Version of the format.
pub const VERSION: u32 = 1;
/// Name of the manifest within a checkpoint.
pub const FILE_NAME: &str = "manifest";

const MAGIC: &str = "brolga-checkpoint";
const READ_BYTES: usize = 256 << 10;
/// A manifest larger than this is none.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;

/// What a replica's server has done up to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The last slot that the checkpoint contains.
    pub slot: u64,
    /// Output hash there.
    pub output_hash: u64,
    /// Schedule hash there.
    pub schedule_hash: u64,
}

/// What a part is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File {
        /// XXH3, 128 bits, of its content.
        #[serde(with = "hexadecimal")]
        hash: u128,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Link {
        /// Where it points.
        target: PathBuf,
    },
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Path within the checkpoint's directory.
    pub path: PathBuf,
    /// Length of a regular file, otherwise 0.
    pub bytes: u64,
    /// What it is.
    pub kind: Kind,
}

/// What a checkpoint consists of. Written last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The cluster it belongs to.
    #[serde(with = "hexadecimal")]
    pub cluster: u128,
    /// The node that took it.
    pub node: u64,
    /// Where in the log it was taken.
    pub position: Position,
    /// What it may be restored by.
    pub identity: Identity,
    /// When it was taken, seconds since the Unix epoch; for people.
    pub taken_at: u64,
    /// All its files, in the order of their paths, without the manifest.
    pub parts: Vec<Part>,
}

impl Manifest {
    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// As it lies on disk.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn encode(&self) -> Result<Vec<u8>, CheckpointError> {
        let body = serde_json::to_vec_pretty(self).map_err(|error| {
            CheckpointError::Failed(format!("cannot write a manifest: {error}"))
        })?;
        let mut bytes = format!("{MAGIC} {VERSION} {:032x}\n", xxh3_128(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Tells it from all others: the hash of what lies on disk.
    ///
    /// # Errors
    /// As [`Manifest::encode`].
    pub fn hash(&self) -> Result<u128, CheckpointError> {
        Ok(xxh3_128(&self.encode()?))
    }

    /// Reads it from `bytes`; `path` is for the error.
    ///
    /// # Errors
    /// It is damaged, or of another version.
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self, CheckpointError> {
        let corrupt = |what: &str| CheckpointError::corrupt(path, what);
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (line, rest) = bytes.split_at(end.ok_or_else(|| corrupt("it has no first line"))?);
        let body = &rest[1..];
        let line = std::str::from_utf8(line).map_err(|_| corrupt("its first line is no text"))?;
        let mut words = line.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(corrupt("it is not a manifest"));
        }
        let version = words.next().and_then(|word| word.parse().ok());
        let hash = words.next().filter(|word| word.len() == 32);
        let hash = hash.and_then(|word| u128::from_str_radix(word, 16).ok());
        let (Some(found), Some(hash), None) = (version, hash, words.next()) else {
            return Err(corrupt("its first line makes no sense"));
        };
        if found != VERSION {
            let path = path.to_path_buf();
            return Err(CheckpointError::Version { path, found });
        }
        if xxh3_128(body) != hash {
            return Err(corrupt("its checksum is wrong"));
        }
        let manifest: Self = serde_json::from_slice(body)
            .map_err(|error| corrupt(&format!("it makes no sense: {error}")))?;
        match manifest.misplaced() {
            Some(part) => Err(corrupt(&format!("it names {}", part.path.display()))),
            None => Ok(manifest),
        }
    }

    /// A part that is not below the checkpoint's directory, or below something that is no directory, or
    /// there twice: nothing is ever written through a link.
    fn misplaced(&self) -> Option<&Part> {
        let directory = |part: &&Part| part.kind == Kind::Directory;
        let directories = self.parts.iter().filter(directory);
        let directories: BTreeSet<&Path> = directories.map(|part| part.path.as_path()).collect();
        let mut names = BTreeSet::new();
        self.parts.iter().find(|part| {
            let parent = part.path.parent().unwrap_or(Path::new(""));
            let known = parent == Path::new("") || directories.contains(parent);
            !is_inside(&part.path) || !known || !names.insert(&part.path)
        })
    }

    /// Reads the manifest of the checkpoint in `directory`.
    ///
    /// # Errors
    /// It is missing, damaged, or of another version.
    pub fn load(directory: &Path) -> Result<Self, CheckpointError> {
        let path = directory.join(FILE_NAME);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CheckpointError::corrupt(&path, "it is missing"),
            _ => CheckpointError::file("read", &path)(error),
        })?;
        let mut bytes = Vec::new();
        file.take(MANIFEST_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(CheckpointError::file("read", &path))?;
        Self::decode(&bytes, &path)
    }
}

/// Whether a path stays below the directory that it is relative to.
pub(crate) fn is_inside(path: &Path) -> bool {
    let normal = |part: Component<'_>| matches!(part, Component::Normal(_));
    path.components().next().is_some() && path.components().all(normal)
}

/// Length and hash of a file's content. `seen` is told how many more bytes were read.
///
/// # Errors
/// It cannot be read.
pub fn hash_file(path: &Path, seen: &mut dyn FnMut(u64)) -> io::Result<(u64, u128)> {
    let mut file = File::open(path)?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut length = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((length, hash.digest128())),
            Ok(count) => {
                hash.update(&buffer[..count]);
                length += count as u64;
                seen(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            cluster: 0xC0FFEE << 100,
            node: 2,
            position: Position {
                slot: 77,
                output_hash: u64::MAX,
                schedule_hash: 1,
            },
            identity: Identity::default(),
            taken_at: 1_700_000_000,
            parts: vec![
                Part {
                    path: "images".into(),
                    bytes: 0,
                    kind: Kind::Directory,
                },
                Part {
                    path: "images/pages-1.img".into(),
                    bytes: 4096,
                    kind: Kind::File { hash: u128::MAX },
                },
            ],
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let bytes = manifest().encode().unwrap();
        let path = Path::new("manifest");
        assert_eq!(Manifest::decode(&bytes, path).unwrap(), manifest());
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let bytes = manifest().encode().unwrap();
        let path = Path::new("manifest");
        for at in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..at], path).is_err(), "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Manifest::decode(&flipped, path).is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn another_version_is_said_to_be_one() {
        let bytes = manifest().encode().unwrap();
        let text = String::from_utf8(bytes).unwrap().replacen(" 1 ", " 2 ", 1);
        let error = Manifest::decode(text.as_bytes(), Path::new("m")).unwrap_err();
        assert!(matches!(error, CheckpointError::Version { found: 2, .. }));
    }

    #[test]
    fn a_manifest_names_no_file_outside() {
        for path in ["../other", "/etc/passwd", "a/../../b", "", "a/b", "images"] {
            let mut outside = manifest();
            outside.parts[1].path = path.into();
            let bytes = outside.encode().unwrap();
            assert!(Manifest::decode(&bytes, Path::new("m")).is_err(), "{path}");
        }
    }
}
