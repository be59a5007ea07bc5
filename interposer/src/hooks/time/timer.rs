//! Timers: alarm, interval timers, POSIX timers, timerfd. All of them go off at moments of virtual
//! time, when an entry is admitted.

use super::clock::{deadline_of, ns_of, timespec_of};
use crate::hooks::fd::counter;
use crate::hooks::fd::descriptor::object;
use crate::hooks::{error, op, own};
use crate::libc_symbols::libc_own;
use crate::shared::{Alarm, Purpose};
use crate::sys::{finish, sys};
use crate::turn::{Turn, fault};
use brolga_dmt::ThreadIx;
use brolga_vnet::{CounterKind, Object, SocketIx};
use brolga_vsignal::Info;
use core::ffi::{c_int, c_uint};
use libc::{clockid_t, itimerspec, itimerval, timeval};

const NS: u64 = 1_000_000_000;
/// Alarms of timer descriptors belong to no process: the descriptor may outlive its maker.
const NO_PROCESS: u16 = u16::MAX;

/// Looks at the alarms that an admission has set off.
pub fn fire(turn: &mut Turn) {
    while let Some(ix) = turn.scheduler().take_fired() {
        let expirations = rearm(turn, ix);
        let process = turn.scheduler().thread(ix).process;
        let alarm = *turn.shared().alarm(ix);
        match alarm.purpose {
            Purpose::None => {}
            Purpose::Descriptor(socket) => {
                let (net, mut outside) = turn.net();
                net.counter_add(socket, expirations, &mut outside);
            }
            Purpose::Interval(which) => {
                let info = Info {
                    signal: signal_of(which),
                    code: libc::SI_KERNEL,
                    ..Info::default()
                };
                turn.post_to_process(process, info);
            }
            Purpose::Signal {
                signal,
                value,
                thread,
            } => {
                let overrun = expirations.min(i32::MAX as u64) as i32 - 1;
                turn.shared().alarm(ix).overrun = overrun;
                let info = Info {
                    signal,
                    code: libc::SI_TIMER,
                    pid: i32::from(ix),
                    status: overrun,
                    value,
                };
                match thread {
                    0 => turn.post_to_process(process, info),
                    thread => turn.post_to_thread(thread, info),
                }
            }
        }
    }
}

/// Sets a periodic alarm that has gone off for its next time; says how many times have passed.
fn rearm(turn: &mut Turn, ix: ThreadIx) -> u64 {
    let interval = turn.shared().alarm(ix).interval_ns;
    if interval == 0 {
        return 1;
    }
    let was = turn.scheduler().last_deadline_ns(ix);
    let passed = 1 + turn.now_ns().saturating_sub(was) / interval;
    let next = was.saturating_add(passed.saturating_mul(interval));
    turn.scheduler().set_alarm(ix, Some(next));
    passed
}

/// How long until an alarm goes off, and its interval, in nanoseconds.
fn remaining(turn: &mut Turn, ix: ThreadIx) -> (u64, u64) {
    let now = turn.now_ns();
    let left = match turn.scheduler().alarm_deadline_ns(ix) {
        // A timer that is due but was not looked at yet is not "not set".
        Some(deadline) => deadline.saturating_sub(now).max(1),
        None => 0,
    };
    (left, turn.shared().alarm(ix).interval_ns)
}

fn set(turn: &mut Turn, ix: ThreadIx, deadline_ns: Option<u64>, interval_ns: u64) {
    turn.shared().alarm(ix).interval_ns = interval_ns;
    turn.scheduler().set_alarm(ix, deadline_ns);
}

// ---- interval timers ----

fn signal_of(which: c_int) -> u8 {
    let signal = match which {
        libc::ITIMER_VIRTUAL => libc::SIGVTALRM,
        libc::ITIMER_PROF => libc::SIGPROF,
        _ => libc::SIGALRM,
    };
    signal as u8
}

fn find_interval(turn: &mut Turn, which: c_int) -> Option<ThreadIx> {
    let process = turn.process();
    let shared = turn.shared();
    let fits = |ix: &ThreadIx| {
        let purpose = shared.alarms[usize::from(*ix) - 1].purpose;
        matches!(purpose, Purpose::Interval(other) if other == which)
    };
    shared.scheduler.alarms(process).find(fits)
}

