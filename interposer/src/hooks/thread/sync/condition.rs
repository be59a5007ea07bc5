//! Condition variables.

use super::mutex::Mutex;
use super::{Until, key_of, wrapped};
use crate::turn::{Turn, space};
use brolga_dmt::{Key, Wakeup};
use brolga_tape::operation as op;
use core::cell::Cell;
use core::ffi::{c_int, c_void};
use libc::{clockid_t, timespec};

/// Our `pthread_cond_t`; all zeros is the static initialiser.
#[repr(C)]
pub struct Condition {
    waiters: Cell<u32>,
    flags: u32,
    unused: [u64; 5],
}

const _: () = assert!(size_of::<Condition>() == size_of::<libc::pthread_cond_t>());
const MONOTONIC: u32 = 1;
const SHARED: u32 = 2;

impl Condition {
    fn new(clock: clockid_t, shared: bool) -> Self {
        let monotonic = u32::from(clock == libc::CLOCK_MONOTONIC) * MONOTONIC;
        Self {
            waiters: Cell::new(0),
            flags: monotonic | (u32::from(shared) * SHARED),
            unused: [0; 5],
        }
    }

    fn key(&self, turn: &Turn) -> Key {
        key_of(turn, space::CONDITION, self, self.flags & SHARED != 0)
    }

    fn clock(&self) -> clockid_t {
        if self.flags & MONOTONIC != 0 {
            return libc::CLOCK_MONOTONIC;
        }
        libc::CLOCK_REALTIME
    }

    /// Waits with the mutex given back meanwhile. A thread that is cancelled has it when it ends.
    pub(super) fn wait(&self, turn: &mut Turn, mutex: &Mutex, until: Option<&Until>) -> c_int {
        let deadline = match super::deadline(turn, until) {
            Ok(deadline) => deadline,
            Err(invalid) => return invalid,
        };
        let depth = mutex.count.take();
        let unlocked = mutex.unlock(Some(turn));
        if unlocked != 0 {
            mutex.count.set(depth);
            return unlocked;
        }
        self.waiters.set(self.waiters.get() + 1);
        let woken = turn.block_regardless(self.key(turn), deadline);
        if woken != Wakeup::Signalled {
            self.waiters.set(self.waiters.get() - 1);
        }
        // From here on the condition variable may be gone.
        let locked = mutex.lock(turn, None);
        mutex.count.set(depth);
        if woken != Wakeup::Signalled {
            turn.cancel_if_due();
        }
        match (locked, woken) {
            (0, Wakeup::TimedOut) => libc::ETIMEDOUT,
            (result, _) => result,
        }
    }

    /// Wakes so many waiters.
    pub(super) fn wake(&self, turn: Option<&mut Turn>, count: usize) {
        if self.waiters.get() > 0
            && let Some(turn) = turn
        {
            let woken = turn.wake(self.key(turn), count);
            self.waiters.set(self.waiters.get() - woken as u32);
        }
    }
}

unsafe extern "C" {
    fn pthread_condattr_getclock(attributes: *const c_void, clock: *mut clockid_t) -> c_int;
    fn pthread_condattr_getpshared(attributes: *const c_void, shared: *mut c_int) -> c_int;
}

/// # Safety
/// Both objects are initialised, and the caller has the mutex.
pub(super) unsafe fn wait(
    condition: *mut Condition,
    mutex: *mut Mutex,
    until: Option<&Until>,
) -> c_int {
    let Some(mut turn) = Turn::take(op::WAIT) else {
        crate::turn::fault(&[b"a thread outside the schedule waits on a condition variable"]);
    };
    // SAFETY: the caller's promise; whoever has the turn has them alone.
    unsafe { (*condition).wait(&mut turn, &*mutex, until) }
}

/// # Safety
/// The condition variable is initialised.
pub(super) unsafe fn wake(condition: *mut Condition, count: usize) {
    let mut turn = Turn::take(op::SIGNAL);
    // SAFETY: the caller promises that the condition variable is initialised.
    unsafe { (*condition).wake(turn.as_mut(), count) };
}

wrapped! {
    fn pthread_cond_init(condition: *mut Condition, attributes: *const c_void) -> c_int {
        let (mut clock, mut shared) = (libc::CLOCK_REALTIME, 0);
        if !attributes.is_null() {
            // SAFETY: the caller's attributes.
            unsafe {
                pthread_condattr_getclock(attributes, &raw mut clock);
                pthread_condattr_getpshared(attributes, &raw mut shared);
            }
        }
        // SAFETY: the caller promises room for a condition variable.
        unsafe { condition.write(Condition::new(clock, shared != 0)) };
        0
    }

    fn pthread_cond_destroy(_condition: *mut Condition) -> c_int {
        0
    }

    fn pthread_cond_wait(condition: *mut Condition, mutex: *mut Mutex) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { wait(condition, mutex, None) }
    }

    fn pthread_cond_timedwait(
        condition: *mut Condition,
        mutex: *mut Mutex,
        until: *const timespec,
    ) -> c_int {
        // SAFETY: the caller's promise.
        unsafe {
            let until = Until::new((*condition).clock(), until);
            wait(condition, mutex, Some(&until))
        }
    }

    fn pthread_cond_clockwait(
        condition: *mut Condition,
        mutex: *mut Mutex,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { wait(condition, mutex, Some(&Until::new(clock, until))) }
    }

    fn pthread_cond_signal(condition: *mut Condition) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { wake(condition, 1) };
        0
    }

    fn pthread_cond_broadcast(condition: *mut Condition) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { wake(condition, usize::MAX) };
        0
    }
}
