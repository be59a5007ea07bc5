//! POSIX shared memory objects. Replicas use the same names and would share the objects in
//! `/dev/shm`, so they are files in the replica's own directory for temporary files.

use crate::hooks::result::{error, finish};
use crate::libc_symbols::libc_own;
use crate::sys::{SYS_openat, sys};
use crate::turn::Turn;
use brolga_tape::handover::TEMPORARY_DIRECTORY_FD;
use brolga_tape::operation as op;
use core::ffi::{CStr, c_char, c_int, c_uint};

const PREFIX: &[u8] = b".shm-";
const NAME_BYTES: usize = 255;

/// The file of an object; `Err` is an errno.
///
/// # Safety
/// `name` ends with NUL.
unsafe fn file_of(name: *const c_char) -> Result<[u8; NAME_BYTES + 1], c_int> {
    // SAFETY: the caller promises that `name` ends with NUL.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    let slashes = name.iter().take_while(|byte| **byte == b'/').count();
    let name = &name[slashes..];
    if name.is_empty() || name.contains(&b'/') {
        return Err(libc::EINVAL);
    }
    if PREFIX.len() + name.len() > NAME_BYTES {
        return Err(libc::ENAMETOOLONG);
    }
    let mut file = [0; NAME_BYTES + 1];
    file[..PREFIX.len()].copy_from_slice(PREFIX);
    file[PREFIX.len()..][..name.len()].copy_from_slice(name);
    Ok(file)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn shm_open(name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    let turn = Turn::take(op::FILE);
    if turn.is_none() {
        return libc_own!(shm_open(name: *const c_char, flags: c_int, mode: c_uint) -> c_int);
    }
    let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the caller's name.
    let result = match unsafe { file_of(name) } {
        // SAFETY: a NUL-terminated path.
        Ok(file) => unsafe {
            sys!(
                SYS_openat,
                TEMPORARY_DIRECTORY_FD,
                file.as_ptr(),
                flags,
                mode
            )
        },
        Err(errno) => error(errno),
    };
    finish(result) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn shm_unlink(name: *const c_char) -> c_int {
    let turn = Turn::take(op::FILE);
    if turn.is_none() {
        return libc_own!(shm_unlink(name: *const c_char) -> c_int);
    }
    // SAFETY: the caller's name.
    let result = match unsafe { file_of(name) } {
        // SAFETY: a NUL-terminated path.
        Ok(file) => unsafe { sys!(libc::SYS_unlinkat, TEMPORARY_DIRECTORY_FD, file.as_ptr(), 0) },
        Err(libc::ENAMETOOLONG) => error(libc::ENAMETOOLONG),
        Err(_) => error(libc::ENOENT),
    };
    finish(result) as c_int
}