fn make(turn: &mut Turn, process: u16, purpose: Purpose) -> Option<ThreadIx> {
    let ix = turn.scheduler().make_alarm(process)?;
    *turn.shared().alarm(ix) = Alarm {
        purpose,
        ..Alarm::NONE
    };
    Some(ix)
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
        // SAFETY: the caller's promise.
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

// ---- POSIX timers ----

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

fn known_clock(clock: clockid_t) -> bool {
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

/// What a timer is to do. `None`: the kind of notification is not one we know.
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
fn asked(
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

fn is_valid(new: &itimerspec) -> bool {
    let fits = |time: &libc::timespec| time.tv_sec >= 0 && (0..NS as i64).contains(&time.tv_nsec);
    fits(&new.it_value) && fits(&new.it_interval)
}

/// # Safety
/// `to` is null or has room.
unsafe fn put(to: *mut itimerspec, (left, interval): (u64, u64)) {
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe {
            to.write(itimerspec {
                it_interval: timespec_of(interval),
                it_value: timespec_of(left),
            });
        }
    }
}

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
    // SAFETY: the caller's promise.
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

/// A process has ended or executed another program: its timers are gone, but for interval timers,
/// which an `exec` keeps.
pub fn forget(turn: &mut Turn, process: u16, but_intervals: bool) {
    loop {
        let shared = turn.shared();
        let doomed = |ix: &ThreadIx| {
            let purpose = shared.alarms[usize::from(*ix) - 1].purpose;
            !(but_intervals && matches!(purpose, Purpose::Interval(_)))
        };
        let Some(ix) = shared.scheduler.alarms(process).find(doomed) else {
            return;
        };
        turn.scheduler().remove(ix);
    }
}

// ---- timerfd ----

fn timerfd_create_(clock: clockid_t, flags: c_int) -> isize {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        // SAFETY: plain integers.
        return unsafe { sys!(libc::SYS_timerfd_create, clock, flags) };
    };
    if !known_clock(clock) || flags & !(libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) != 0 {
        return error(libc::EINVAL);
    }
    let Some(alarm) = make(&mut turn, NO_PROCESS, Purpose::None) else {
        return error(libc::ENFILE);
    };
    let fd = counter::make(&mut turn, CounterKind::Timer { alarm, clock }, 0, flags);
    if fd < 0 {
        turn.scheduler().remove(alarm);
        return fd;
    }
    if let Some(Object::Socket(ix)) = object(&mut turn, fd as c_int) {
        turn.shared().alarm(alarm).purpose = Purpose::Descriptor(ix);
    }
    fd
}

#[unsafe(no_mangle)]
pub extern "C" fn timerfd_create(clock: clockid_t, flags: c_int) -> c_int {
    finish(timerfd_create_(clock, flags)) as c_int
}

/// The timer that a descriptor names.
fn of_descriptor(turn: &mut Turn, fd: c_int) -> Result<(SocketIx, ThreadIx, clockid_t), isize> {
    let Some(Object::Socket(ix)) = object(turn, fd) else {
        return Err(error(libc::EBADF));
    };
    match turn.shared().net.counter_kind(ix) {
        Some(CounterKind::Timer { alarm, clock }) => Ok((ix, alarm, clock)),
        _ => Err(error(libc::EINVAL)),
    }
}

unsafe fn timerfd_settime_(
    fd: c_int,
    flags: c_int,
    new: *const itimerspec,
    old: *mut itimerspec,
) -> isize {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(libc::SYS_timerfd_settime, fd, flags, new, old) };
    };
    let (socket, alarm, clock) = match of_descriptor(&mut turn, fd) {
        Ok(found) => found,
        Err(result) => return result,
    };
    // SAFETY: the caller promises a value.
    let new = unsafe { &*new };
    if !is_valid(new) {
        return error(libc::EINVAL);
    }
    let before = remaining(&mut turn, alarm);
    let absolute = flags & libc::TFD_TIMER_ABSTIME != 0;
    let (deadline, interval) = asked(&mut turn, clock, absolute, new);
    turn.shared().net.counter_clear(socket);
    set(&mut turn, alarm, deadline, interval);
    // SAFETY: the caller's promise.
    unsafe { put(old, before) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn timerfd_settime(
    fd: c_int,
    flags: c_int,
    new: *const itimerspec,
    old: *mut itimerspec,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { timerfd_settime_(fd, flags, new, old) }) as c_int
}

unsafe fn timerfd_gettime_(fd: c_int, to: *mut itimerspec) -> isize {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        // SAFETY: the caller's pointer, passed on.
        return unsafe { sys!(libc::SYS_timerfd_gettime, fd, to) };
    };
    match of_descriptor(&mut turn, fd) {
        Ok((_, alarm, _)) => {
            let state = remaining(&mut turn, alarm);
            // SAFETY: the caller's promise.
            unsafe { put(to, state) };
            0
        }
        Err(result) => result,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn timerfd_gettime(fd: c_int, to: *mut itimerspec) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { timerfd_gettime_(fd, to) }) as c_int
}
