//! `close` and its family.

use super::object::{forget, is_ours, object};
use crate::hooks::fs::lock;
use crate::hooks::result::{error, finish};
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::handover::{FIRST_FD, LAST_FD};
use brolga_tape::operation as op;
use brolga_vnet::Object;
use core::ffi::{c_int, c_uint};

/// Closes a descriptor of any kind.
pub(crate) fn close_(fd: c_int) -> isize {
    if is_ours(fd) {
        return error(libc::EBADF);
    }
    let Some(mut turn) = Turn::take(op::CLOSE) else {
        // SAFETY: a plain integer.
        return unsafe { sys!(sys::SYS_close, fd) };
    };
    let known = object(&mut turn, fd);
    if known.is_some() {
        forget(&mut turn, fd);
    }
    // SAFETY: a plain integer.
    let result = unsafe { sys!(sys::SYS_close, fd) };
    if known == Some(Object::Stream) {
        turn.real_changed();
    }
    lock::released(&mut turn);
    result
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    finish(close_(fd)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __close(fd: c_int) -> c_int {
    finish(close_(fd)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    if !Turn::is_scheduled() {
        // SAFETY: plain integers.
        return finish(unsafe { sys!(sys::SYS_close_range, first, last, flags) }) as c_int;
    }
    if flags != 0 {
        // Closing later, at exec: what is open then is looked at then.
        return finish(close_range_around(first, last, flags)) as c_int;
    }
    let last = last.min(brolga_vnet::FDS_MAX as c_uint);
    for fd in first..=last {
        close_(fd as c_int);
    }
    0
}

/// Closes all but our own, for a process that has ended for the tree.
pub(crate) fn close_all() {
    close_range_around(0, c_uint::MAX, 0);
}

/// The kernel's close_range on both sides of our own descriptors.
fn close_range_around(first: c_uint, last: c_uint, flags: c_int) -> isize {
    let (ours, ours_end) = (FIRST_FD as c_uint, LAST_FD as c_uint);
    // SAFETY: plain integers.
    unsafe {
        if first < ours {
            sys!(sys::SYS_close_range, first, last.min(ours - 1), flags);
        }
        if last > ours_end {
            sys!(sys::SYS_close_range, first.max(ours_end + 1), last, flags);
        }
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn closefrom(first: c_int) {
    // SAFETY: plain integers.
    unsafe { close_range(first.max(0) as c_uint, c_uint::MAX, 0) };
}

/// After an `exec`: what was closed by it no longer names anything.
pub fn after_exec(turn: &mut Turn) {
    for fd in 0..brolga_vnet::FDS_MAX as c_int {
        // SAFETY: F_GETFD takes no pointer.
        if object(turn, fd).is_some() && unsafe { sys!(sys::SYS_fcntl, fd, libc::F_GETFD) } < 0 {
            forget(turn, fd);
        }
    }
    lock::released(turn);
}
