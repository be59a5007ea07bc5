//! The genesis, that is the files that a server starts with, on its way to a joiner.
//!
//! ```text
//! { frame: entry as JSON | frames of bytes, if it is a file } … frame: empty
//! ```
//!
//! Directories come before what is in them. Owners are kept where that can be (by root), times are
//! not: the server's working directory has constant ones anyway. Nodes compare the files when they
//! connect.

use super::wire::{read_frame, write_frame};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

const PIECE_BYTES: usize = 256 << 10;

/// Something in the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Below the directory; bytes, since names need not be text. Empty for the directory itself.
    path: Vec<u8>,
    mode: u32,
    owner: [u32; 2],
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum What {
    Directory,
    /// So many bytes follow.
    File(u64),
    /// To there.
    Link(Vec<u8>),
}

/// Sends all of a directory.
///
/// # Errors
/// Files cannot be read, or the other side is gone.
pub fn send(directory: &Path, to: &mut impl Write) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(PIECE_BYTES, to);
    send_below(directory, Path::new(""), &mut to)?;
    write_frame(&mut to, &[])?;
    to.flush()
}

fn send_below(top: &Path, below: &Path, to: &mut impl Write) -> io::Result<()> {
    let path = top.join(below);
    let metadata = fs::symlink_metadata(&path)?;
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        What::Directory
    } else if kind.is_file() {
        What::File(metadata.len())
    } else if kind.is_symlink() {
        What::Link(fs::read_link(&path)?.into_os_string().into_vec())
    } else {
        let text = format!("{} is neither file, directory nor link", path.display());
        return Err(io::Error::other(text));
    };
    let entry = Entry {
        path: below.as_os_str().as_bytes().to_vec(),
        mode: metadata.mode() & 0o7777,
        owner: [metadata.uid(), metadata.gid()],
        what,
    };
    write_frame(to, &serde_json::to_vec(&entry)?)?;
    match entry.what {
        What::File(bytes) => send_bytes(&path, bytes, to),
        What::Link(_) => Ok(()),
        What::Directory => {
            let names = fs::read_dir(&path)?.map(|entry| Ok(entry?.file_name()));
            let mut names: Vec<OsString> = names.collect::<io::Result<_>>()?;
            names.sort();
            names
                .iter()
                .try_for_each(|name| send_below(top, &below.join(name), to))
        }
    }
}

fn send_bytes(path: &Path, bytes: u64, to: &mut impl Write) -> io::Result<()> {
    let mut file = File::open(path)?.take(bytes);
    let mut left = bytes;
    let mut piece = vec![0; PIECE_BYTES];
    while left > 0 {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_frame(to, &piece[..count])?;
        left -= count as u64;
    }
    Ok(())
}

/// Makes `directory`, which must not be there, of what comes.
///
/// # Errors
/// Files cannot be written, the other side is gone, or what it sends is malformed.
pub fn receive(from: &mut impl Read, directory: &Path) -> io::Result<()> {
    let mut directories = Vec::new();
    loop {
        let frame = read_frame(from)?;
        if frame.is_empty() {
            break;
        }
        let entry: Entry = serde_json::from_slice(&frame)?;
        let path = directory.join(checked(&entry.path, directories.is_empty())?);
        // A link that came before may lead anywhere.
        let parent = path.parent().unwrap_or(directory);
        if !directories.is_empty() && !directories.iter().rev().any(|(made, _)| made == parent) {
            let what = "a path below something that is no directory";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        match &entry.what {
            What::Directory => {
                fs::create_dir(&path)?;
                directories.push((path, entry));
            }
            What::Link(target) => {
                symlink(OsStr::from_bytes(target), &path)?;
                give_away(&path, &entry)?;
            }
            What::File(bytes) => {
                receive_bytes(from, &path, *bytes)?;
                give_away(&path, &entry)?;
                fs::set_permissions(&path, Permissions::from_mode(entry.mode))?;
            }
        }
    }
    // At last, since their modes may forbid to put anything in.
    for (path, entry) in directories.into_iter().rev() {
        give_away(&path, &entry)?;
        fs::set_permissions(&path, Permissions::from_mode(entry.mode & 0o7777))?;
        File::open(&path).or_else(readable)?.sync_all()?;
    }
    Ok(())
}

/// A directory that its owner may not read cannot be synced by whoever is not root, and need not
/// be.
fn readable(error: io::Error) -> io::Result<File> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => File::open("/dev/null"),
        _ => Err(error),
    }
}

