//! Processors that threads may run on: the same everywhere, wherever the tree really runs.

use crate::hooks::result::finish;
use crate::libc_symbols::libc_own;
use crate::sys::sys;
use crate::turn::{Turn, is_active};
use core::ffi::c_int;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_getcpu() -> c_int {
    if is_active() {
        0
    } else {
        libc_own!(sched_getcpu() -> c_int)
    }
}

/// Processors 0 to cpus - 1, wherever the tree really runs.
///
/// # Safety
/// `set` has room for `size` bytes.
pub(crate) unsafe fn fill_affinity(turn: &Turn, size: usize, set: *mut u8) {
    // SAFETY: the caller promises `size` bytes.
    unsafe {
        core::ptr::write_bytes(set, 0, size);
        for cpu in 0..turn.local().cpus as usize {
            if cpu / 8 < size {
                *set.add(cpu / 8) |= 1 << (cpu % 8);
            }
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_getaffinity(pid: c_int, size: usize, set: *mut u8) -> c_int {
    if let Some(turn) = Turn::have() {
        // SAFETY: the caller's promise.
        unsafe { fill_affinity(&turn, size, set) };
        return 0;
    }
    // SAFETY: the caller's pointer, passed on.
    let result = unsafe { sys!(libc::SYS_sched_getaffinity, pid, size, set) };
    if result > 0 {
        0
    } else {
        finish(result) as c_int
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_getaffinity_np(thread: u64, size: usize, set: *mut u8) -> c_int {
    let Some(turn) = Turn::have() else {
        return libc_own!(
            pthread_getaffinity_np(thread: u64, size: usize, set: *mut u8) -> c_int
        );
    };
    // SAFETY: the caller's promise.
    unsafe { fill_affinity(&turn, size, set) };
    0
}

/// The tree stays where the launcher put it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_setaffinity(pid: c_int, size: usize, set: *const u8) -> c_int {
    if Turn::is_scheduled() {
        return 0;
    }
    // SAFETY: the caller's pointer, passed on.
    finish(unsafe { sys!(libc::SYS_sched_setaffinity, pid, size, set) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_setaffinity_np(thread: u64, size: usize, set: *const u8) -> c_int {
    if is_active() {
        return 0;
    }
    libc_own!(pthread_setaffinity_np(thread: u64, size: usize, set: *const u8) -> c_int)
}
