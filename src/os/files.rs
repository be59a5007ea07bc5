//! Files that are written whole or not at all, and names of sockets that are too long.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A file that cannot be used. One line.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct FileError {
    /// The operation.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub source: io::Error,
}

/// Writes a file so that a crash leaves the old content or the new one, and syncs it.
///
/// # Errors
/// The file cannot be written, synced or renamed.
pub fn write_whole(path: &Path, text: &str) -> Result<(), FileError> {
    let aside = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| FileError {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// A name for `socket` that fits the 108 bytes of a UNIX address however deep its directory is:
/// through an open descriptor of the directory, which must be kept until the name was used.
///
/// # Errors
/// The path has no file name, or its directory cannot be opened.
pub fn short_name(socket: &Path) -> io::Result<(File, PathBuf)> {
    let directory = socket.parent().unwrap_or(Path::new("."));
    let name = socket.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = File::open(directory)?;
    let short = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    Ok((directory, short))
}
