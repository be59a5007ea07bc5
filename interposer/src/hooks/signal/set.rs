//! Signal numbers and sets between C and Rust.

use brolga_vsignal::{SIGNAL_MAX, Set};
use core::ffi::c_int;
use libc::sigset_t;

/// A signal number, if it is one.
pub(crate) fn number(signal: c_int) -> Option<u8> {
    u8::try_from(signal)
        .ok()
        .filter(|signal| (1..=SIGNAL_MAX).contains(signal))
}

/// # Safety
/// `set` is null or points to a set.
pub(crate) unsafe fn set_at(set: *const sigset_t) -> Option<Set> {
    // SAFETY: the caller's promise; the first word of a set holds all 64 signals.
    (!set.is_null()).then(|| Set(unsafe { *set.cast::<u64>() }))
}

/// # Safety
/// `to` is null or has room for a set.
pub(crate) unsafe fn put_set(to: *mut sigset_t, set: Set) {
    if !to.is_null() {
        // SAFETY: the caller's promise; all zeros but the first word are a valid set.
        unsafe {
            to.write_bytes(0, 1);
            to.cast::<u64>().write(set.0);
        }
    }
}

/// Raised by the program's own instructions, or by `abort`.
pub(crate) const KERNEL: [c_int; 6] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
];
