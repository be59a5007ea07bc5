//! The digest of a directory tree: all files in one list with one hash. Equal lists mean equal trees.
//!
//! ```text
//! d 755 0:0 - - mysql                                          kind, mode, owner and group, bytes,
//! f 640 0:0 12288 0123456789abcdef0123456789abcdef mysql/db.MAI   hash or target, path
//! l 777 0:0 - ../data link
//! ```
//!
//! Sorted by path. What does not fit in a line of words (blanks, other control characters, bytes that are
//! not UTF-8) is written as `\ooo`. Times are not in it: where they matter they are set to a constant.
//! Owners are in it where this program may set them, that is for root. Holes are contents like others.

use brolga_checkpoint::hash_file;
use nix::unistd::geteuid;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// The words of a line before the path.
const WORDS: usize = 5;

/// A directory cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}", path = path.display())]
pub struct ListingError {
    /// The operation.
    pub path: PathBuf,
    /// The reason.
    pub source: io::Error,
}

/// The digest of a directory tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing(String);

impl Listing {
    /// The list of a directory, itself not in it. Its contents are read.
    ///
    /// # Errors
    /// See [`ListingError`].
    pub fn of(directory: &Path) -> Result<Self, ListingError> {
        let mut entries = BTreeMap::new();
        list(directory, Path::new(""), &mut entries)?;
        let mut text = String::new();
        for (path, words) in entries {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{words} {}", escaped(path.as_os_str().as_bytes()));
        }
        Ok(Self(text))
    }

    /// Parses a digest that was written as text.
    #[must_use]
    pub fn from_text(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The hash of the text, in 32 hexadecimal digits.
    #[must_use]
    pub fn hash(&self) -> String {
        format!("{:032x}", xxh3_128(self.0.as_bytes()))
    }

    /// The first path (in the order of bytes) at which another one is different, and what is there
    /// here and in the other.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<[String; 3]> {
        let (ours, theirs) = (self.entries(), other.entries());
        let paths = ours.keys().chain(theirs.keys());
        let differs = |path: &&&str| ours.get(*path) != theirs.get(*path);
        let path = paths.filter(differs).min()?;
        let shown = |entries: &BTreeMap<&str, &str>| match entries.get(path) {
            Some(words) => described(words),
            None => "not there".to_owned(),
        };
        Some([(*path).to_owned(), shown(&ours), shown(&theirs)])
    }

    fn entries(&self) -> BTreeMap<&str, &str> {
        let lines = self.0.lines();
        let split = |line: &'_ str| {
            let (at, _) = line.match_indices(' ').nth(WORDS - 1)?;
            Some((at, at + 1))
        };
        lines
            .filter_map(|line| split(line).map(|(end, path)| (&line[path..], &line[..end])))
            .collect()
    }
}

/// Describes what is at a path.
fn described(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    match words[..] {
        ["f", mode, owner, bytes, hash] => {
            format!("a file of {bytes} bytes, hash {hash}, mode {mode}, owner {owner}")
        }
        ["d", mode, owner, ..] => format!("a directory, mode {mode}, owner {owner}"),
        ["l", _, owner, _, target] => format!("a link to {target}, owner {owner}"),
        _ => "something else".to_owned(),
    }
}

fn list(
    top: &Path,
    below: &Path,
    entries: &mut BTreeMap<PathBuf, String>,
) -> Result<(), ListingError> {
    let directory = top.join(below);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ListingError { path, source }
    };
    for entry in fs::read_dir(&directory).map_err(failed(&directory))? {
        let entry = entry.map_err(failed(&directory))?;
        let (path, inside) = (entry.path(), below.join(entry.file_name()));
        let metadata = fs::symlink_metadata(&path).map_err(failed(&path))?;
        let words = words_of(&path, &metadata).map_err(failed(&path))?;
        entries.insert(inside.clone(), words);
        if metadata.is_dir() {
            list(top, &inside, entries)?;
        }
    }
    Ok(())
}

