//! The server's working directory at entry 0 of the log.
//!
//! A server that restarts from the log must find exactly the files it found the first time, so the
//! directory is wiped and made again from the genesis directory, names in sorted order and times at
//! a constant: what `stat` and `readdir` show is the same on every replica and at every restart.

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::geteuid;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// 2000-01-01T00:00:00Z: access and modification time of every file of the genesis.
const GENESIS_SECONDS: i64 = 946_684_800;
const DIRECTORY_MODE: u32 = 0o755;
const TEMPORARY_MODE: u32 = 0o1777;

/// Why a working directory could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkdirError {
    /// A file or directory cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// The operation.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The genesis holds a device, socket or FIFO.
    #[error("{0} in the genesis directory is neither a file nor a directory nor a symbolic link")]
    Special(PathBuf),
}

/// Wipes `dir` and makes it again, empty or as a copy of `genesis`.
///
/// # Errors
/// See [`WorkdirError`]; `dir` may be incomplete then.
pub fn prepare_workdir(dir: &Path, genesis: Option<&Path>) -> Result<(), WorkdirError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(WorkdirError::File {
                action: "wipe",
                path: dir.to_owned(),
                source: error,
            });
        }
        _ => {}
    }
    let parent = dir.parent().unwrap_or(Path::new("/"));
    at("create", parent, fs::create_dir_all(parent))?;
    match genesis {
        Some(genesis) => copy_directory(genesis, dir),
        None => {
            at(
                "create",
                dir,
                DirBuilder::new().mode(DIRECTORY_MODE).create(dir),
            )?;
            set_mode(dir, DIRECTORY_MODE)?;
            set_times(dir)
        }
    }
}

/// Wipes `dir` and makes it again, empty and writable by every user, as `/tmp` is.
///
/// # Errors
/// See [`WorkdirError`].
pub fn prepare_temporary(dir: &Path) -> Result<(), WorkdirError> {
    prepare_workdir(dir, None)?;
    set_mode(dir, TEMPORARY_MODE)
}

/// Makes sure that a directory survives a power cut with all that is in it.
///
/// # Errors
/// See [`WorkdirError`].
pub fn sync_directory(dir: &Path) -> Result<(), WorkdirError> {
    for entry in at("read", dir, fs::read_dir(dir))? {
        let entry = at("read", dir, entry)?;
        let (path, kind) = (entry.path(), at("read", dir, entry.file_type())?);
        if kind.is_dir() {
            sync_directory(&path)?;
        } else if kind.is_file() {
            sync(&path)?;
        }
    }
    sync(dir)
}

fn sync(path: &Path) -> Result<(), WorkdirError> {
    at(
        "sync",
        path,
        File::open(path).and_then(|file| file.sync_all()),
    )
}

fn copy_directory(from: &Path, to: &Path) -> Result<(), WorkdirError> {
    at("create", to, fs::create_dir(to))?;
    let mut names = Vec::new();
    for entry in at("read", from, fs::read_dir(from))? {
        names.push(at("read", from, entry)?.file_name());
    }
    names.sort();
    for name in names {
        copy_one(&from.join(&name), &to.join(&name))?;
    }
    set_owner(from, to)?;
    set_mode(
        to,
        at("read", from, fs::metadata(from))?.permissions().mode(),
    )?;
    set_times(to)
}

/// Files keep their owners, since some servers (PostgreSQL) insist on their own user; but only root can
/// give files away, and whoever is not runs the server as itself.
fn set_owner(from: &Path, to: &Path) -> Result<(), WorkdirError> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let owner = at("read", from, fs::symlink_metadata(from))?;
    let done = lchown(to, Some(owner.uid()), Some(owner.gid()));
    at("give away", to, done)
}

