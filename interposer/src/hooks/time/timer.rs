//! POSIX timers.

use super::alarm::{make, remaining, set};
use super::clock::deadline_of;
use crate::hooks::result::{error, finish, own};
use crate::libc_symbols::libc_own;
use crate::nanoseconds::{ns_of, timespec_of};
use crate::shared::Purpose;
use crate::turn::{Turn, fault};
use brolga_dmt::ThreadIx;
use brolga_tape::operation as op;
use core::ffi::c_int;
use libc::{clockid_t, itimerspec};

pub(crate) const NS: u64 = 1_000_000_000;

/// A timer of this process by the id that the program has.
fn find(turn: &mut Turn, timer: usize) -> Option<ThreadIx> {
    let process = turn.process();
    let ix = ThreadIx::try_from(timer).ok()?;
    let ours = turn.scheduler().alarms(process).any(|at| at == ix);
    (ours
        && matches!(
            turn.shared().alarm(ix).purpose,
            Purpose::Signal { .. } | Purpose::None
        ))
    .then_some(ix)
}

/// Returns whether a timer may run by a clock.
pub(crate) fn known_clock(clock: clockid_t) -> bool {
    [
        libc::CLOCK_REALTIME,
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_BOOTTIME,
        libc::CLOCK_REALTIME_ALARM,
        libc::CLOCK_BOOTTIME_ALARM,
        libc::CLOCK_TAI,
    ]
    .contains(&clock)
}

/// The purpose of a timer. `None`: an unknown kind of notification.
fn purpose_of(turn: &mut Turn, event: Option<&libc::sigevent>, id: ThreadIx) -> Option<Purpose> {
    let Some(event) = event else {
        return Some(Purpose::Signal {
            signal: libc::SIGALRM as u8,
            value: u64::from(id),
            thread: 0,
        });
    };
    let thread = match event.sigev_notify {
        libc::SIGEV_NONE => return Some(Purpose::None),
        libc::SIGEV_SIGNAL => 0,
        libc::SIGEV_THREAD_ID => {
            let tid = event.sigev_notify_thread_id;
            let shared = turn.shared();
            let threads = &shared.threads;
            let fits = |ix: &ThreadIx| threads[usize::from(*ix) - 1].tid == tid;
            shared.scheduler.living().find(fits)?
        }
        libc::SIGEV_THREAD => fault(&[b"timer_create with SIGEV_THREAD is not supported"]),
        _ => return None,
    };
    let signal = u8::try_from(event.sigev_signo).ok()?;
    (1..=brolga_vsignal::SIGNAL_MAX)
        .contains(&signal)
        .then_some(Purpose::Signal {
            signal,
            value: event.sigev_value.sival_ptr.expose_provenance() as u64,
            thread,
        })
}

/// Makes a timer.
///
/// # Safety
/// As `timer_create`: `event` is null or valid, `to` has room.
unsafe fn timer_create_(
    clock: clockid_t,
    event: *const libc::sigevent,
    timer: *mut usize,
) -> isize {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        return own(libc_own!(timer_create(
            clock: clockid_t, event: *const libc::sigevent, timer: *mut usize) -> c_int));
    };
    if !known_clock(clock) {
        return error(libc::EINVAL);
    }
    let process = turn.process();
    let Some(ix) = make(&mut turn, process, Purpose::None) else {
        return error(libc::EAGAIN);
    };
    // SAFETY: the caller promises null or a valid description.
    let Some(purpose) = purpose_of(&mut turn, unsafe { event.as_ref() }, ix) else {
        turn.scheduler().remove(ix);
        return error(libc::EINVAL);
    };
    let alarm = turn.shared().alarm(ix);
    alarm.purpose = purpose;
    alarm.clock = clock;
    // SAFETY: the caller promises room for an id.
    unsafe { timer.write(usize::from(ix)) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn timer_create(
    clock: clockid_t,
    event: *const libc::sigevent,
    timer: *mut usize,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { timer_create_(clock, event, timer) }) as c_int
}

/// The moment and the interval that a program asks for. `None` in place of the moment: not at all.
pub(crate) fn asked(
    turn: &mut Turn,
    clock: clockid_t,
    absolute: bool,
    new: &itimerspec,
) -> (Option<u64>, u64) {
    let first = ns_of(&new.it_value);
    let interval = ns_of(&new.it_interval);
    let deadline = match first {
        0 => None,
        first if absolute => Some(deadline_of(turn, clock, first)),
        first => Some(turn.now_ns().saturating_add(first)),
    };
    (deadline, interval)
}

/// Returns whether both times have nanoseconds below a second.
pub(crate) fn is_valid(new: &itimerspec) -> bool {
    let fits = |time: &libc::timespec| time.tv_sec >= 0 && (0..NS as i64).contains(&time.tv_nsec);
    fits(&new.it_value) && fits(&new.it_interval)
}

/// # Safety
/// `to` is null or has room.
pub(crate) unsafe fn put(to: *mut itimerspec, (left, interval): (u64, u64)) {
    if !to.is_null() {
        // SAFETY: the caller promises that `to` is null or has room.
        unsafe {
            to.write(itimerspec {
                it_interval: timespec_of(interval),
                it_value: timespec_of(left),
            });
        }
    }
}

/// Sets a timer, and gives its state before.
///
/// # Safety
/// As `timer_settime`: `new` points to a time, `old` is null or has room for one.
unsafe fn timer_settime_(
    timer: usize,
    flags: c_int,
    new: *const itimerspec,
    old: *mut itimerspec,
) -> isize {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        return own(libc_own!(timer_settime(
            timer: usize, flags: c_int, new: *const itimerspec, old: *mut itimerspec) -> c_int));
    };
    let Some(ix) = find(&mut turn, timer) else {
        return error(libc::EINVAL);
    };
    // SAFETY: the caller promises a value.
    let new = unsafe { &*new };
    if !is_valid(new) {
        return error(libc::EINVAL);
    }
    let before = remaining(&mut turn, ix);
    let clock = turn.shared().alarm(ix).clock;
    let (deadline, interval) = asked(&mut turn, clock, flags & libc::TIMER_ABSTIME != 0, new);
    set(&mut turn, ix, deadline, interval);
    // SAFETY: the caller promises that `new` points to a time, `old` is null or has room for one.
    unsafe { put(old, before) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn timer_settime(
    timer: usize,
    flags: c_int,
    new: *const itimerspec,
    old: *mut itimerspec,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { timer_settime_(timer, flags, new, old) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn timer_gettime(timer: usize, to: *mut itimerspec) -> c_int {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        return libc_own!(timer_gettime(timer: usize, to: *mut itimerspec) -> c_int);
    };
    let Some(ix) = find(&mut turn, timer) else {
        return finish(error(libc::EINVAL)) as c_int;
    };
    let state = remaining(&mut turn, ix);
    // SAFETY: the caller's promise.
    unsafe { put(to, state) };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn timer_getoverrun(timer: usize) -> c_int {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        return libc_own!(timer_getoverrun(timer: usize) -> c_int);
    };
    match find(&mut turn, timer) {
        Some(ix) => turn.shared().alarm(ix).overrun,
        None => finish(error(libc::EINVAL)) as c_int,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn timer_delete(timer: usize) -> c_int {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        return libc_own!(timer_delete(timer: usize) -> c_int);
    };
    match find(&mut turn, timer) {
        Some(ix) => {
            turn.scheduler().remove(ix);
            0
        }
        None => finish(error(libc::EINVAL)) as c_int,
    }
}
