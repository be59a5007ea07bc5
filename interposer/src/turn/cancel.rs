//! Cancellation at ordered operations.
//!
//! A cancelled thread ends with libc's own `pthread_exit` and so with all cleanup handlers, where
//! it has the turn and is in a call that POSIX names as a cancellation point, or with asynchronous
//! cancellation in any ordered operation: a moment of the schedule.

use super::proof::Turn;
use crate::libc_symbols::Real;
use crate::shared::{Cancel, ThreadInfo};
use brolga_tape::operation as op;
use core::ffi::c_void;

static EXIT: Real = Real::new(c"pthread_exit");

/// Looks up what is needed of the real libc.
pub fn resolve() {
    EXIT.get();
}

impl Cancel {
    /// Returns whether the thread is to end at its next cancellation point.
    pub fn is_due(self) -> bool {
        self.requested && !self.disabled && !self.exiting && !self.caught
    }
}

/// Returns whether a thread can be cancelled in a call with this ordered operation.
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
    /// The entry of the calling thread.
    pub fn my_info(&mut self) -> &mut ThreadInfo {
        let me = self.me();
        self.shared().thread(me)
    }

    /// Notes that this thread is in a call that the filter has caught, or no longer; says what was
    /// noted.
    pub fn set_caught(&mut self, caught: bool) -> bool {
        core::mem::replace(&mut self.my_info().cancel.caught, caught)
    }

    /// Returns whether this thread is to end at its next cancellation point.
    pub fn cancel_due(&mut self) -> bool {
        self.my_info().cancel.is_due()
    }

    /// Ends this thread if it is to end. The caller is at a cancellation point, where nothing would
    /// be left undone.
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
pub fn exit_thread(result: *mut c_void) -> ! {
    // SAFETY: libc's own function with its signature. It unwinds the stack, also our frames, in
    // which there is nothing to clean up.
    unsafe {
        let exit: extern "C" fn(*mut c_void) -> ! = core::mem::transmute(EXIT.get());
        exit(result)
    }
}
