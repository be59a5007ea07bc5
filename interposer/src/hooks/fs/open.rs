//! Opening files. Files that would tell replicas apart are replaced or hidden.

use super::path;
use crate::hooks::fd::fifo;
use crate::hooks::random;
use crate::hooks::result::{error, finish};
use crate::sys::{SYS_openat, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use core::ffi::{c_char, c_int, c_uint};

/// The kinds of files that are treated differently.
pub(crate) enum Path {
    Ordinary,
    Random,
    /// Measurements of this machine and this run.
    Measurement,
}

/// Files below /proc and /proc/PID whose content differs between replicas at the same logical
/// moment.
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

/// Classifies a path.
///
/// # Safety
/// `path` is null or ends with a NUL.
pub(crate) unsafe fn classify_c(path: *const c_char) -> Path {
    // SAFETY: the caller of open promises a NUL-terminated path.
    classify(unsafe { path::bytes_of(path) })
}

/// Opens a file.
///
/// # Safety
/// As `openat`: `path` ends with a NUL.
pub(crate) unsafe fn open_(
    at: c_int,
    path: *const c_char,
    mut flags: c_int,
    mode: c_uint,
) -> isize {
    let mut turn = Turn::take(op::FILE);
    if let Some(turn) = &mut turn {
        // SAFETY: the caller promises that `path` ends with a NUL.
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
