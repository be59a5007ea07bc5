//! `nanosleep` and its family: sleeps in virtual time.

use super::clock::deadline_of;
use crate::hooks::result::{error, finish};
use crate::nanoseconds::{NS, ns_of, timespec_of};
use crate::sys::{self, sys};
use crate::turn::{Turn, space};
use brolga_dmt::{Key, Wakeup};
use brolga_tape::operation as op;
use core::ffi::c_int;
use libc::{clockid_t, timespec};

/// Blocks until virtual time reaches the deadline. A handler that has run ends the sleep: `Err` is
/// what was left of it, nanoseconds.
fn sleep_until(turn: &mut Turn, deadline_ns: u64) -> Result<(), u64> {
    let key = Key {
        space: space::SLEEP,
        id: u64::from(turn.me()),
    };
    loop {
        let now = turn.now_ns();
        if now >= deadline_ns {
            return Ok(());
        }
        if let Wakeup::Interrupted | Wakeup::Restart = turn.block(key, Some(deadline_ns)) {
            return Err(deadline_ns.saturating_sub(turn.now_ns()));
        }
    }
}

/// Sleeps for a while of virtual time; also a scheduling point for a sleep of nothing.
fn sleep_for(turn: &mut Turn, ns: u64) -> Result<(), u64> {
    if ns == 0 {
        turn.yield_now();
        return Ok(());
    }
    let deadline = turn.now_ns().saturating_add(ns);
    sleep_until(turn, deadline)
}

/// The kernel-style result of a sleep; writes what was left of it.
///
/// # Safety
/// `remainder` is null or has room for a timespec.
unsafe fn slept(result: Result<(), u64>, remainder: *mut timespec) -> isize {
    let Err(left) = result else { return 0 };
    if !remainder.is_null() {
        // SAFETY: the caller promises that `remainder` is null or has room for a timespec.
        unsafe { remainder.write(timespec_of(left)) };
    }
    error(libc::EINTR)
}

/// Sleeps for a while of virtual time.
///
/// # Safety
/// As `nanosleep`: `request` points to a timespec, `remainder` is null or has room for one.
unsafe fn nanosleep_(request: *const timespec, remainder: *mut timespec) -> isize {
    let Some(mut turn) = Turn::take(op::SLEEP) else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(sys::SYS_nanosleep, request, remainder) };
    };
    // SAFETY: the caller promises a timespec, and null or room for another.
    unsafe {
        let result = sleep_for(&mut turn, ns_of(&*request));
        slept(result, remainder)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nanosleep(request: *const timespec, remainder: *mut timespec) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { nanosleep_(request, remainder) }) as c_int
}

/// Unlike the others this one returns the error itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    request: *const timespec,
    remainder: *mut timespec,
) -> c_int {
    let Some(mut turn) = Turn::take(op::SLEEP) else {
        // SAFETY: the caller's pointers, passed on.
        let result = unsafe { sys!(sys::SYS_clock_nanosleep, clock, flags, request, remainder) };
        return -result as c_int;
    };
    // SAFETY: the caller promises a timespec, and null or room for another.
    unsafe {
        let ns = ns_of(&*request);
        if flags & libc::TIMER_ABSTIME != 0 {
            let deadline = deadline_of(&mut turn, clock, ns);
            let result = sleep_until(&mut turn, deadline);
            turn.cancel_if_due();
            return -slept(result, core::ptr::null_mut()) as c_int;
        }
        let result = sleep_for(&mut turn, ns);
        turn.cancel_if_due();
        -slept(result, remainder) as c_int
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn usleep(microseconds: libc::c_uint) -> c_int {
    let time = timespec_of(u64::from(microseconds) * 1000);
    // SAFETY: a valid timespec, no remainder.
    unsafe { nanosleep(&raw const time, core::ptr::null_mut()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sleep(seconds: libc::c_uint) -> libc::c_uint {
    let mut time = timespec_of(u64::from(seconds) * NS);
    // SAFETY: a valid timespec, which may be overwritten by what is left.
    match unsafe { nanosleep(&raw const time, &raw mut time) } {
        0 => 0,
        _ => ns_of(&time).div_ceil(NS) as libc::c_uint,
    }
}
