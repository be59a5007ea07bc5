//! The kernel's setting that makes readings of the counter fault.

use crate::sys::{self, sys};

/// Makes readings of the counter fault in this thread and in those that it makes.
pub fn arm() {
    // SAFETY: plain integers. Where the kernel cannot do it the program reads the real counter.
    unsafe { sys!(sys::SYS_prctl, libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV) };
}

/// Lets this thread execute another program, which arms itself.
pub fn pause() {
    // SAFETY: plain integers.
    unsafe { sys!(sys::SYS_prctl, libc::PR_SET_TSC, libc::PR_TSC_ENABLE) };
}
