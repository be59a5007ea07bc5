//! Clocks: virtual time, which stands still between entries but for the logical clock.

use crate::hooks::result::{error, finish};
use crate::libc_symbols::libc_own;
use crate::nanoseconds::{NS, timespec_of};
use crate::sys::sys;
use crate::turn::Turn;
use brolga_tape::operation as op;
use core::ffi::{c_char, c_int, c_long, c_void};
use libc::{clockid_t, time_t, timespec, timeval};
/// The reading of monotonic clocks at the first entry: not 0, which some programs take for "not
/// set".
const MONOTONIC_START_NS: u64 = 1000 * NS;
/// CPU time is charged by the logical clock.
const CPU_NS_PER_TICK: u64 = 1000;

/// The virtual reading of a clock. `None`: not a clock we know.
pub(crate) fn reading(turn: &mut Turn, clock: clockid_t) -> Option<u64> {
    match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_TAI => Some(turn.now_ns()),
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_BOOTTIME => {
            let first = turn.scheduler().first_time_ns();
            Some(turn.now_ns() - first + MONOTONIC_START_NS)
        }
        libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID => Some(cpu_ns(turn)),
        // CPU clocks of processes and threads have negative ids.
        clock if clock < 0 => Some(cpu_ns(turn)),
        _ => None,
    }
}

/// The CPU time that the tree has used.
pub(crate) fn cpu_ns(turn: &mut Turn) -> u64 {
    turn.scheduler().clock() * CPU_NS_PER_TICK
}

/// Turns an absolute reading of a clock into virtual time since the epoch, as the scheduler has it.
pub(crate) fn deadline_of(turn: &mut Turn, clock: clockid_t, absolute_ns: u64) -> u64 {
    if clock == libc::CLOCK_REALTIME {
        return absolute_ns;
    }
    let first = turn.scheduler().first_time_ns();
    absolute_ns
        .saturating_add(first)
        .saturating_sub(MONOTONIC_START_NS)
}

fn clock_gettime_(clock: clockid_t, to: *mut timespec) -> isize {
    let Some(mut turn) = Turn::take(op::CLOCK) else {
        // SAFETY: the caller's pointer, passed on.
        return unsafe { sys!(libc::SYS_clock_gettime, clock, to) };
    };
    let Some(ns) = reading(&mut turn, clock) else {
        return error(libc::EINVAL);
    };
    if to.is_null() {
        return error(libc::EFAULT);
    }
    // SAFETY: the caller promises room for a timespec.
    unsafe { to.write(timespec_of(ns)) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, to: *mut timespec) -> c_int {
    finish(clock_gettime_(clock, to)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __clock_gettime(clock: clockid_t, to: *mut timespec) -> c_int {
    finish(clock_gettime_(clock, to)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_getres(clock: clockid_t, to: *mut timespec) -> c_int {
    if !Turn::is_scheduled() {
        // SAFETY: the caller's pointer, passed on.
        return finish(unsafe { sys!(libc::SYS_clock_getres, clock, to) }) as c_int;
    }
    // The kernel's answer differs with the machine's timers; one nanosecond is what all have.
    let fixed = [libc::CLOCK_REALTIME_COARSE, libc::CLOCK_MONOTONIC_COARSE].contains(&clock);
    if !to.is_null() {
        // SAFETY: the caller promises room for a timespec.
        unsafe {
            to.write(timespec {
                tv_sec: 0,
                tv_nsec: if fixed { 4_000_000 } else { 1 },
            });
        };
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(to: *mut timeval, zone: *mut c_void) -> c_int {
    let Some(mut turn) = Turn::take(op::CLOCK) else {
        // SAFETY: the caller's pointers, passed on.
        return finish(unsafe { sys!(libc::SYS_gettimeofday, to, zone) }) as c_int;
    };
    let ns = turn.now_ns();
    if !to.is_null() {
        let time = timeval {
            tv_sec: (ns / NS) as time_t,
            tv_usec: (ns % NS / 1000) as c_long,
        };
        // SAFETY: the caller promises room for a timeval.
        unsafe { to.write(time) };
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(to: *mut time_t) -> time_t {
    let Some(mut turn) = Turn::take(op::CLOCK) else {
        // SAFETY: the caller's pointer, passed on.
        return finish(unsafe { sys!(libc::SYS_time, to) }) as time_t;
    };
    let seconds = (turn.now_ns() / NS) as time_t;
    if !to.is_null() {
        // SAFETY: the caller promises room for a time_t.
        unsafe { to.write(seconds) };
    }
    seconds
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn timespec_get(to: *mut timespec, base: c_int) -> c_int {
    const TIME_UTC: c_int = 1;
    if base != TIME_UTC || clock_gettime_(libc::CLOCK_REALTIME, to) != 0 {
        return 0;
    }
    base
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock() -> c_long {
    const MICROSECOND: u64 = 1000;
    match Turn::take(op::CLOCK) {
        Some(mut turn) => (cpu_ns(&mut turn) / MICROSECOND) as c_long,
        None => libc_own!(clock() -> c_long),
    }
}

/// Unused in glibc 2.31 and later, but old programs still import it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftime(to: *mut c_char) -> c_int {
    let mut now = timespec_of(0);
    clock_gettime_(libc::CLOCK_REALTIME, &raw mut now);
    // SAFETY: struct timeb is a time_t, then a short of milliseconds, then two shorts.
    unsafe {
        to.cast::<time_t>().write(now.tv_sec);
        to.add(8)
            .cast::<[u16; 3]>()
            .write([(now.tv_nsec / 1_000_000) as u16, 0, 0]);
    }
    0
}
