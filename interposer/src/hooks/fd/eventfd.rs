//! `eventfd`.

use super::counter::make;
use super::read_write::{read_, write_};
use crate::hooks::result::{error, finish};
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use brolga_vnet::CounterKind;
use core::ffi::{c_int, c_uint};

#[unsafe(no_mangle)]
pub extern "C" fn eventfd(value: c_uint, flags: c_int) -> c_int {
    let Some(mut turn) = Turn::take(op::PIPE) else {
        // SAFETY: plain integers.
        return finish(unsafe { sys!(sys::SYS_eventfd2, value, flags) }) as c_int;
    };
    if flags & !(libc::EFD_SEMAPHORE | libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) != 0 {
        return finish(error(libc::EINVAL)) as c_int;
    }
    let kind = CounterKind::Event {
        semaphore: flags & libc::EFD_SEMAPHORE != 0,
    };
    finish(make(&mut turn, kind, u64::from(value), flags)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn eventfd_read(fd: c_int, to: *mut u64) -> c_int {
    // SAFETY: the caller promises room for eight bytes.
    if finish(unsafe { read_(fd, to.cast(), 8) }) == 8 {
        0
    } else {
        -1
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn eventfd_write(fd: c_int, value: u64) -> c_int {
    // SAFETY: eight bytes of our own.
    if finish(unsafe { write_(fd, (&raw const value).cast(), 8) }) == 8 {
        0
    } else {
        -1
    }
}
