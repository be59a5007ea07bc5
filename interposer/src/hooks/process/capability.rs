//! `capget` and `capset`.

use crate::hooks::result::{error, finish};
use crate::hooks::tid::kernel_id;
use crate::sys::sys;
use crate::turn::Turn;
use core::ffi::{c_int, c_void};

/// The head of the capability calls.
#[repr(C)]
pub struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

/// Asks for capabilities or sets them, by the kernel's id.
///
/// # Safety
/// As `capget`: `header` is null or valid, `data` is what the call reads or writes.
unsafe fn capabilities(number: i64, header: *mut CapabilityHeader, data: *mut c_void) -> isize {
    let Some(mut turn) = Turn::have() else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(number, header, data) };
    };
    if header.is_null() {
        return error(libc::EFAULT);
    }
    // SAFETY: the caller promises a header, into which the kernel may write the version that it
    // wants.
    let header = unsafe { &mut *header };
    let Some(pid) = kernel_id(&mut turn, header.pid) else {
        return error(libc::ESRCH);
    };
    let named = core::mem::replace(&mut header.pid, pid);
    // SAFETY: the caller's pointers, passed on.
    let result = unsafe { sys!(number, core::ptr::from_mut(header), data) };
    header.pid = named;
    result
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn capget(header: *mut CapabilityHeader, data: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { capabilities(libc::SYS_capget, header, data) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn capset(header: *mut CapabilityHeader, data: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { capabilities(libc::SYS_capset, header, data) }) as c_int
}