/// A path that stays below the directory; the first one is the directory itself.
fn checked(path: &[u8], first: bool) -> io::Result<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(path.to_vec()));
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let fits = path.components().all(plain) && (path.as_os_str().is_empty() == first);
    match fits {
        true => Ok(path),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a path that leads elsewhere",
        )),
    }
}

fn receive_bytes(from: &mut impl Read, path: &Path, bytes: u64) -> io::Result<()> {
    // Not to be followed: a link that came before must lead nowhere.
    let mut file = File::create_new(path)?;
    let mut left = bytes;
    while left > 0 {
        let piece = read_frame(from)?;
        let count = piece.len() as u64;
        if count == 0 || count > left {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a file of another length than was said",
            ));
        }
        file.write_all(&piece)?;
        left -= count;
    }
    file.sync_all()
}

fn give_away(path: &Path, entry: &Entry) -> io::Result<()> {
    let [user, group] = entry.owner;
    match geteuid().is_root() {
        true => lchown(path, Some(user), Some(group)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with one of each kind, and a name that is no text.
    fn sample(top: &Path) -> PathBuf {
        let directory = top.join("genesis");
        fs::create_dir_all(directory.join("a/empty")).unwrap();
        fs::write(directory.join("a/file"), vec![7; PIECE_BYTES + 10]).unwrap();
        fs::write(directory.join(OsStr::from_bytes(b"\xff b")), "").unwrap();
        symlink("../nowhere", directory.join("link")).unwrap();
        let mode = Permissions::from_mode(0o640);
        fs::set_permissions(directory.join("a/file"), mode).unwrap();
        fs::set_permissions(directory.join("a"), Permissions::from_mode(0o700)).unwrap();
        directory
    }

    fn sent(directory: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        send(directory, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_arrives_is_what_was_sent() {
        let top = tempfile::tempdir().unwrap();
        let bytes = sent(&sample(top.path()));
        let copy = top.path().join("copy");
        receive(&mut &bytes[..], &copy).unwrap();
        assert_eq!(sent(&copy), bytes);
        assert_eq!(
            fs::read_link(copy.join("link")).unwrap(),
            Path::new("../nowhere")
        );
    }

    #[test]
    fn half_of_it_is_an_error() {
        let top = tempfile::tempdir().unwrap();
        let bytes = sent(&sample(top.path()));
        for (round, cut) in [0, 5, 30, bytes.len() / 2, bytes.len() - 1]
            .iter()
            .enumerate()
        {
            let copy = top.path().join(round.to_string());
            assert!(receive(&mut &bytes[..*cut], &copy).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        let top = tempfile::tempdir().unwrap();
        let outside = top.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let entry = |path: &str, what: What| Entry {
            path: path.into(),
            mode: 0o755,
            owner: [0, 0],
            what,
        };
        let first = entry("", What::Directory);
        let link = entry("out", What::Link(outside.as_os_str().as_bytes().to_vec()));
        for (round, bad) in [
            vec![first.clone(), entry("../x", What::File(0))],
            vec![first.clone(), entry("/x", What::File(0))],
            vec![first.clone(), entry("a/../../x", What::File(0))],
            vec![first.clone(), entry("", What::Directory)],
            vec![entry("x", What::File(0))],
            vec![first.clone(), link.clone(), entry("out", What::File(0))],
            vec![first.clone(), link.clone(), entry("out/x", What::File(0))],
        ]
        .iter()
        .enumerate()
        {
            let mut bytes = Vec::new();
            for entry in bad {
                write_frame(&mut bytes, &serde_json::to_vec(entry).unwrap()).unwrap();
            }
            write_frame(&mut bytes, &[]).unwrap();
            let copy = top.path().join(format!("copy-{round}"));
            assert!(receive(&mut &bytes[..], &copy).is_err(), "{bad:?}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(!top.path().join("x").exists());
    }
}
