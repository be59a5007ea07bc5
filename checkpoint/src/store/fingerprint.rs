//! What a server is made of, and the first thing in which two of them differ.
//!
//! Replay and comparison mean something only between servers that are the same: program, interpreter,
//! libraries, interposer, settings, and the files that they start with. The libraries are those that the
//! dynamic linker loads before the program starts; what a program loads later by itself is not known
//! beforehand and not in here.

use crate::store::hexadecimal;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// A file as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileMark {
    /// Its path, as the kernel or the dynamic linker is told it.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// XXH3, 128 bits, of its content.
    #[serde(with = "hexadecimal")]
    pub hash: u128,
}

impl fmt::Display for FileMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, hash {:032x}", self.bytes, self.hash)
    }
}

/// What has to be the same for a log, a checkpoint or another replica to mean anything to a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Hash of what must be alike on all replicas.
    pub configuration: String,
    /// Hash of the interposer.
    pub interposer: String,
    /// Hash of the list of all files of the root that the server is given; empty if it has the machine's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root: String,
    /// Hash of the list of the files that the server starts with; empty if there are none.
    #[serde(default)]
    pub genesis: String,
    /// The program, its interpreters and the libraries that they are linked with, in this order. None
    /// when all files of the root are accounted for.
    #[serde(default)]
    pub files: Vec<FileMark>,
}

/// In what two servers differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// In their settings.
    Configuration,
    /// In the interposer.
    Interposer,
    /// In the program or a library; `None`: it is not used there at all.
    File {
        /// Which.
        path: PathBuf,
        /// Here.
        ours: Option<FileMark>,
        /// There.
        theirs: Option<FileMark>,
    },
    /// In the files of a given root.
    Root,
    /// In the files that they start with.
    Genesis,
}

impl Identity {
    /// The first thing in which another one is different.
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

    /// Why a checkpoint of another one cannot be restored here, if it cannot.
    #[must_use]
    pub fn objection(&self, taken: &Self) -> Option<String> {
        let words = self.mismatch(taken)?.words("here", "when it was taken");
        Some(format!("it is of another server: {words} differs"))
    }
}

fn find<'a>(files: &'a [FileMark], path: &Path) -> Option<&'a FileMark> {
    files.iter().find(|file| file.path == path)
}

fn first_difference(ours: &[FileMark], theirs: &[FileMark]) -> Option<Mismatch> {
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
    /// It in words: what differs, and how it is in both places (`here` and `there` name them).
    #[must_use]
    pub fn words(&self, here: &str, there: &str) -> String {
        let Self::File { path, ours, theirs } = self else {
            return self.subject();
        };
        let shown = |mark: &Option<FileMark>| {
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

    /// What to do about it, so that all replicas are the same.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Configuration => {
                "make command, env, unix, policy, quantum, cpus, descriptors, host_loopback and \
                 backstop alike on all machines"
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

    fn file(path: &str, hash: u128) -> FileMark {
        FileMark {
            path: path.into(),
            bytes: 7,
            hash,
        }
    }

    fn identity(files: &[(&str, u128)]) -> Identity {
        Identity {
            files: files.iter().map(|(path, hash)| file(path, *hash)).collect(),
            ..Identity::default()
        }
    }

    #[test]
    fn the_first_file_that_differs_is_named_with_both_hashes() {
        let ours = identity(&[("/bin/server", 1), ("/lib/z.so", 2), ("/lib/a.so", 3)]);
        assert_eq!(ours.mismatch(&ours.clone()), None);
        let theirs = identity(&[("/bin/server", 1), ("/lib/z.so", 4), ("/lib/a.so", 5)]);
        let words = ours.mismatch(&theirs).unwrap().words("here", "there");
        assert!(words.starts_with("/lib/z.so (7 bytes, hash 0"), "{words}");
        assert!(words.contains("2, here; 7 bytes"), "{words}");
        assert!(words.ends_with("4, there)"), "{words}");
    }

    #[test]
    fn a_library_that_only_one_uses_is_a_difference() {
        let ours = identity(&[("/bin/server", 1), ("/lib/z.so", 2)]);
        let theirs = identity(&[("/bin/server", 1)]);
        let words = |from: &Identity, to: &Identity| {
            let mismatch = from.mismatch(to).unwrap();
            mismatch.words("here", "there")
        };
        assert!(words(&ours, &theirs).contains("not used, there"));
        assert!(words(&theirs, &ours).contains("not used, here"));
    }

    #[test]
    fn everything_else_is_compared_too() {
        let plain = Identity::default();
        let with = |change: fn(&mut Identity)| {
            let mut other = Identity::default();
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
