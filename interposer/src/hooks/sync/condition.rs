//! Condition variables.

use super::super::machine::libc_own;
use super::super::op;
use super::super::time::{deadline_of, ns_of};
use super::mutex::Mutex;
use crate::turn::{Turn, is_active, space};
use brolga_dmt::{Key, Wakeup};
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
const CONDITION_MONOTONIC: u32 = 1;
const CONDITION_SHARED: u32 = 2;

impl Condition {
    fn key(&self, turn: &Turn) -> Key {
        let address = core::ptr::from_ref(self).addr();
        if self.flags & CONDITION_SHARED != 0 {
            return Turn::shared_key(space::CONDITION, address);
        }
        turn.private_key(space::CONDITION, address)
    }

    fn clock(&self) -> clockid_t {
        if self.flags & CONDITION_MONOTONIC != 0 {
            return libc::CLOCK_MONOTONIC;
        }
        libc::CLOCK_REALTIME
    }
}

unsafe extern "C" {
    fn pthread_condattr_getclock(attributes: *const c_void, clock: *mut clockid_t) -> c_int;
    fn pthread_condattr_getpshared(attributes: *const c_void, shared: *mut c_int) -> c_int;
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_init(
    condition: *mut Condition,
    attributes: *const c_void,
) -> c_int {
    if !is_active() {
        return libc_own!(pthread_cond_init(
            condition: *mut Condition,
            attributes: *const c_void
        ) -> c_int);
    }
    let (mut clock, mut shared) = (libc::CLOCK_REALTIME, 0);
    if !attributes.is_null() {
        // SAFETY: the caller's attributes.
        unsafe {
            pthread_condattr_getclock(attributes, &raw mut clock);
            pthread_condattr_getpshared(attributes, &raw mut shared);
        }
    }
    let monotonic = if clock == libc::CLOCK_MONOTONIC {
        CONDITION_MONOTONIC
    } else {
        0
    };
    let shared = if shared != 0 { CONDITION_SHARED } else { 0 };
    // SAFETY: the caller promises room for a condition variable.
    unsafe {
        condition.write(Condition {
            waiters: Cell::new(0),
            flags: monotonic | shared,
            unused: [0; 5],
        });
    };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_destroy(condition: *mut Condition) -> c_int {
    if !is_active() {
        return libc_own!(pthread_cond_destroy(condition: *mut Condition) -> c_int);
    }
    0
}

unsafe fn cond_wait(
    condition: *mut Condition,
    mutex: *mut Mutex,
    until: Option<(Option<clockid_t>, u64)>,
) -> c_int {
    let Some(mut turn) = Turn::take(op::WAIT) else {
        crate::turn::fault(&[b"a thread outside the schedule waits on a condition variable"]);
    };
    // SAFETY: the caller promises both objects; whoever has the turn has them alone.
    let (condition, mutex) = unsafe { (&*condition, &*mutex) };
    let deadline = until
        .map(|(clock, ns)| deadline_of(&mut turn, clock.unwrap_or_else(|| condition.clock()), ns));
    let depth = mutex.count.take();
    let unlocked = mutex.unlock(Some(&mut turn));
    if unlocked != 0 {
        mutex.count.set(depth);
        return unlocked;
    }
    condition.waiters.set(condition.waiters.get() + 1);
    let woken = turn.block(condition.key(&turn), deadline);
    condition.waiters.set(condition.waiters.get() - 1);
    mutex.lock(&mut turn, None);
    mutex.count.set(depth);
    if woken == Wakeup::TimedOut {
        libc::ETIMEDOUT
    } else {
        0
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_wait(condition: *mut Condition, mutex: *mut Mutex) -> c_int {
    if !is_active() {
        return libc_own!(pthread_cond_wait(condition: *mut Condition, mutex: *mut Mutex) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { cond_wait(condition, mutex, None) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_timedwait(
    condition: *mut Condition,
    mutex: *mut Mutex,
    until: *const timespec,
) -> c_int {
    if !is_active() {
        return libc_own!(pthread_cond_timedwait(
            condition: *mut Condition,
            mutex: *mut Mutex,
            until: *const timespec
        ) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { cond_wait(condition, mutex, Some((None, ns_of(&*until)))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_clockwait(
    condition: *mut Condition,
    mutex: *mut Mutex,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    if !is_active() {
        return libc_own!(pthread_cond_clockwait(
            condition: *mut Condition,
            mutex: *mut Mutex,
            clock: clockid_t,
            until: *const timespec
        ) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { cond_wait(condition, mutex, Some((Some(clock), ns_of(&*until)))) }
}

unsafe fn cond_wake(condition: *mut Condition, count: usize) -> c_int {
    let turn = Turn::take(op::SIGNAL);
    // SAFETY: as for waiting.
    let condition = unsafe { &*condition };
    if condition.waiters.get() > 0
        && let Some(mut turn) = turn
    {
        turn.wake(condition.key(&turn), count);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_signal(condition: *mut Condition) -> c_int {
    if !is_active() {
        return libc_own!(pthread_cond_signal(condition: *mut Condition) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { cond_wake(condition, 1) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_broadcast(condition: *mut Condition) -> c_int {
    if !is_active() {
        return libc_own!(pthread_cond_broadcast(condition: *mut Condition) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { cond_wake(condition, usize::MAX) }
}
