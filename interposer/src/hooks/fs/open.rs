//! Files: those that would tell replicas apart, and flushes that the log makes needless.

use super::path;
use crate::hooks::fd::fifo;
use crate::hooks::stdio::stream;
use crate::hooks::{error, op, random};
use crate::libc_symbols::Real;
use crate::sys::{self, SYS_openat, finish, sys};
use crate::turn::Turn;
use core::ffi::{c_char, c_int, c_uint, c_void};

type Fopen = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut c_void;

static FOPEN: Real = Real::new(c"fopen");

pub fn resolve() {
    FOPEN.get();
}

/// What a path means to us.
enum Path {
    Ordinary,
    Random,
    /// Measurements of this machine and this run.
    Measurement,
}

/// Files below /proc and /proc/PID whose content differs between replicas at the same logical moment.
const MEASUREMENTS: [&[u8]; 13] = [
    b"stat",
    b"statm",
    b"status",
    b"smaps",
    b"smaps_rollup",
    b"io",
    b"sched",
    b"schedstat",
    b"meminfo",
    b"loadavg",
    b"uptime",
    b"vmstat",
    b"interrupts",
];

fn classify(path: &[u8]) -> Path {
    if path == b"/dev/urandom" || path == b"/dev/random" {
        return Path::Random;
    }
    let Some(rest) = path.strip_prefix(b"/proc/") else {
        return Path::Ordinary;
    };
    if rest.starts_with(b"sysvipc/") || rest == b"locks" {
        // Objects of the machine, which the server's are none of; and ids of real processes.
        return Path::Measurement;
    }
    let name = match rest.iter().position(|byte| *byte == b'/') {
        None => rest,
        Some(at) => {
            let (process, name) = (&rest[..at], &rest[at + 1..]);
            let own = process == b"self" || process.iter().all(u8::is_ascii_digit);
            if own { name } else { b"" }
        }
    };
    if MEASUREMENTS.contains(&name) {
        Path::Measurement
    } else {
        Path::Ordinary
    }
}

unsafe fn classify_c(path: *const c_char) -> Path {
    // SAFETY: the caller of open promises a NUL-terminated path.
    classify(unsafe { path::bytes_of(path) })
}

pub(crate) unsafe fn open_(
    at: c_int,
    path: *const c_char,
    mut flags: c_int,
    mode: c_uint,
) -> isize {
    let mut turn = Turn::take(op::FILE);
    if let Some(turn) = &mut turn {
        // SAFETY: the caller's promise.
        match unsafe { classify_c(path) } {
            Path::Ordinary => {}
            Path::Random => return random::open_device(turn, flags),
            Path::Measurement => return error(libc::ENOENT),
        }
        // SAFETY: as above.
        if flags & libc::O_NOFOLLOW != 0 && path::is_common(at, unsafe { path::bytes_of(path) }) {
            flags &= !libc::O_NOFOLLOW;
        }
        // SAFETY: as above.
        unsafe {
            if fifo::is_fifo(at, path, flags) {
                return fifo::open(turn, at, path, flags, mode);
            }
        }
    }
    // SAFETY: the caller's pointer, passed on.
    unsafe { sys!(SYS_openat, at, path, flags, mode) }
}

macro_rules! open_hooks {
    ($($name:ident),*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
            // SAFETY: the caller's promise.
            finish(unsafe { open_(libc::AT_FDCWD, path, flags, mode) }) as c_int
        }
    )* };
}
open_hooks!(open, open64, __open, __open64, __open_2, __open64_2);

macro_rules! creat_hooks {
    ($($name:ident),*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, mode: c_uint) -> c_int {
            let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
            // SAFETY: the caller's promise.
            finish(unsafe { open_(libc::AT_FDCWD, path, flags, mode) }) as c_int
        }
    )* };
}
creat_hooks!(creat, creat64);

macro_rules! openat_hooks {
    ($($name:ident),*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            at: c_int,
            path: *const c_char,
            flags: c_int,
            mode: c_uint,
        ) -> c_int {
            // SAFETY: the caller's promise.
            finish(unsafe { open_(at, path, flags, mode) }) as c_int
        }
    )* };
}
openat_hooks!(openat, openat64, __openat_2, __openat64_2);

unsafe fn fopen_(path: *const c_char, mode: *const c_char) -> *mut c_void {
    let mut turn = Turn::take(op::FILE);
    if let Some(turn) = &mut turn {
        // SAFETY: the caller's promise.
        match unsafe { classify_c(path) } {
            // SAFETY: as above.
            Path::Ordinary if unsafe { fifo::is_fifo(libc::AT_FDCWD, path, 0) } => {
                // SAFETY: as above.
                let open = |flags| unsafe { fifo::open(turn, libc::AT_FDCWD, path, flags, 0) };
                // SAFETY: the mode is the caller's.
                return unsafe { stream::open_by_name(mode, open) };
            }
            Path::Ordinary => {}
            Path::Random => {
                let open = |flags| random::open_device(turn, flags);
                // SAFETY: the mode is the caller's.
                return unsafe { stream::open_by_name(mode, open) };
            }
            Path::Measurement => {
                sys::set_errno(libc::ENOENT);
                return core::ptr::null_mut();
            }
        }
    }
    // SAFETY: libc's own function with the caller's arguments.
    unsafe {
        let real: Fopen = core::mem::transmute(FOPEN.get());
        real(path, mode)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { fopen_(path, mode) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { fopen_(path, mode) }
}

/// fsync and its kin: the log already makes every acknowledged input durable, and a restarted replica
/// is rebuilt from it, so flushing the server's own files adds nothing.
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
