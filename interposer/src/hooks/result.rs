//! Results of calls: as the kernel gives them (`-errno` on failure) inside, as libc does (-1 and
//! `errno`) at the border.

use crate::sys::{errno, set_errno};
use crate::turn::cancel::after_interruption;
use core::ffi::c_int;

/// The result of libc's own function, as the kernel returns it.
pub(crate) fn own(result: c_int) -> isize {
    match result {
        -1 => error(errno()),
        other => other as isize,
    }
}

/// A wait status, or -1 with errno set.
pub(crate) fn finish_status(result: isize) -> c_int {
    finish(result) as c_int
}

/// An error as the kernel returns it.
pub(crate) const fn error(errno: i32) -> isize {
    -(errno as isize)
}

/// Turns a kernel-style result into a libc-style one.
#[inline]
pub fn finish(result: isize) -> isize {
    if result < 0 {
        if result == -(libc::EINTR as isize) {
            after_interruption();
        }
        set_errno(-result as c_int);
        return -1;
    }
    result
}
