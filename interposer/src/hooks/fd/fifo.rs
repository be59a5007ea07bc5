//! Opening FIFOs, which waits for the other end.
//!
//! The FIFO is opened without blocking; whether the other end is open is checked again whenever a
//! real object has changed. A waiting reader already counts as a reader, so that a writer finds it.
//! A waiting writer does not count: it misses a reader that opens without blocking and closes again
//! before the writer gets its turn.

use super::object::name;
use super::real::is_ready;
use crate::hooks::result::error;
use crate::sys::{self, sys};
use crate::turn::{REAL, Turn};
use brolga_dmt::Wakeup;
use brolga_vnet::Object;
use core::ffi::{c_char, c_int, c_uint};

/// File system of pipes without a name, which `/proc` gives names to. Opening those never waits.
const PIPES: i64 = 0x5049_5045;

/// Returns whether a path names a FIFO or a pipe.
///
/// # Safety
/// `path` is NUL-terminated.
pub(crate) unsafe fn is_fifo(at: c_int, path: *const c_char, flags: c_int) -> bool {
    if flags & (libc::O_PATH | libc::O_DIRECTORY) != 0 {
        return false;
    }
    let follow = if flags & libc::O_NOFOLLOW != 0 {
        libc::AT_SYMLINK_NOFOLLOW
    } else {
        0
    };
    // SAFETY: all zeros are a valid stat.
    let mut file: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: the caller's path, and room for the answer.
    let result = unsafe { sys!(libc::SYS_newfstatat, at, path, &raw mut file, follow) };
    result == 0 && file.st_mode & libc::S_IFMT == libc::S_IFIFO
}

/// Opens it.
///
/// # Safety
/// As for `openat`.
pub(crate) unsafe fn open(
    turn: &mut Turn,
    at: c_int,
    path: *const c_char,
    flags: c_int,
    mode: c_uint,
) -> isize {
    let raw = |more: c_int| {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_openat, at, path, flags | more, mode) }
    };
    let waits = flags & libc::O_NONBLOCK == 0;
    let fd = match flags & libc::O_ACCMODE {
        libc::O_RDONLY if waits => open_to_read(turn, raw),
        libc::O_WRONLY if waits => open_to_write(turn, raw),
        _ => raw(0),
    };
    if fd < 0 {
        return fd;
    }
    turn.real_changed();
    name(turn, fd, Object::Stream)
}

fn open_to_read(turn: &mut Turn, raw: impl Fn(c_int) -> isize) -> isize {
    let fd = raw(libc::O_NONBLOCK);
    if fd < 0 {
        return fd;
    }
    turn.real_changed();
    while !is_pipe(fd) && !writer_came(fd) {
        if turn.block(REAL, None) == Wakeup::Interrupted {
            // SAFETY: our own descriptor so far.
            unsafe { sys!(sys::SYS_close, fd) };
            turn.real_changed();
            return error(libc::EINTR);
        }
    }
    blocking(fd)
}

fn open_to_write(turn: &mut Turn, raw: impl Fn(c_int) -> isize) -> isize {
    loop {
        let fd = raw(libc::O_NONBLOCK);
        if fd >= 0 {
            return blocking(fd);
        }
        if fd != error(libc::ENXIO) {
            return fd;
        }
        if turn.block(REAL, None) == Wakeup::Interrupted {
            return error(libc::EINTR);
        }
    }
}

/// Makes a descriptor one that blocks, as far as anybody can tell.
fn blocking(fd: isize) -> isize {
    // SAFETY: F_GETFL and F_SETFL take no pointer.
    unsafe {
        let flags = sys!(sys::SYS_fcntl, fd, libc::F_GETFL) as c_int;
        sys!(sys::SYS_fcntl, fd, libc::F_SETFL, flags & !libc::O_NONBLOCK);
    }
    fd
}

fn is_pipe(fd: isize) -> bool {
    // SAFETY: integers only.
    let mut system: libc::statfs = unsafe { core::mem::zeroed() };
    // SAFETY: room for the answer.
    let result = unsafe { sys!(libc::SYS_fstatfs, fd, &raw mut system) };
    result == 0 && system.f_type == PIPES
}

/// Returns whether there is a writer, or was one since the FIFO was opened.
fn writer_came(fd: isize) -> bool {
    // Bytes, or the end after a writer that has gone again.
    if is_ready(fd as c_int, libc::POLLIN) {
        return true;
    }
    let mut byte = 0u8;
    // SAFETY: room for a byte. There is none: the kernel says whether one could still come.
    let read = unsafe { sys!(sys::SYS_read, fd, &raw mut byte, 1) };
    read == error(libc::EAGAIN)
}
