//! Copies the content of a file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;

/// Creates `to` with the content of `from`. Returns true if the blocks are shared; otherwise the
/// content was copied without its holes.
pub(super) fn copy(from: &mut File, to: &Path, mode: u32) -> io::Result<bool> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    let mut to = options.write(true).create_new(true).mode(mode).open(to)?;
    if rustix::fs::ioctl_ficlone(&to, &*from).is_ok() {
        return Ok(true);
    }
    copy_data(from, &mut to)?;
    Ok(false)
}

fn copy_data(from: &mut File, to: &mut File) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut at = 0;
    while at < length {
        let Some((start, end)) = next_data(from, at, length)? else {
            break;
        };
        from.seek(SeekFrom::Start(start))?;
        to.seek(SeekFrom::Start(start))?;
        let copied = io::copy(&mut from.by_ref().take(end - start), to)?;
        if copied < end - start {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at = end;
    }
    Ok(())
}

/// Returns the next range that is not a hole. File systems without this information report data
/// only.
fn next_data(file: &File, from: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    let offset = i64::try_from(from).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let found = nix::unistd::lseek(file.as_fd(), offset, nix::unistd::Whence::SeekData);
    let start = match found {
        Err(nix::Error::ENXIO) => return Ok(None),
        Err(nix::Error::EINVAL) => return Ok(Some((from, length))),
        other => other?,
    };
    let end = nix::unistd::lseek(file.as_fd(), start, nix::unistd::Whence::SeekHole)?;
    let position = |at: i64| u64::try_from(at).map_err(|_| io::ErrorKind::InvalidData);
    Ok(Some((position(start)?, position(end)?)))
}
