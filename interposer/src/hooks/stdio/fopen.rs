//! `fopen`, `fdopen` and `fclose`.

use super::stream::{self, Cookie, flags_of, needs_us, open_stream};
use crate::hooks::fd::fifo;
use crate::hooks::fs::lock::closing;
use crate::hooks::fs::open::{Path, classify_c};
use crate::hooks::random;
use crate::libc_symbols::{Real, libc_own};
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use core::ffi::{c_char, c_int, c_void};

type Fopen = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut c_void;

static FOPEN: Real = Real::new(c"fopen");

/// Looks up libc's `fopen`.
pub fn resolve() {
    FOPEN.get();
}

/// Opens a file as a stream.
///
/// # Safety
/// As `fopen`: both strings end with a NUL.
unsafe fn fopen_(path: *const c_char, mode: *const c_char) -> *mut c_void {
    let mut turn = Turn::take(op::FILE);
    if let Some(turn) = &mut turn {
        // SAFETY: the caller promises that both strings end with a NUL.
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

/// Makes a stream of a descriptor.
///
/// # Safety
/// As `fdopen`: `mode` ends with a NUL.
unsafe fn fdopen_(fd: c_int, mode: *const c_char) -> *mut c_void {
    if let Some(mut turn) = Turn::take(op::FILE)
        && needs_us(&mut turn, fd)
    {
        // SAFETY: the caller promises a NUL-terminated mode.
        let flags = unsafe { flags_of(mode) };
        // SAFETY: F_GETFL takes no pointer.
        let open = unsafe { sys!(sys::SYS_fcntl, fd, libc::F_GETFL) } as c_int & libc::O_ACCMODE;
        let fits =
            flags.is_some_and(|flags| open == libc::O_RDWR || open == flags & libc::O_ACCMODE);
        if !fits {
            sys::set_errno(libc::EINVAL);
            return core::ptr::null_mut();
        }
        // SAFETY: the caller's mode.
        return unsafe { open_stream(Cookie::plain(fd), mode) }.cast();
    }
    libc_own!(fdopen(fd: c_int, mode: *const c_char) -> *mut c_void)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdopen(fd: c_int, mode: *const c_char) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { fdopen_(fd, mode) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn _IO_fdopen(fd: c_int, mode: *const c_char) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { fdopen_(fd, mode) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fclose(stream: *mut c_void) -> c_int {
    use crate::libc_symbols::libc_own;
    closing(|| libc_own!(fclose(stream: *mut c_void) -> c_int))
}
