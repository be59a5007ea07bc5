//! The manifest of a checkpoint: its position in the log, its server, and the list of its files.
//!
//! On disk it is one line of text and a JSON object:
//!
//! ```text
//! brolga-checkpoint 1 0123456789abcdef…      version, and XXH3 (128 bits) of the JSON text
//! { "cluster": …, "node": …, "position": …, "identity": …, "parts": [ … ] }
//! ```
//!
//! The checksums protect against accidents (torn writes, failing disks, truncated transfers), not
//! against an attacker.

use crate::error::CheckpointError;
use crate::store::fingerprint::ServerFingerprint;
use crate::store::hexadecimal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// Version of the checkpoint format: of the manifest, and of everything that it lists.
pub const VERSION: u32 = 1;
/// File name of the manifest within a checkpoint.
pub const FILE_NAME: &str = "manifest";

const MAGIC: &str = "brolga-checkpoint";
/// A larger file is not read as a manifest.
pub(crate) const BYTES_MAX: u64 = 256 << 20;

/// The state of a replica's server at a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The last slot that the checkpoint contains.
    pub slot: u64,
    /// The output hash at that slot.
    pub output_hash: u64,
    /// The schedule hash at that slot.
    pub schedule_hash: u64,
}

/// The type of a part, and what its content is checked against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// A regular file.
    File {
        /// XXH3 hash (128 bits) of its content.
        #[serde(with = "hexadecimal")]
        hash: u128,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Link {
        /// The path that it points to.
        target: PathBuf,
    },
}

/// One file, directory or symbolic link of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Path relative to the checkpoint's directory.
    pub path: PathBuf,
    /// Length of a regular file, otherwise 0.
    pub bytes: u64,
    /// Type and content.
    pub kind: PartKind,
}

/// The contents of a checkpoint. Its file is written last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The cluster that the checkpoint belongs to.
    #[serde(with = "hexadecimal")]
    pub cluster: u128,
    /// The node that took the checkpoint.
    pub node: u64,
    /// The position in the log.
    pub position: Position,
    /// The server that was dumped; only an identical one may continue from the checkpoint.
    #[serde(rename = "identity")]
    pub fingerprint: ServerFingerprint,
    /// The time of the dump, in seconds since the Unix epoch. Informational.
    pub taken_at: u64,
    /// All files but the manifest, ordered by path.
    pub parts: Vec<Part>,
}

impl Manifest {
    /// Returns the total size of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let parts = self.parts.iter();
        parts.fold(0, |sum, part| sum.saturating_add(part.bytes))
    }

    /// Returns the manifest as it is stored on disk.
    ///
    /// # Errors
    /// A path is not valid UTF-8.
    pub fn encode(&self) -> Result<Vec<u8>, CheckpointError> {
        let body = serde_json::to_vec_pretty(self).map_err(|error| {
            CheckpointError::Failed(format!("cannot write a manifest: {error}"))
        })?;
        let mut bytes = format!("{MAGIC} {VERSION} {:032x}\n", xxh3_128(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Returns the hash of the stored manifest, which identifies the checkpoint.
    ///
    /// # Errors
    /// As [`Manifest::encode`].
    pub fn hash(&self) -> Result<u128, CheckpointError> {
        Ok(xxh3_128(&self.encode()?))
    }

    /// Reads a manifest from `bytes`; `path` is named in errors.
    ///
    /// # Errors
    /// The manifest is damaged, or of another version.
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self, CheckpointError> {
        let corrupt = |what: &str| CheckpointError::corrupt(path, what);
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (line, rest) = bytes.split_at(end.ok_or_else(|| corrupt("it has no first line"))?);
        let body = &rest[1..];
        let line = std::str::from_utf8(line).map_err(|_| corrupt("its first line is not text"))?;
        let mut words = line.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(corrupt("it is not a manifest"));
        }
        let version = words.next().and_then(|word| word.parse().ok());
        let hash = words.next().filter(|word| word.len() == 32);
        let hash = hash.and_then(|word| u128::from_str_radix(word, 16).ok());
        let (Some(found), Some(hash), None) = (version, hash, words.next()) else {
            return Err(corrupt("its first line is malformed"));
        };
        if found != VERSION {
            let path = path.to_path_buf();
            return Err(CheckpointError::Version {
                path,
                found,
                readable: VERSION,
            });
        }
        if xxh3_128(body) != hash {
            return Err(corrupt("its checksum is wrong"));
        }
        let manifest: Self = serde_json::from_slice(body)
            .map_err(|error| corrupt(&format!("it is malformed: {error}")))?;
        match manifest.misplaced() {
            Some(part) => Err(corrupt(&format!(
                "it lists {}, which is misplaced",
                part.path.display()
            ))),
            None => Ok(manifest),
        }
    }

    /// Returns a part that lies outside of the checkpoint's directory, or below something that is
    /// not a directory, or that is listed twice, or that has the name of the manifest. Without
    /// these, nothing is ever written through a link.
    fn misplaced(&self) -> Option<&Part> {
        let directory = |part: &&Part| part.kind == PartKind::Directory;
        let directories = self.parts.iter().filter(directory);
        let directories: BTreeSet<&Path> = directories.map(|part| part.path.as_path()).collect();
        let mut names = BTreeSet::new();
        self.parts.iter().find(|part| {
            let parent = part.path.parent().unwrap_or(Path::new(""));
            let listed = parent == Path::new("") || directories.contains(parent);
            !is_inside(&part.path)
                || part.path == Path::new(FILE_NAME)
                || !listed
                || !names.insert(&part.path)
        })
    }

    /// Reads the manifest of the checkpoint in `directory`.
    ///
    /// # Errors
    /// The manifest is missing, damaged, or of another version.
    pub fn load(directory: &Path) -> Result<Self, CheckpointError> {
        let path = directory.join(FILE_NAME);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CheckpointError::corrupt(&path, "it is missing"),
            _ => CheckpointError::file("read", &path)(error),
        })?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(CheckpointError::file("read", &path))?;
        Self::decode(&bytes, &path)
    }
}

/// Returns whether a relative path stays below its directory.
pub(crate) fn is_inside(path: &Path) -> bool {
    let normal = |part: Component<'_>| matches!(part, Component::Normal(_));
    path.components().next().is_some() && path.components().all(normal)
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
            fingerprint: ServerFingerprint::default(),
            taken_at: 1_700_000_000,
            parts: vec![
                Part {
                    path: "images".into(),
                    bytes: 0,
                    kind: PartKind::Directory,
                },
                Part {
                    path: "images/pages-1.img".into(),
                    bytes: 4096,
                    kind: PartKind::File { hash: u128::MAX },
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
        for path in [
            "../other",
            "/etc/passwd",
            "a/../../b",
            "",
            "a/b",
            "images",
            FILE_NAME,
        ] {
            let mut outside = manifest();
            outside.parts[1].path = path.into();
            let bytes = outside.encode().unwrap();
            assert!(Manifest::decode(&bytes, Path::new("m")).is_err(), "{path}");
        }
    }

    #[test]
    fn a_total_beyond_64_bits_is_no_reason_to_panic() {
        let mut large = manifest();
        for part in &mut large.parts {
            part.bytes = u64::MAX;
        }
        assert_eq!(large.bytes(), u64::MAX);
    }
}
