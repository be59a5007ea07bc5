//! Pipes, which are real objects inside the tree.

use super::object::name;
use crate::hooks::result::finish;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use brolga_vnet::Object;
use core::ffi::c_int;

/// Names both descriptors that a call has made.
///
/// # Safety
/// `fds` has room for two, which a result of 0 says the kernel has filled.
pub(crate) unsafe fn pair(result: isize, fds: *mut c_int) -> isize {
    if result < 0 {
        return result;
    }
    if let Some(mut turn) = Turn::have() {
        for at in 0..2 {
            // SAFETY: the kernel has just filled both.
            let fd = unsafe { *fds.add(at) };
            let named = name(&mut turn, fd as isize, Object::Stream);
            if named < 0 {
                return named;
            }
        }
    }
    0
}

/// # Safety
/// `fds` has room for two.
pub(crate) unsafe fn pipe2_(fds: *mut c_int, flags: c_int) -> isize {
    let _turn = Turn::take(op::PIPE);
    // SAFETY: the caller's pointer, passed on.
    unsafe { pair(sys!(sys::SYS_pipe2, fds, flags), fds) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pipe2(fds: *mut c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { pipe2_(fds, flags) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pipe(fds: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { pipe2(fds, 0) }
}
