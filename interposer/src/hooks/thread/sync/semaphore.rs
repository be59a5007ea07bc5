//! Semaphores.

use super::{Until, deadline, key_of, wrapped};
use crate::hooks::result::{error, finish};
use crate::turn::{Turn, space};
use brolga_dmt::{Key, Wakeup};
use brolga_tape::operation as op;
use core::cell::Cell;
use core::ffi::{c_int, c_uint};
use libc::{clockid_t, timespec};

/// The first words of glibc's `sem_t`.
#[repr(C)]
pub struct Semaphore {
    value: Cell<u32>,
    waiters: Cell<u32>,
    private: u32,
}

/// glibc's mark of a semaphore that processes share.
const SHARED: u32 = 128;
/// `SEM_VALUE_MAX`.
pub(super) const VALUE_MAX: u32 = i32::MAX as u32;

impl Semaphore {
    fn new(value: u32, shared: bool) -> Self {
        Self {
            value: Cell::new(value),
            waiters: Cell::new(0),
            private: u32::from(shared) * SHARED,
        }
    }

    /// A semaphore that processes share.
    pub(super) fn shared(value: u32) -> Self {
        Self::new(value, true)
    }

    fn key(&self, turn: &Turn) -> Key {
        key_of(turn, space::SEMAPHORE, self, self.private == SHARED)
    }

    fn try_take(&self) -> bool {
        let there = self.value.get() > 0;
        if there {
            self.value.set(self.value.get() - 1);
        }
        there
    }

    fn take(&self, turn: &mut Turn, until: Option<&Until>) -> isize {
        let deadline = match deadline(turn, until) {
            Ok(deadline) => deadline,
            Err(invalid) => return error(invalid),
        };
        let mut woken = Wakeup::None;
        loop {
            if self.try_take() {
                return 0;
            }
            match woken {
                Wakeup::Interrupted => return error(libc::EINTR),
                Wakeup::TimedOut => return error(libc::ETIMEDOUT),
                _ => {}
            }
            self.waiters.set(self.waiters.get() + 1);
            woken = turn.block(self.key(turn), deadline);
            self.waiters.set(self.waiters.get() - 1);
        }
    }

    fn post(&self, turn: Option<&mut Turn>) -> isize {
        if self.value.get() >= VALUE_MAX {
            return error(libc::EOVERFLOW);
        }
        self.value.set(self.value.get() + 1);
        if self.waiters.get() > 0
            && let Some(turn) = turn
        {
            turn.wake(self.key(turn), 1);
        }
        0
    }
}

/// Takes one, waiting if there is none.
///
/// # Safety
/// `semaphore` is one that lives.
unsafe fn take(semaphore: *mut Semaphore, until: Option<&Until>) -> c_int {
    let Some(mut turn) = Turn::take(op::WAIT) else {
        crate::turn::fault(&[b"a thread outside the schedule waits on a semaphore"]);
    };
    // SAFETY: the caller promises an initialised semaphore; whoever has the turn has it alone.
    let result = unsafe { &*semaphore }.take(&mut turn, until);
    drop(turn);
    finish(result) as c_int
}

wrapped! {
    fn sem_init(semaphore: *mut Semaphore, shared: c_int, value: c_uint) -> c_int {
        if value > VALUE_MAX {
            return finish(error(libc::EINVAL)) as c_int;
        }
        let fresh = Semaphore::new(value, shared != 0);
        // SAFETY: the caller promises room for a semaphore.
        unsafe { semaphore.write(fresh) };
        0
    }

    fn sem_destroy(_semaphore: *mut Semaphore) -> c_int {
        0
    }

    fn sem_wait(semaphore: *mut Semaphore) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { take(semaphore, None) }
    }

    fn sem_timedwait(semaphore: *mut Semaphore, until: *const timespec) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { take(semaphore, Some(&Until::new(libc::CLOCK_REALTIME, until))) }
    }

    fn sem_clockwait(
        semaphore: *mut Semaphore,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { take(semaphore, Some(&Until::new(clock, until))) }
    }

    fn sem_trywait(semaphore: *mut Semaphore) -> c_int {
        let turn = Turn::take(op::LOCK);
        // SAFETY: the caller promises an initialised semaphore.
        if unsafe { &*semaphore }.try_take() {
            return 0;
        }
        if let Some(mut turn) = turn {
            turn.yield_now();
        }
        finish(error(libc::EAGAIN)) as c_int
    }

    fn sem_post(semaphore: *mut Semaphore) -> c_int {
        let mut turn = Turn::take(op::SIGNAL);
        // SAFETY: the caller promises an initialised semaphore.
        finish(unsafe { &*semaphore }.post(turn.as_mut())) as c_int
    }

    fn sem_getvalue(semaphore: *mut Semaphore, to: *mut c_int) -> c_int {
        let _turn = Turn::have();
        // SAFETY: the caller promises both.
        unsafe { to.write((*semaphore).value.get().cast_signed()) };
        0
    }
}
