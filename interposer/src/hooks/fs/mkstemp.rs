//! `mkstemp` and its family. libc takes names of temporary files from its own randomness and the
//! clock; here they come from the server's random stream.

use crate::hooks::random;
use crate::hooks::result::{error, finish};
use crate::libc_symbols::libc_own;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use core::ffi::{CStr, c_char, c_int};

const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const PLACES: usize = 6;
/// As many as libc tries.
const TRIES: usize = 62 * 62 * 62;

/// The six places to fill in; `None` when the template has not got them.
///
/// # Safety
/// `template` points to a string that may be written, and stays.
unsafe fn places<'a>(template: *mut c_char, suffix: c_int) -> Option<&'a mut [u8]> {
    let suffix = usize::try_from(suffix).ok()?;
    // SAFETY: the caller promises that `template` points to a string that may be written, and
    // stays.
    let len = unsafe { CStr::from_ptr(template) }.count_bytes();
    let start = len.checked_sub(suffix + PLACES)?;
    // SAFETY: within the string.
    let places =
        unsafe { core::slice::from_raw_parts_mut(template.cast::<u8>().add(start), PLACES) };
    places.iter().all(|byte| *byte == b'X').then_some(places)
}

/// Tries names until one works or fails for another reason than being taken.
///
/// # Safety
/// As for [`places`].
unsafe fn name_until(
    turn: &mut Turn,
    template: *mut c_char,
    suffix: c_int,
    mut make: impl FnMut() -> isize,
) -> isize {
    // SAFETY: the caller's promise.
    let Some(places) = (unsafe { places(template, suffix) }) else {
        return error(libc::EINVAL);
    };
    for _ in 0..TRIES {
        let mut bytes = [0u8; PLACES];
        // SAFETY: our own bytes.
        unsafe { random::fill(turn, bytes.as_mut_ptr().cast(), PLACES) };
        for (place, byte) in places.iter_mut().zip(bytes) {
            *place = LETTERS[usize::from(byte) % LETTERS.len()];
        }
        let result = make();
        if result != error(libc::EEXIST) {
            return result;
        }
    }
    error(libc::EEXIST)
}

/// Makes a file with a fresh name.
///
/// # Safety
/// As `mkostemps`: `template` is writable and ends with a NUL.
unsafe fn file(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int {
    let Some(mut turn) = Turn::take(op::FILE) else {
        return libc_own!(mkostemps(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int);
    };
    let all = flags & !libc::O_ACCMODE | libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    let make = || {
        // SAFETY: the caller's template, a NUL-terminated path.
        unsafe { sys!(sys::SYS_openat, libc::AT_FDCWD, template, all, 0o600) }
    };
    // SAFETY: the caller promises that `template` is writable and ends with a NUL.
    finish(unsafe { name_until(&mut turn, template, suffix, make) }) as c_int
}

macro_rules! file_hooks {
    ($($name:ident($($arg:ident),*) = $suffix:expr, $flags:expr;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(template: *mut c_char, $($arg: c_int),*) -> c_int {
            // SAFETY: the caller's promise.
            unsafe { file(template, $suffix, $flags) }
        }
    )* };
}

file_hooks! {
    mkstemp() = 0, 0;
    mkstemp64() = 0, 0;
    mkostemp(flags) = 0, flags;
    mkostemp64(flags) = 0, flags;
    mkstemps(suffix) = suffix, 0;
    mkstemps64(suffix) = suffix, 0;
    mkostemps(suffix, flags) = suffix, flags;
    mkostemps64(suffix, flags) = suffix, flags;
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdtemp(template: *mut c_char) -> *mut c_char {
    let Some(mut turn) = Turn::take(op::FILE) else {
        return libc_own!(mkdtemp(template: *mut c_char) -> *mut c_char);
    };
    let make = || {
        // SAFETY: the caller's template, a NUL-terminated path.
        unsafe { sys!(libc::SYS_mkdir, template, 0o700) }
    };
    // SAFETY: the caller's promise.
    match finish(unsafe { name_until(&mut turn, template, 0, make) }) {
        0 => template,
        _ => core::ptr::null_mut(),
    }
}

/// Only finds an unused name; the empty string if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mktemp(template: *mut c_char) -> *mut c_char {
    let Some(mut turn) = Turn::take(op::FILE) else {
        return libc_own!(mktemp(template: *mut c_char) -> *mut c_char);
    };
    let make = || {
        // SAFETY: the caller's template, a NUL-terminated path.
        match unsafe { sys!(libc::SYS_access, template, libc::F_OK) } {
            0 => error(libc::EEXIST),
            missing if missing == error(libc::ENOENT) => 0,
            other => other,
        }
    };
    // SAFETY: the caller's promise.
    unsafe {
        if finish(name_until(&mut turn, template, 0, make)) != 0 {
            template.write(0);
        }
    }
    template
}