fn words_of(path: &Path, metadata: &Metadata) -> io::Result<String> {
    let mode = metadata.mode() & 0o7777;
    let owner = match geteuid().is_root() {
        true => format!("{}:{}", metadata.uid(), metadata.gid()),
        false => "-".to_owned(),
    };
    let kind = metadata.file_type();
    if kind.is_file() {
        let (bytes, hash) = hash_file(path, &mut |_| ())?;
        return Ok(format!("f {mode:o} {owner} {bytes} {hash:032x}"));
    }
    if kind.is_symlink() {
        let target = fs::read_link(path)?;
        let target = escaped(target.as_os_str().as_bytes());
        return Ok(format!("l {mode:o} {owner} - {target}"));
    }
    let (letter, device) = match () {
        () if kind.is_dir() => ('d', None),
        () if kind.is_fifo() => ('p', None),
        () if kind.is_socket() => ('s', None),
        () if kind.is_char_device() => ('c', Some(metadata.rdev())),
        () => ('b', Some(metadata.rdev())),
    };
    let device = device.map_or("-".to_owned(), |device| format!("{device:x}"));
    Ok(format!("{letter} {mode:o} {owner} - {device}"))
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' || character == ' ' || character.is_control() {
                let mut buffer = [0; 4];
                escape_all(character.encode_utf8(&mut buffer).as_bytes(), &mut text);
            } else {
                text.push(character);
            }
        }
        escape_all(chunk.invalid(), &mut text);
    }
    text
}

fn escape_all(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "\\{byte:03o}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn sample(dir: &Path) {
        fs::create_dir_all(dir.join("sub/deep")).unwrap();
        fs::write(dir.join("sub/data"), "content").unwrap();
        fs::write(dir.join("a b\n"), "").unwrap();
        fs::write(dir.join(OsStr::from_bytes(b"raw\xff")), "x").unwrap();
        symlink("sub/data", dir.join("link")).unwrap();
    }

    #[test]
    fn copies_are_alike_and_every_change_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        sample(&one);
        sample(&two);
        let list = |path: &Path| Listing::of(path).unwrap();
        let original = list(&one);
        assert_eq!(original, list(&two));
        assert_eq!(original.hash(), list(&two).hash());
        let found = || list(&one).first_difference(&list(&two)).unwrap();

        fs::write(two.join("sub/data"), "c0ntent").unwrap();
        let [path, ours, theirs] = found();
        assert_eq!(path, "sub/data");
        assert!(ours.starts_with("a file of 7 bytes, hash ") && ours != theirs);
        fs::write(two.join("sub/data"), "content").unwrap();

        fs::set_permissions(two.join("sub/data"), Permissions::from_mode(0o600)).unwrap();
        assert!(found()[2].contains("mode 600"));
        fs::set_permissions(one.join("sub/data"), Permissions::from_mode(0o600)).unwrap();

        fs::remove_file(two.join("link")).unwrap();
        assert_eq!(found()[0], "link");
        assert_eq!(found()[2], "not there");
        symlink("elsewhere", two.join("link")).unwrap();
        assert!(found()[2].starts_with("a link to elsewhere"));
        fs::remove_file(two.join("link")).unwrap();
        symlink("sub/data", two.join("link")).unwrap();

        fs::create_dir(two.join("sub/empty")).unwrap();
        assert!(found()[2].starts_with("a directory"));
    }

    #[test]
    fn holes_and_times_are_no_differences() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::create_dir_all(&one).unwrap();
        fs::create_dir_all(&two).unwrap();
        fs::write(one.join("f"), vec![0; 1 << 20]).unwrap();
        let sparse = fs::File::create(two.join("f")).unwrap();
        sparse.set_len(1 << 20).unwrap();
        sparse.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(Listing::of(&one).unwrap(), Listing::of(&two).unwrap());
    }

    #[test]
    fn any_name_is_one_word_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        sample(dir.path());
        let listing = Listing::of(dir.path()).unwrap();
        assert_eq!(listing.text().lines().count(), 6, "{}", listing.text());
        let names: Vec<_> = listing.entries().into_keys().collect();
        assert!(names.contains(&"a\\040b\\012") && names.contains(&"raw\\377"));
    }
}
