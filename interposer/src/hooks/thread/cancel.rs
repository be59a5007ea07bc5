//! Cancellation of threads.
//!
//! `pthread_cancel` only marks the thread and wakes it. The thread ends itself, with libc's own
//! `pthread_exit` and so with all cleanup handlers, where it has the turn and is in a call that POSIX
//! names as a cancellation point, or with asynchronous cancellation in any ordered operation: a moment of
//! the schedule. libc's own notion of cancellation is never used.
//!
//! Functions of libc that are cancellation points only because of a call inside (stdio, name look-up)
//! are none here unless that call is hooked.

use super::pthread::by_handle;
use super::sync::wrapped;
use crate::hooks::op;
use crate::libc_symbols::{Real, libc_own};
use crate::shared::ThreadInfo;
use crate::turn::{Turn, is_active};
use core::ffi::{c_int, c_void};

static EXIT: Real = Real::new(c"pthread_exit");

/// `PTHREAD_CANCEL_DISABLE`, `PTHREAD_CANCEL_ASYNCHRONOUS`; their opposites are 0.
const YES: c_int = 1;

/// How a thread stands to being cancelled.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Cancel {
    requested: bool,
    disabled: bool,
    asynchronous: bool,
    /// It ends already.
    exiting: bool,
    /// It is in a call that the filter has caught: inside libc, where nothing is prepared for an end.
    caught: bool,
}

impl Cancel {
    pub const NONE: Self = Self {
        requested: false,
        disabled: false,
        asynchronous: false,
        exiting: false,
        caught: false,
    };

    fn is_due(self) -> bool {
        self.requested && !self.disabled && !self.exiting && !self.caught
    }
}

pub fn resolve() {
    EXIT.get();
}

/// Whether a thread can be cancelled in a call with this ordered operation.
fn is_point(operation: u16) -> bool {
    matches!(
        operation,
        op::ACCEPT
            | op::CONNECT
            | op::READ
            | op::WRITE
            | op::CLOSE
            | op::FILE
            | op::EPOLL_WAIT
            | op::POLL
            | op::JOIN
            | op::WAIT
            | op::SLEEP
            | op::REAP
            | op::SIGWAIT
    )
}

impl Turn {
    fn my_info(&mut self) -> &mut ThreadInfo {
        let me = self.me();
        self.shared().thread(me)
    }

    /// Notes that this thread is in a call that the filter has caught, or no longer; says what was noted.
    pub fn set_caught(&mut self, caught: bool) -> bool {
        core::mem::replace(&mut self.my_info().cancel.caught, caught)
    }

    /// Whether this thread is to end at its next cancellation point.
    pub fn cancel_due(&mut self) -> bool {
        self.my_info().cancel.is_due()
    }

    /// Ends this thread if it is to end. The caller is at a cancellation point, where nothing would be
    /// left undone.
    pub fn cancel_if_due(&mut self) {
        if self.cancel_due() {
            self.my_info().cancel.exiting = true;
            self.lend();
            exit_thread(core::ptr::without_provenance_mut(usize::MAX));
        }
    }

    /// At the start of an ordered operation.
    pub fn cancel_at(&mut self, operation: u16) {
        if !self.cancel_due() {
            return;
        }
        if is_point(operation) || self.my_info().cancel.asynchronous {
            self.cancel_if_due();
        }
        self.scheduler().demand_attention();
    }
}

/// A call has ended with `EINTR`: perhaps because its thread is to end.
#[cold]
pub fn after_interruption() {
    if let Some(mut turn) = Turn::have() {
        turn.cancel_if_due();
    }
}

/// This thread is past its start routine: from here on it can't be cancelled.
pub fn begin_exit() {
    if let Some(mut turn) = Turn::have() {
        turn.my_info().cancel.exiting = true;
    }
}

/// libc's own function.
pub(crate) fn exit_thread(result: *mut c_void) -> ! {
    // SAFETY: libc's own function with its signature. It unwinds the stack, also our frames, in which
    // there is nothing to clean up.
    unsafe {
        let exit: extern "C" fn(*mut c_void) -> ! = core::mem::transmute(EXIT.get());
        exit(result)
    }
}

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
