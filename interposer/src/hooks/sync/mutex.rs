//! Mutexes of all kinds.

use super::super::machine::libc_own;
use super::super::op;
use super::super::time::{deadline_of, ns_of};
use super::{OUTSIDE, id};
use crate::turn::{Turn, is_active, space};
use brolga_dmt::{Key, Wakeup};
use core::cell::Cell;
use core::ffi::c_int;
use libc::{clockid_t, timespec};

/// The first words of glibc's `pthread_mutex_t`.
#[repr(C)]
pub struct Mutex {
    locked: Cell<u32>,
    /// Depth of a recursive mutex.
    pub(super) count: Cell<u32>,
    owner: Cell<i32>,
    waiters: Cell<u32>,
    kind: i32,
}

const KIND_MASK: i32 = 3;
const RECURSIVE: i32 = 1;
const ERROR_CHECK: i32 = 2;
const ROBUST: i32 = 16;
const SHARED: i32 = 128;

impl Mutex {
    fn key(&self, turn: &Turn) -> Key {
        let address = core::ptr::from_ref(self).addr();
        if self.kind & SHARED != 0 {
            return Turn::shared_key(space::MUTEX, address);
        }
        turn.private_key(space::MUTEX, address)
    }

    fn try_lock(&self, me: i32) -> c_int {
        if self.locked.get() == 0 {
            self.locked.set(1);
            self.owner.set(me);
            return 0;
        }
        if self.owner.get() != me {
            return libc::EBUSY;
        }
        match self.kind & KIND_MASK {
            RECURSIVE if self.count.get() == u32::MAX => libc::EAGAIN,
            RECURSIVE => {
                self.count.set(self.count.get() + 1);
                0
            }
            ERROR_CHECK => libc::EDEADLK,
            _ => libc::EBUSY,
        }
    }

    /// Locks, waiting if need be.
    pub(super) fn lock(&self, turn: &mut Turn, deadline_ns: Option<u64>) -> c_int {
        let me = id(Some(turn));
        loop {
            let result = self.try_lock(me);
            if result != libc::EBUSY {
                return result;
            }
            self.waiters.set(self.waiters.get() + 1);
            let woken = turn.block(self.key(turn), deadline_ns);
            self.waiters.set(self.waiters.get() - 1);
            if woken == Wakeup::TimedOut {
                return match self.try_lock(me) {
                    libc::EBUSY => libc::ETIMEDOUT,
                    other => other,
                };
            }
        }
    }

    pub(super) fn unlock(&self, mut turn: Option<&mut Turn>) -> c_int {
        let checked = self.kind & (KIND_MASK | ROBUST);
        if (checked == RECURSIVE || checked == ERROR_CHECK)
            && (self.locked.get() == 0 || self.owner.get() != id(turn.as_deref_mut()))
        {
            return libc::EPERM;
        }
        if self.count.get() > 0 {
            self.count.set(self.count.get() - 1);
            return 0;
        }
        self.locked.set(0);
        self.owner.set(0);
        if self.waiters.get() > 0
            && let Some(turn) = turn
        {
            turn.wake(self.key(turn), 1);
        }
        0
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_lock(mutex: *mut Mutex) -> c_int {
    if !is_active() {
        return libc_own!(pthread_mutex_lock(mutex: *mut Mutex) -> c_int);
    }
    // SAFETY: the caller promises an initialised mutex; whoever has the turn has it alone.
    let mutex = unsafe { &*mutex };
    match Turn::take(op::LOCK) {
        Some(mut turn) => mutex.lock(&mut turn, None),
        None => {
            mutex.try_lock(OUTSIDE);
            0
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_trylock(mutex: *mut Mutex) -> c_int {
    if !is_active() {
        return libc_own!(pthread_mutex_trylock(mutex: *mut Mutex) -> c_int);
    }
    // SAFETY: as for lock.
    let mutex = unsafe { &*mutex };
    let mut turn = Turn::take(op::LOCK);
    match mutex.try_lock(id(turn.as_mut())) {
        libc::EDEADLK => libc::EBUSY,
        libc::EBUSY => {
            if let Some(mut turn) = turn {
                // Programs spin on trylock: the owner must get to run.
                turn.yield_now();
            }
            libc::EBUSY
        }
        other => other,
    }
}

unsafe fn timed_lock(mutex: *mut Mutex, clock: clockid_t, until: *const timespec) -> c_int {
    // SAFETY: as for lock; the caller promises a timespec.
    let (mutex, until) = unsafe { (&*mutex, ns_of(&*until)) };
    match Turn::take(op::LOCK) {
        Some(mut turn) => {
            let deadline = deadline_of(&mut turn, clock, until);
            mutex.lock(&mut turn, Some(deadline))
        }
        None => mutex.try_lock(OUTSIDE),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_timedlock(
    mutex: *mut Mutex,
    until: *const timespec,
) -> c_int {
    if !is_active() {
        return libc_own!(pthread_mutex_timedlock(
            mutex: *mut Mutex,
            until: *const timespec
        ) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { timed_lock(mutex, libc::CLOCK_REALTIME, until) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_clocklock(
    mutex: *mut Mutex,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    if !is_active() {
        return libc_own!(pthread_mutex_clocklock(
            mutex: *mut Mutex,
            clock: clockid_t,
            until: *const timespec
        ) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { timed_lock(mutex, clock, until) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_unlock(mutex: *mut Mutex) -> c_int {
    if !is_active() {
        return libc_own!(pthread_mutex_unlock(mutex: *mut Mutex) -> c_int);
    }
    // SAFETY: as for lock.
    let mutex = unsafe { &*mutex };
    mutex.unlock(Turn::take(op::UNLOCK).as_mut())
}
