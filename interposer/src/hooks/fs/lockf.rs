//! `lockf`.

use crate::hooks::fd::fcntl;
use crate::hooks::process::pid;
use crate::hooks::result::{error, finish};
use core::ffi::c_int;

/// As libc does it, from where the file offset is.
fn lockf_(fd: c_int, command: c_int, len: i64) -> isize {
    // SAFETY: integers only.
    let mut lock: libc::flock = unsafe { core::mem::zeroed() };
    lock.l_whence = libc::SEEK_CUR as i16;
    lock.l_len = len;
    let (kind, command) = match command {
        libc::F_ULOCK => (libc::F_UNLCK, libc::F_SETLK),
        libc::F_LOCK => (libc::F_WRLCK, libc::F_SETLKW),
        libc::F_TLOCK => (libc::F_WRLCK, libc::F_SETLK),
        libc::F_TEST => (libc::F_RDLCK, libc::F_GETLK),
        _ => return error(libc::EINVAL),
    };
    lock.l_type = kind as i16;
    let result = fcntl::fcntl_(fd, command, (&raw mut lock).expose_provenance());
    if result < 0 || command != libc::F_GETLK {
        return result;
    }
    // SAFETY: getpid has no preconditions.
    let own = lock.l_pid == unsafe { pid::getpid() };
    if lock.l_type == libc::F_UNLCK as i16 || own {
        0
    } else {
        error(libc::EACCES)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockf(fd: c_int, command: c_int, len: i64) -> c_int {
    finish(lockf_(fd, command, len)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockf64(fd: c_int, command: c_int, len: i64) -> c_int {
    finish(lockf_(fd, command, len)) as c_int
}
