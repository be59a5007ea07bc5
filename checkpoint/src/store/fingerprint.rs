//! Server fingerprints: hashes of everything that has to be identical on all replicas.
//!
//! Replay and comparison are only meaningful between servers with identical programs, interpreters,
//! libraries, interposers, settings and initial files. The libraries are those that the dynamic
//! linker loads before the program starts; what a program loads later is not known in advance and
//! is not included.

use crate::store::hexadecimal;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// A file with length and hash of its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFingerprint {
    /// The path, as it is passed to the kernel or the dynamic linker.
    pub path: PathBuf,
    /// Length of its content.
    pub bytes: u64,
    /// XXH3 hash (128 bits) of its content.
    #[serde(with = "hexadecimal")]
    pub hash: u128,
}

impl fmt::Display for FileFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, hash {:032x}", self.bytes, self.hash)
    }
}

/// Everything that has to be identical for a server to replay a log, restore a checkpoint, or be
/// compared with another replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFingerprint {
    /// Hash of the settings that must be identical on all replicas.
    pub configuration: String,
    /// Hash of the interposer.
    pub interposer: String,
    /// Hash of the list of all files of the given root directory; empty if the server has the
    /// machine's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root: String,
    /// Hash of the list of the initial files; empty if there are none.
    #[serde(default)]
    pub genesis: String,
    /// The program, its interpreters and the libraries that they are linked with, in this order.
    /// Empty if `root` covers all files.
    #[serde(default)]
    pub files: Vec<FileFingerprint>,
}

/// The first difference between two server fingerprints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The settings.
    Configuration,
    /// The interposer.
    Interposer,
    /// The program or a library; `None` on the side that does not use it.
    File {
        /// The path of the file.
        path: PathBuf,
        /// The file on this side.
        ours: Option<FileFingerprint>,
        /// The file on the other side.
        theirs: Option<FileFingerprint>,
    },
    /// The files of a given root directory.
    Root,
    /// The initial files.
    Genesis,
}

impl ServerFingerprint {
    /// Returns the first difference from another fingerprint.
    #[must_use]
    pub fn mismatch(&self, other: &Self) -> Option<Mismatch> {
        if self.configuration != other.configuration {
            return Some(Mismatch::Configuration);
        }
        if self.interposer != other.interposer {
            return Some(Mismatch::Interposer);
        }
        if self.root != other.root {
            return Some(Mismatch::Root);
        }
        if let Some(file) = first_difference(&self.files, &other.files) {
            return Some(file);
        }
        (self.genesis != other.genesis).then_some(Mismatch::Genesis)
    }

    /// Returns why a checkpoint of the server `taken` cannot be restored here, if it cannot.
    #[must_use]
    pub fn objection(&self, taken: &Self) -> Option<String> {
        let words = self.mismatch(taken)?.describe("here", "when it was taken");
        Some(format!("it is of another server: {words} differs"))
    }
}

fn find<'a>(files: &'a [FileFingerprint], path: &Path) -> Option<&'a FileFingerprint> {
    files.iter().find(|file| file.path == path)
}

fn first_difference(ours: &[FileFingerprint], theirs: &[FileFingerprint]) -> Option<Mismatch> {
    let all = ours.iter().chain(theirs).map(|file| file.path.as_path());
    for path in all {
        let (here, there) = (find(ours, path), find(theirs, path));
        if here != there {
            return Some(Mismatch::File {
                path: path.to_path_buf(),
                ours: here.cloned(),
                theirs: there.cloned(),
            });
        }
    }
    None
}

impl Mismatch {
    /// Describes the difference; `here` and `there` name the two sides.
    #[must_use]
    pub fn describe(&self, here: &str, there: &str) -> String {
        let Self::File { path, ours, theirs } = self else {
            return self.subject();
        };
        let shown = |mark: &Option<FileFingerprint>| {
            let mark = mark.as_ref().map(ToString::to_string);
            mark.unwrap_or_else(|| "not used".into())
        };
        let path = path.display();
        let (ours, theirs) = (shown(ours), shown(theirs));
        format!("{path} ({ours}, {here}; {theirs}, {there})")
    }

    fn subject(&self) -> String {
        match self {
            Self::Configuration => "the command or another setting of the server".into(),
            Self::Interposer => "brolga's interposer".into(),
            Self::File { path, .. } => path.display().to_string(),
            Self::Root => "the root directory that the server is given".into(),
            Self::Genesis => "the genesis".into(),
        }
    }

    /// Returns what to do so that all replicas are identical.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Configuration => {
                "make command, env, unix_sockets, policy, quantum_ticks, cpus, descriptors_max, \
                 host_loopback and syscall_filter identical on all machines"
            }
            Self::Interposer => "use the same build of brolga on all machines",
            Self::File { .. } => "install the same version of its package on all machines",
            Self::Root => "give all machines the same copy of it",
            Self::Genesis => "give all nodes the same copy of it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, hash: u128) -> FileFingerprint {
        FileFingerprint {
            path: path.into(),
            bytes: 7,
            hash,
        }
    }

    fn fingerprint(files: &[(&str, u128)]) -> ServerFingerprint {
        ServerFingerprint {
            files: files.iter().map(|(path, hash)| file(path, *hash)).collect(),
            ..ServerFingerprint::default()
        }
    }

    #[test]
    fn the_first_file_that_differs_is_named_with_both_hashes() {
        let ours = fingerprint(&[("/bin/server", 1), ("/lib/z.so", 2), ("/lib/a.so", 3)]);
        assert_eq!(ours.mismatch(&ours.clone()), None);
        let theirs = fingerprint(&[("/bin/server", 1), ("/lib/z.so", 4), ("/lib/a.so", 5)]);
        let words = ours.mismatch(&theirs).unwrap().describe("here", "there");
        assert!(words.starts_with("/lib/z.so (7 bytes, hash 0"), "{words}");
        assert!(words.contains("2, here; 7 bytes"), "{words}");
        assert!(words.ends_with("4, there)"), "{words}");
    }

    #[test]
    fn a_library_that_only_one_uses_is_a_difference() {
        let ours = fingerprint(&[("/bin/server", 1), ("/lib/z.so", 2)]);
        let theirs = fingerprint(&[("/bin/server", 1)]);
        let words = |from: &ServerFingerprint, to: &ServerFingerprint| {
            let mismatch = from.mismatch(to).unwrap();
            mismatch.describe("here", "there")
        };
        assert!(words(&ours, &theirs).contains("not used, there"));
        assert!(words(&theirs, &ours).contains("not used, here"));
    }

    #[test]
    fn everything_else_is_compared_too() {
        let plain = ServerFingerprint::default();
        let with = |change: fn(&mut ServerFingerprint)| {
            let mut other = ServerFingerprint::default();
            change(&mut other);
            plain.mismatch(&other).unwrap()
        };
        assert_eq!(
            with(|it| it.configuration = "1".into()),
            Mismatch::Configuration
        );
        assert_eq!(with(|it| it.interposer = "1".into()), Mismatch::Interposer);
        assert_eq!(with(|it| it.root = "1".into()), Mismatch::Root);
        assert_eq!(with(|it| it.genesis = "1".into()), Mismatch::Genesis);
    }
}
