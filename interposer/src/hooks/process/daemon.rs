//! `daemon`, whose forks would be inside libc.

use super::exit::_exit;
use super::fork::fork;
use super::pgrp;
use crate::hooks::fd::{close, dup};
use crate::hooks::result::finish;
use crate::libc_symbols::libc_own;
use crate::sys::{self, sys};
use crate::turn::Turn;
use core::ffi::c_int;

/// libc's own forks inside libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daemon(stay: c_int, keep: c_int) -> c_int {
    if !Turn::is_scheduled() {
        return libc_own!(daemon(stay: c_int, keep: c_int) -> c_int);
    }
    // SAFETY: fork and _exit have no preconditions.
    unsafe {
        match fork() {
            -1 => return -1,
            0 => {}
            _ => _exit(0),
        }
    }
    pgrp::setsid();
    if stay == 0 {
        // SAFETY: a NUL-terminated path.
        unsafe { sys!(libc::SYS_chdir, c"/".as_ptr()) };
    }
    if keep == 0 {
        // SAFETY: a NUL-terminated path, then plain integers.
        unsafe {
            let null = finish(sys!(
                sys::SYS_openat,
                libc::AT_FDCWD,
                c"/dev/null".as_ptr(),
                libc::O_RDWR
            ));
            if null < 0 {
                return -1;
            }
            for standard in 0..=2 {
                dup::dup2(null as c_int, standard);
            }
            if null > 2 {
                close::close_(null as c_int);
            }
        }
    }
    0
}
