//! Cancellation of threads.
//!
//! `pthread_cancel` only marks the thread and wakes it. The thread ends itself, with libc's own
//! `pthread_exit` and so with all cleanup handlers, where it has the turn and is in a call that
//! POSIX names as a cancellation point, or with asynchronous cancellation in any ordered operation:
//! a moment of the schedule. libc's own notion of cancellation is never used.
//!
//! Functions of libc that are cancellation points only because of a call inside (stdio, name
//! look-up) are none here unless that call is hooked.

use super::handle::by_handle;
use super::sync::wrapped;
use crate::libc_symbols::libc_own;
use crate::shared::Cancel;
use crate::turn::cancel::{begin_exit, exit_thread};
use crate::turn::{Turn, is_active};
use brolga_tape::operation as op;
use core::ffi::{c_int, c_void};

/// `PTHREAD_CANCEL_DISABLE`, `PTHREAD_CANCEL_ASYNCHRONOUS`; their opposites are 0.
const YES: c_int = 1;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_exit(result: *mut c_void) -> ! {
    begin_exit();
    exit_thread(result)
}

fn cancel(turn: &mut Turn, handle: u64) -> c_int {
    let Some(ix) = by_handle(turn, handle) else {
        return libc::ESRCH;
    };
    turn.shared().thread(ix).cancel.requested = true;
    if turn.shared().thread(ix).cancel.is_due() {
        if ix == turn.me() {
            turn.cancel_at(op::KILL);
        } else {
            turn.scheduler().interrupt(ix);
        }
    }
    0
}

/// Changes a flag; `to` is the new value, `old` gets the previous one.
///
/// # Safety
/// `old` is null or has room for an int.
unsafe fn change(to: c_int, old: *mut c_int, flag: impl FnOnce(&mut Cancel) -> &mut bool) -> c_int {
    if to != 0 && to != YES {
        return libc::EINVAL;
    }
    let mut before = 0;
    if let Some(mut turn) = Turn::have() {
        before = c_int::from(core::mem::replace(
            flag(&mut turn.my_info().cancel),
            to == YES,
        ));
        turn.cancel_at(op::KILL);
    }
    if !old.is_null() {
        // SAFETY: the caller promises room for an int.
        unsafe { old.write(before) };
    }
    0
}

wrapped! {
    fn pthread_cancel(handle: u64) -> c_int {
        match Turn::take(op::KILL) {
            Some(mut turn) => cancel(&mut turn, handle),
            None => libc_own!(pthread_cancel(handle: u64) -> c_int),
        }
    }

    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { change(state, old, |cancel| &mut cancel.disabled) }
    }

    fn pthread_setcanceltype(kind: c_int, old: *mut c_int) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { change(kind, old, |cancel| &mut cancel.asynchronous) }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_testcancel() {
    if !is_active() {
        libc_own!(pthread_testcancel() -> ());
    } else if let Some(mut turn) = Turn::have() {
        turn.cancel_if_due();
    }
}
