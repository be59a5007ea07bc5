//! `fsync` and its family: needless, since the log already makes every acknowledged input durable.

use crate::hooks::result::finish;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use core::ffi::{c_int, c_uint, c_void};

/// fsync and its family: the log already makes every acknowledged input durable, and a restarted
/// replica is rebuilt from it, so flushing the server's own files adds nothing.
pub(crate) fn sync(number: i64, fd: c_int) -> isize {
    match Turn::take(op::FILE) {
        Some(turn) if !turn.local().keep_fsync => {
            // A bad descriptor must still be one.
            // SAFETY: F_GETFD takes no pointer.
            let there = unsafe { sys!(sys::SYS_fcntl, fd, libc::F_GETFD) };
            there.min(0)
        }
        // SAFETY: plain integers.
        _ => unsafe { sys!(number, fd) },
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    finish(sync(sys::SYS_fsync, fd)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    finish(sync(sys::SYS_fdatasync, fd)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sync_file_range(fd: c_int, from: i64, len: i64, flags: c_uint) -> c_int {
    match Turn::take(op::FILE) {
        Some(turn) if !turn.local().keep_fsync => 0,
        // SAFETY: plain integers.
        _ => finish(unsafe { sys!(libc::SYS_sync_file_range, fd, from, len, flags) }) as c_int,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn msync(at: *mut c_void, len: usize, flags: c_int) -> c_int {
    match Turn::take(op::FILE) {
        Some(turn) if !turn.local().keep_fsync => 0,
        // SAFETY: the caller's pointer, passed on.
        _ => finish(unsafe { sys!(libc::SYS_msync, at, len, flags) }) as c_int,
    }
}
