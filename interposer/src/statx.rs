//! The kernel's own answers about files: `statx`, the identity of a file, the clock of file
//! systems.

use crate::nanoseconds;
use crate::sys::sys;
use brolga_vfile::inodes::FileId;
use brolga_vfile::times::{self, Time};
use core::ffi::{c_char, c_int};
use libc::{statx as Statx, timespec};
/// No path: the descriptor itself, with [`SELF`].
pub(crate) const EMPTY: *const c_char = c"".as_ptr();

/// A time of the kernel's.
pub(crate) fn time_of(time: &libc::statx_timestamp) -> Time {
    Time {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec,
    }
}

/// Asks the kernel for all fields that are needed.
///
/// # Safety
/// `path` ends with a NUL.
pub(crate) unsafe fn ask(
    at: c_int,
    path: *const c_char,
    flags: c_int,
    mask: u32,
) -> Result<Statx, isize> {
    let mut file = core::mem::MaybeUninit::<Statx>::uninit();
    let wanted = mask | libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    // SAFETY: the caller's path, and room for the answer.
    let result = unsafe { sys!(libc::SYS_statx, at, path, flags, wanted, file.as_mut_ptr()) };
    if result < 0 {
        return Err(result);
    }
    // SAFETY: the kernel has just filled it.
    Ok(unsafe { file.assume_init() })
}

/// Relative to the working directory.
pub(crate) const HERE: c_int = libc::AT_FDCWD;
/// A link itself, not its target.
pub(crate) const LINK: c_int = libc::AT_SYMLINK_NOFOLLOW;
/// The descriptor itself.
pub(crate) const SELF: c_int = libc::AT_EMPTY_PATH;

/// A moment before now, by the clock of file systems, which lags by a timer tick.
pub(crate) fn just_now() -> Time {
    const LAG_NS: u64 = 100_000_000;
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: room for a time.
    unsafe { sys!(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, &raw mut now) };
    times::moment(nanoseconds::ns_of(&now) - LAG_NS)
}

/// The identity of a file that the kernel was asked for.
pub(crate) fn id_of(file: &Statx) -> FileId {
    FileId {
        device: u64::from(file.stx_dev_major) << 32 | u64::from(file.stx_dev_minor),
        inode: file.stx_ino,
        born: if file.stx_mask & libc::STATX_BTIME != 0 {
            time_of(&file.stx_btime)
        } else {
            Time::default()
        },
    }
}

/// The device of files below /proc, in identities. The kernel numbers those anew whenever it has
/// forgotten them, as it does when memory is short, so they are known by their place.
pub(crate) const PROC: u64 = u64::MAX;

/// A file is known by its place, which is the same in every life.
pub(crate) fn is_identified_by_path(id: &FileId) -> bool {
    id.device == PROC
}

/// The identity of the file at an absolute path, given with its NUL.
pub(crate) fn id_at(path: &[u8]) -> Option<FileId> {
    if path.last() != Some(&0) {
        return None;
    }
    // SAFETY: it ends with a NUL.
    let file = unsafe { ask(HERE, path.as_ptr().cast(), LINK, 0) };
    file.ok().as_ref().map(id_of)
}