fn copy_one(from: &Path, to: &Path) -> Result<(), WorkdirError> {
    let kind = at("read", from, fs::symlink_metadata(from))?.file_type();
    if kind.is_dir() {
        return copy_directory(from, to);
    }
    if kind.is_symlink() {
        let target = at("read", from, fs::read_link(from))?;
        at("create", to, symlink(target, to))?;
        set_owner(from, to)?;
    } else if kind.is_file() {
        at("copy", from, fs::copy(from, to))?;
        set_owner(from, to)?;
        // Giving a file away has taken its special modes.
        let mode = at("read", from, fs::metadata(from))?.permissions().mode();
        set_mode(to, mode)?;
    } else {
        return Err(WorkdirError::Special(from.to_owned()));
    }
    set_times(to)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), WorkdirError> {
    at(
        "set the mode of",
        path,
        fs::set_permissions(path, Permissions::from_mode(mode)),
    )
}

fn set_times(path: &Path) -> Result<(), WorkdirError> {
    let time = TimeSpec::new(GENESIS_SECONDS, 0);
    let done = utimensat(
        AT_FDCWD,
        path,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    );
    at("set the times of", path, done.map_err(io::Error::from))
}

fn at<T>(action: &'static str, path: &Path, done: io::Result<T>) -> Result<T, WorkdirError> {
    done.map_err(|source| WorkdirError::File {
        action,
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genesis_is_copied_with_modes_and_constant_times() {
        let top = tempfile::tempdir().unwrap();
        let (genesis, dir) = (top.path().join("genesis"), top.path().join("node/work"));
        fs::create_dir_all(genesis.join("sub")).unwrap();
        fs::write(genesis.join("sub/run.sh"), "#!/bin/sh\n").unwrap();
        set_mode(&genesis.join("sub/run.sh"), 0o751).unwrap();
        symlink("sub/run.sh", genesis.join("link")).unwrap();
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("stale"), "left by an earlier run").unwrap();

        prepare_workdir(&dir, Some(&genesis)).unwrap();

        assert!(!dir.join("stale").exists());
        let script = fs::metadata(dir.join("sub/run.sh")).unwrap();
        assert_eq!(script.mode() & 0o7777, 0o751);
        assert_eq!(
            fs::read_link(dir.join("link")).unwrap(),
            Path::new("sub/run.sh")
        );
        for path in ["", "sub", "sub/run.sh", "link"] {
            let time = fs::symlink_metadata(dir.join(path)).unwrap().mtime();
            assert_eq!(time, GENESIS_SECONDS, "{path}");
        }
    }

    #[test]
    fn files_keep_their_owners_where_that_can_be() {
        let top = tempfile::tempdir().unwrap();
        let (genesis, dir) = (top.path().join("genesis"), top.path().join("work"));
        fs::create_dir_all(genesis.join("sub")).unwrap();
        fs::write(genesis.join("sub/key"), "").unwrap();
        symlink("nowhere", genesis.join("link")).unwrap();
        set_mode(&genesis.join("sub/key"), 0o4750).unwrap();
        let own = geteuid().as_raw();
        // Nobody but root can give files away, so that others only see that it is not tried.
        let stranger = if own == 0 { 12345 } else { own };
        for path in ["", "sub", "sub/key", "link"] {
            lchown(genesis.join(path), Some(stranger), None).unwrap();
        }
        set_mode(&genesis.join("sub/key"), 0o4750).unwrap();

        prepare_workdir(&dir, Some(&genesis)).unwrap();

        for path in ["", "sub", "sub/key", "link"] {
            let owner = fs::symlink_metadata(dir.join(path)).unwrap().uid();
            assert_eq!(owner, stranger, "{path}");
        }
        let mode = fs::metadata(dir.join("sub/key")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o4750);
    }

    #[test]
    fn empty_without_genesis_and_special_files_refused() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("work");
        prepare_workdir(&dir, None).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        let genesis = top.path().join("genesis");
        fs::create_dir(&genesis).unwrap();
        nix::unistd::mkfifo(&genesis.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = prepare_workdir(&dir, Some(&genesis)).unwrap_err();
        assert!(matches!(error, WorkdirError::Special(_)), "{error}");
    }
}
