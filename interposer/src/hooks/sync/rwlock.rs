//! Read-write locks.

use super::super::machine::libc_own;
use super::super::op;
use super::super::time::{deadline_of, ns_of};
use super::{OUTSIDE, id};
use crate::turn::{Turn, is_active, space};
use brolga_dmt::{Key, Wakeup};
use core::cell::Cell;
use core::ffi::{c_int, c_void};
use libc::{clockid_t, timespec};

/// Our `pthread_rwlock_t`; all zeros is the static initialiser (the kinds are ignored: whoever came
/// first goes first).
#[repr(C)]
pub struct Rwlock {
    readers: Cell<u32>,
    writer: Cell<i32>,
    waiters: Cell<u32>,
    shared: u32,
    unused: [u64; 5],
}

const _: () = assert!(size_of::<Rwlock>() == size_of::<libc::pthread_rwlock_t>());

impl Rwlock {
    fn key(&self, turn: &Turn) -> Key {
        let address = core::ptr::from_ref(self).addr();
        if self.shared != 0 {
            return Turn::shared_key(space::RWLOCK, address);
        }
        turn.private_key(space::RWLOCK, address)
    }

    fn try_acquire(&self, write: bool, me: i32) -> c_int {
        if self.writer.get() == me && me != OUTSIDE {
            return libc::EDEADLK;
        }
        if self.writer.get() != 0 || (write && self.readers.get() > 0) {
            return libc::EBUSY;
        }
        if write {
            self.writer.set(me);
        } else {
            self.readers.set(self.readers.get() + 1);
        }
        0
    }

    fn acquire(&self, turn: &mut Turn, write: bool, deadline_ns: Option<u64>) -> c_int {
        let me = id(Some(turn));
        loop {
            let result = self.try_acquire(write, me);
            if result != libc::EBUSY {
                return result;
            }
            self.waiters.set(self.waiters.get() + 1);
            let woken = turn.block(self.key(turn), deadline_ns);
            self.waiters.set(self.waiters.get() - 1);
            if woken == Wakeup::TimedOut && self.try_acquire(write, me) != 0 {
                return libc::ETIMEDOUT;
            } else if woken == Wakeup::TimedOut {
                return 0;
            }
        }
    }
}

unsafe extern "C" {
    fn pthread_rwlockattr_getpshared(attributes: *const c_void, shared: *mut c_int) -> c_int;
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_init(
    lock: *mut Rwlock,
    attributes: *const c_void,
) -> c_int {
    if !is_active() {
        return libc_own!(pthread_rwlock_init(
            lock: *mut Rwlock,
            attributes: *const c_void
        ) -> c_int);
    }
    let mut shared = 0;
    if !attributes.is_null() {
        // SAFETY: the caller's attributes.
        unsafe { pthread_rwlockattr_getpshared(attributes, &raw mut shared) };
    }
    let shared = u32::from(shared != 0);
    // SAFETY: the caller promises room for a lock.
    unsafe {
        lock.write(Rwlock {
            readers: Cell::new(0),
            writer: Cell::new(0),
            waiters: Cell::new(0),
            shared,
            unused: [0; 5],
        });
    };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_destroy(lock: *mut Rwlock) -> c_int {
    if !is_active() {
        return libc_own!(pthread_rwlock_destroy(lock: *mut Rwlock) -> c_int);
    }
    0
}

unsafe fn rwlock(
    lock: *mut Rwlock,
    write: bool,
    until: Option<(clockid_t, *const timespec)>,
) -> c_int {
    // SAFETY: the caller promises an initialised lock and, if any, a timespec.
    let lock = unsafe { &*lock };
    let Some(mut turn) = Turn::take(op::LOCK) else {
        lock.try_acquire(write, OUTSIDE);
        return 0;
    };
    let deadline = until.map(|(clock, until)| {
        // SAFETY: the caller promises a timespec.
        deadline_of(&mut turn, clock, unsafe { ns_of(&*until) })
    });
    lock.acquire(&mut turn, write, deadline)
}

unsafe fn try_rwlock(lock: *mut Rwlock, write: bool) -> c_int {
    let mut turn = Turn::take(op::LOCK);
    // SAFETY: the caller promises an initialised lock.
    let result = unsafe { (*lock).try_acquire(write, id(turn.as_mut())) };
    if result == 0 {
        return 0;
    }
    if let Some(mut turn) = turn {
        turn.yield_now();
    }
    libc::EBUSY
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_rdlock(lock: *mut Rwlock) -> c_int {
    if !is_active() {
        return libc_own!(pthread_rwlock_rdlock(lock: *mut Rwlock) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { rwlock(lock, false, None) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_wrlock(lock: *mut Rwlock) -> c_int {
    if !is_active() {
        return libc_own!(pthread_rwlock_wrlock(lock: *mut Rwlock) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { rwlock(lock, true, None) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_tryrdlock(lock: *mut Rwlock) -> c_int {
    if !is_active() {
        return libc_own!(pthread_rwlock_tryrdlock(lock: *mut Rwlock) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { try_rwlock(lock, false) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_trywrlock(lock: *mut Rwlock) -> c_int {
    if !is_active() {
        return libc_own!(pthread_rwlock_trywrlock(lock: *mut Rwlock) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { try_rwlock(lock, true) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_timedrdlock(
    lock: *mut Rwlock,
    until: *const timespec,
) -> c_int {
    if !is_active() {
        return libc_own!(pthread_rwlock_timedrdlock(
            lock: *mut Rwlock,
            until: *const timespec
        ) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { rwlock(lock, false, Some((libc::CLOCK_REALTIME, until))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_timedwrlock(
    lock: *mut Rwlock,
    until: *const timespec,
) -> c_int {
    if !is_active() {
        return libc_own!(pthread_rwlock_timedwrlock(
            lock: *mut Rwlock,
            until: *const timespec
        ) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { rwlock(lock, true, Some((libc::CLOCK_REALTIME, until))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_clockrdlock(
    lock: *mut Rwlock,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    if !is_active() {
        return libc_own!(pthread_rwlock_clockrdlock(
            lock: *mut Rwlock,
            clock: clockid_t,
            until: *const timespec
        ) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { rwlock(lock, false, Some((clock, until))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_clockwrlock(
    lock: *mut Rwlock,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    if !is_active() {
        return libc_own!(pthread_rwlock_clockwrlock(
            lock: *mut Rwlock,
            clock: clockid_t,
            until: *const timespec
        ) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { rwlock(lock, true, Some((clock, until))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_rwlock_unlock(lock: *mut Rwlock) -> c_int {
    if !is_active() {
        return libc_own!(pthread_rwlock_unlock(lock: *mut Rwlock) -> c_int);
    }
    let turn = Turn::take(op::UNLOCK);
    // SAFETY: the caller promises an initialised lock.
    let lock = unsafe { &*lock };
    if lock.writer.get() != 0 {
        lock.writer.set(0);
    } else {
        lock.readers.set(lock.readers.get().saturating_sub(1));
    }
    if lock.waiters.get() > 0
        && lock.readers.get() == 0
        && let Some(mut turn) = turn
    {
        turn.wake(lock.key(&turn), usize::MAX);
    }
    0
}
