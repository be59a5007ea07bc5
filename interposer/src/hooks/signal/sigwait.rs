//! Waiting for signals: `sigwait`, `sigsuspend`, `pause`.

use super::set::set_at;
use crate::hooks::result::{error, finish};
use crate::libc_symbols::libc_own;
use crate::nanoseconds;
use crate::sys::sys;
use crate::turn::signals::{Delivered, describe};
use crate::turn::{Turn, space};
use brolga_dmt::{Key, Wakeup};
use brolga_tape::operation as op;
use brolga_vsignal::{Info, Set};
use core::ffi::c_int;
use libc::{sigset_t, timespec};

fn wait_key(turn: &Turn) -> Key {
    Key {
        space: space::SIGNAL,
        id: u64::from(turn.me()),
    }
}

/// Waits for a handler to run under a mask.
fn suspend(turn: &mut Turn, mask: Set) -> isize {
    let me = turn.me();
    let before = turn.shared().signals.mask(me);
    turn.shared().signals.set_mask(me, mask);
    if !turn.signal_due() || turn.deliver() == Delivered::Nothing {
        loop {
            let key = wait_key(turn);
            if matches!(turn.block(key, None), Wakeup::Interrupted | Wakeup::Restart) {
                break;
            }
        }
    }
    let me = turn.me();
    turn.shared().signals.set_mask(me, before);
    if turn.signal_due() {
        turn.deliver();
    }
    error(libc::EINTR)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigsuspend(mask: *const sigset_t) -> c_int {
    let Some(mut turn) = Turn::take(op::SIGWAIT) else {
        // SAFETY: the caller's pointer, passed on.
        return finish(unsafe { sys!(libc::SYS_rt_sigsuspend, mask, 8) }) as c_int;
    };
    // SAFETY: the caller's promise.
    match unsafe { set_at(mask) } {
        Some(mask) => finish(suspend(&mut turn, mask)) as c_int,
        None => finish(error(libc::EFAULT)) as c_int,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn pause() -> c_int {
    let Some(mut turn) = Turn::take(op::SIGWAIT) else {
        // SAFETY: no arguments.
        return finish(unsafe { sys!(libc::SYS_pause) }) as c_int;
    };
    let me = turn.me();
    let mask = turn.shared().signals.mask(me);
    finish(suspend(&mut turn, mask)) as c_int
}

/// Waits for a signal of the set; `Err` is an errno.
fn await_signal(turn: &mut Turn, set: Set, deadline_ns: Option<u64>) -> Result<Info, c_int> {
    loop {
        let (process, me) = (turn.process(), turn.me());
        if let Some(info) = turn.shared().signals.take_from(process, me, set) {
            turn.refresh_signal_files(process);
            turn.scheduler().note(u64::from(info.signal));
            return Ok(info);
        }
        if deadline_ns.is_some_and(|deadline| deadline <= turn.now_ns()) {
            return Err(libc::EAGAIN);
        }
        turn.shared().signals.set_awaited(me, set);
        let key = wait_key(turn);
        let woken = turn.block(key, deadline_ns);
        let me = turn.me();
        turn.shared().signals.set_awaited(me, Set(0));
        if matches!(woken, Wakeup::Interrupted | Wakeup::Restart) {
            return Err(libc::EINTR);
        }
    }
}

/// Unlike the others this one returns the error itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigwait(set: *const sigset_t, signal: *mut c_int) -> c_int {
    let Some(mut turn) = Turn::take(op::SIGWAIT) else {
        return libc_own!(sigwait(set: *const sigset_t, signal: *mut c_int) -> c_int);
    };
    // SAFETY: the caller's promise.
    let Some(set) = (unsafe { set_at(set) }) else {
        return libc::EINVAL;
    };
    loop {
        match await_signal(&mut turn, set, None) {
            Ok(info) => {
                // SAFETY: the caller promises room for an int.
                unsafe { signal.write(c_int::from(info.signal)) };
                return 0;
            }
            Err(libc::EINTR) => turn.cancel_if_due(),
            Err(errno) => return errno,
        }
    }
}

/// Waits for a signal of a set until a time.
///
/// # Safety
/// As `sigtimedwait`: `set` points to a set, `info` is null or has room, `timeout` is null or
/// points to a timespec.
unsafe fn sigtimedwait_(
    set: *const sigset_t,
    info: *mut libc::siginfo_t,
    timeout: *const timespec,
) -> isize {
    let Some(mut turn) = Turn::take(op::SIGWAIT) else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(libc::SYS_rt_sigtimedwait, set, info, timeout, 8) };
    };
    // SAFETY: the caller's promise.
    let (set, timeout) = unsafe { (set_at(set), timeout.as_ref()) };
    let Some(set) = set else {
        return error(libc::EINVAL);
    };
    let now = turn.now_ns();
    let deadline = timeout.map(|timeout| now.saturating_add(nanoseconds::ns_of(timeout)));
    match await_signal(&mut turn, set, deadline) {
        Ok(taken) => {
            if !info.is_null() {
                // SAFETY: the caller promises room for a siginfo.
                unsafe { info.write(describe(&taken)) };
            }
            isize::from(taken.signal)
        }
        Err(errno) => error(errno),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigtimedwait(
    set: *const sigset_t,
    info: *mut libc::siginfo_t,
    timeout: *const timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { sigtimedwait_(set, info, timeout) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigwaitinfo(set: *const sigset_t, info: *mut libc::siginfo_t) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { sigtimedwait_(set, info, core::ptr::null()) }) as c_int
}
