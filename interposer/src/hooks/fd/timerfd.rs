//! `timerfd`.

use super::counter;
use super::object::object;
use crate::hooks::result::{error, finish};
use crate::hooks::time::alarm::{make, remaining, set};
use crate::hooks::time::timer::{asked, is_valid, known_clock, put};
use crate::shared::Purpose;
use crate::sys::sys;
use crate::turn::Turn;
use brolga_dmt::ThreadIx;
use brolga_tape::operation as op;
use brolga_vnet::{CounterKind, Object, SocketIx};
use core::ffi::c_int;
use libc::{clockid_t, itimerspec};
/// Alarms of timer descriptors belong to no process: the descriptor may outlive its maker.
const NO_PROCESS: u16 = u16::MAX;

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

/// Sets a timer, and gives its state before.
///
/// # Safety
/// As `timerfd_settime`: `new` points to a time, `old` is null or has room for one.
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
    // SAFETY: the caller promises that `new` points to a time, `old` is null or has room for one.
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

/// The state of a timer.
///
/// # Safety
/// As `timerfd_gettime`: `to` has room.
unsafe fn timerfd_gettime_(fd: c_int, to: *mut itimerspec) -> isize {
    let Some(mut turn) = Turn::take(op::TIMER) else {
        // SAFETY: the caller's pointer, passed on.
        return unsafe { sys!(libc::SYS_timerfd_gettime, fd, to) };
    };
    match of_descriptor(&mut turn, fd) {
        Ok((_, alarm, _)) => {
            let state = remaining(&mut turn, alarm);
            // SAFETY: the caller promises that `to` has room.
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
