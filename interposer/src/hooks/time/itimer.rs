//! `alarm`, `ualarm` and the interval timers.

use super::alarm::{make, remaining, set};
use super::timer::NS;
use crate::hooks::result::{error, finish};
use crate::shared::Purpose;
use crate::sys::sys;
use crate::turn::Turn;
use brolga_dmt::ThreadIx;
use brolga_tape::operation as op;
use core::ffi::{c_int, c_uint};
use libc::{itimerval, timeval};

fn find_interval(turn: &mut Turn, which: c_int) -> Option<ThreadIx> {
    let process = turn.process();
    let shared = turn.shared();
    let fits = |ix: &ThreadIx| {
        let purpose = shared.alarms[usize::from(*ix) - 1].purpose;
        matches!(purpose, Purpose::Interval(other) if other == which)
    };
    shared.scheduler.alarms(process).find(fits)
}

/// Sets an interval timer; gives what was left of it and its interval. `None`: too many alarms.
fn set_interval(
    turn: &mut Turn,
    which: c_int,
    first_ns: u64,
    interval_ns: u64,
) -> Option<(u64, u64)> {
    let ix = match find_interval(turn, which) {
        Some(ix) => ix,
        None if first_ns == 0 => return Some((0, 0)),
        None => {
            let process = turn.process();
            make(turn, process, Purpose::Interval(which))?
        }
    };
    let before = remaining(turn, ix);
    let deadline = (first_ns != 0).then(|| turn.now_ns().saturating_add(first_ns));
    set(turn, ix, deadline, interval_ns);
    Some(before)
}

#[unsafe(no_mangle)]
pub extern "C" fn alarm(seconds: c_uint) -> c_uint {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        // SAFETY: a plain integer.
        return unsafe { sys!(libc::SYS_alarm, seconds) } as c_uint;
    };
    let before = set_interval(&mut turn, libc::ITIMER_REAL, u64::from(seconds) * NS, 0);
    let (left, _) = before.unwrap_or((0, 0));
    left.div_ceil(NS) as c_uint
}

fn ns_of_timeval(time: timeval) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * NS + u64::try_from(time.tv_usec).unwrap_or(0) * 1000
}

fn timeval_of(ns: u64) -> timeval {
    timeval {
        tv_sec: (ns / NS) as i64,
        tv_usec: (ns % NS).div_ceil(1000) as i64,
    }
}

/// # Safety
/// `to` is null or has room for an interval timer's value.
unsafe fn put_interval(to: *mut itimerval, (left, interval): (u64, u64)) {
    if !to.is_null() {
        // SAFETY: the caller promises that `to` is null or has room for an interval timer's value.
        unsafe {
            to.write(itimerval {
                it_interval: timeval_of(interval),
                it_value: timeval_of(left),
            });
        }
    }
}

fn is_interval(which: c_int) -> bool {
    [libc::ITIMER_REAL, libc::ITIMER_VIRTUAL, libc::ITIMER_PROF].contains(&which)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn setitimer(
    which: c_int,
    new: *const itimerval,
    old: *mut itimerval,
) -> c_int {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        // SAFETY: the caller's pointers, passed on.
        return finish(unsafe { sys!(libc::SYS_setitimer, which, new, old) }) as c_int;
    };
    if !is_interval(which) {
        return finish(error(libc::EINVAL)) as c_int;
    }
    // SAFETY: the caller promises null or valid.
    let (first, interval) = unsafe { new.as_ref() }.map_or((0, 0), |new| {
        (ns_of_timeval(new.it_value), ns_of_timeval(new.it_interval))
    });
    let Some(before) = set_interval(&mut turn, which, first, interval) else {
        return finish(error(libc::EAGAIN)) as c_int;
    };
    // SAFETY: the caller's promise.
    unsafe { put_interval(old, before) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getitimer(which: c_int, to: *mut itimerval) -> c_int {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        // SAFETY: the caller's pointer, passed on.
        return finish(unsafe { sys!(libc::SYS_getitimer, which, to) }) as c_int;
    };
    if !is_interval(which) {
        return finish(error(libc::EINVAL)) as c_int;
    }
    let state = match find_interval(&mut turn, which) {
        Some(ix) => remaining(&mut turn, ix),
        None => (0, 0),
    };
    // SAFETY: the caller's promise.
    unsafe { put_interval(to, state) };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn ualarm(microseconds: c_uint, interval: c_uint) -> c_uint {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        return 0;
    };
    let (first, interval) = (u64::from(microseconds) * 1000, u64::from(interval) * 1000);
    let before = set_interval(&mut turn, libc::ITIMER_REAL, first, interval);
    (before.unwrap_or((0, 0)).0 / 1000) as c_uint
}
