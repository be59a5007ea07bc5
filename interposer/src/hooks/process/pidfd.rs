//! The pidfd calls, which are refused: such a descriptor becomes readable at a moment of the
//! kernel's choice. Programs fall back to other means.

use crate::hooks::result::{error, finish};
use crate::sys::sys;
use crate::turn::Turn;
use core::ffi::{c_int, c_uint};

/// A descriptor of a process becomes readable when the kernel likes. Programs do without.
fn no_process_descriptor(number: i64, a: c_int, b: usize, c: usize, d: usize) -> c_int {
    if Turn::is_scheduled() {
        return finish(error(libc::ENOSYS)) as c_int;
    }
    // SAFETY: the caller's arguments, passed on.
    finish(unsafe { sys!(number, a, b, c, d) }) as c_int
}

#[unsafe(no_mangle)]
pub extern "C" fn pidfd_open(pid: c_int, flags: c_uint) -> c_int {
    no_process_descriptor(libc::SYS_pidfd_open, pid, flags as usize, 0, 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn pidfd_getfd(process: c_int, fd: c_int, flags: c_uint) -> c_int {
    let fd = fd.cast_unsigned() as usize;
    no_process_descriptor(libc::SYS_pidfd_getfd, process, fd, flags as usize, 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn pidfd_send_signal(
    process: c_int,
    signal: c_int,
    info: usize,
    flags: c_uint,
) -> c_int {
    let signal = signal.cast_unsigned() as usize;
    no_process_descriptor(
        libc::SYS_pidfd_send_signal,
        process,
        signal,
        info,
        flags as usize,
    )
}
