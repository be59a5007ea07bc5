//! Read-write locks.

use super::{OUTSIDE, Until, aliases, deadline, id, key_of, wrapped};
use crate::turn::{Turn, space};
use brolga_dmt::{Key, Wakeup};
use brolga_tape::operation as op;
use core::cell::Cell;
use core::ffi::{c_int, c_void};
use libc::{clockid_t, timespec};

/// Our `pthread_rwlock_t`; all zeros but `kind` is the static initialiser. The last two fields lie
/// where glibc has them.
#[repr(C)]
pub struct Rwlock {
    readers: Cell<u32>,
    writer: Cell<i32>,
    waiters: Cell<u32>,
    /// Those of the waiters that want to write.
    waiting_writers: Cell<u32>,
    unused: [u32; 3],
    shared: c_int,
    also_unused: [u32; 4],
    kind: c_int,
    last_unused: u32,
}

const _: () = assert!(size_of::<Rwlock>() == size_of::<libc::pthread_rwlock_t>());
const _: () = assert!(core::mem::offset_of!(Rwlock, shared) == 28);
const _: () = assert!(core::mem::offset_of!(Rwlock, kind) == 48);

/// The one kind in which readers let writers go first
/// (`PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP`).
const PREFERS_WRITERS: c_int = 2;

impl Rwlock {
    fn new(kind: c_int, shared: c_int) -> Self {
        Self {
            readers: Cell::new(0),
            writer: Cell::new(0),
            waiters: Cell::new(0),
            waiting_writers: Cell::new(0),
            unused: [0; 3],
            shared,
            also_unused: [0; 4],
            kind,
            last_unused: 0,
        }
    }

    fn key(&self, turn: &Turn) -> Key {
        key_of(turn, space::RWLOCK, self, self.shared != 0)
    }

    fn try_acquire(&self, write: bool, me: i32) -> c_int {
        if self.writer.get() == me && me != OUTSIDE {
            return libc::EDEADLK;
        }
        let others = write && self.readers.get() > 0;
        let before_us = !write && self.kind == PREFERS_WRITERS && self.waiting_writers.get() > 0;
        if self.writer.get() != 0 || others || before_us {
            return libc::EBUSY;
        }
        if write {
            self.writer.set(me);
        } else {
            self.readers.set(self.readers.get() + 1);
        }
        0
    }

    fn acquire(&self, turn: &mut Turn, write: bool, until: Option<&Until>) -> c_int {
        let deadline = match deadline(turn, until) {
            Ok(deadline) => deadline,
            Err(invalid) => return invalid,
        };
        let me = id(Some(turn));
        let mut woken = Wakeup::None;
        loop {
            match self.try_acquire(write, me) {
                libc::EBUSY if woken == Wakeup::TimedOut => {
                    // Readers may have waited for us alone.
                    if write && self.waiters.get() > 0 {
                        turn.wake(self.key(turn), usize::MAX);
                    }
                    return libc::ETIMEDOUT;
                }
                libc::EBUSY => woken = self.wait(turn, write, deadline),
                other => return other,
            }
        }
    }

    fn wait(&self, turn: &mut Turn, write: bool, deadline_ns: Option<u64>) -> Wakeup {
        self.waiters.set(self.waiters.get() + 1);
        let writers = self.waiting_writers.get();
        self.waiting_writers.set(writers + u32::from(write));
        let woken = turn.block_regardless(self.key(turn), deadline_ns);
        self.waiters.set(self.waiters.get() - 1);
        let writers = self.waiting_writers.get();
        self.waiting_writers.set(writers - u32::from(write));
        woken
    }

    fn release(&self, turn: Option<&mut Turn>) {
        if self.writer.get() != 0 {
            self.writer.set(0);
        } else {
            self.readers.set(self.readers.get().saturating_sub(1));
        }
        if self.waiters.get() > 0
            && self.readers.get() == 0
            && let Some(turn) = turn
        {
            turn.wake(self.key(turn), usize::MAX);
        }
    }
}

unsafe extern "C" {
    fn pthread_rwlockattr_getpshared(attributes: *const c_void, shared: *mut c_int) -> c_int;
    fn pthread_rwlockattr_getkind_np(attributes: *const c_void, kind: *mut c_int) -> c_int;
}

/// Locks for reading or writing.
///
/// # Safety
/// `lock` is one that lives.
unsafe fn lock(lock: *mut Rwlock, write: bool, until: Option<&Until>) -> c_int {
    // SAFETY: the caller promises an initialised lock.
    let lock = unsafe { &*lock };
    match Turn::take(op::LOCK) {
        Some(mut turn) => lock.acquire(&mut turn, write, until),
        None => {
            lock.try_acquire(write, OUTSIDE);
            0
        }
    }
}

/// Locks if that is possible at once.
///
/// # Safety
/// `lock` is one that lives.
unsafe fn try_lock(lock: *mut Rwlock, write: bool) -> c_int {
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

wrapped! {
    fn pthread_rwlock_init(lock: *mut Rwlock, attributes: *const c_void) -> c_int {
        let (mut shared, mut kind) = (0, 0);
        if !attributes.is_null() {
            // SAFETY: the caller's attributes.
            unsafe {
                pthread_rwlockattr_getpshared(attributes, &raw mut shared);
                pthread_rwlockattr_getkind_np(attributes, &raw mut kind);
            }
        }
        // SAFETY: the caller promises room for a lock.
        unsafe { lock.write(Rwlock::new(kind, shared)) };
        0
    }

    fn pthread_rwlock_destroy(_lock: *mut Rwlock) -> c_int {
        0
    }

    fn pthread_rwlock_rdlock(rwlock: *mut Rwlock) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { lock(rwlock, false, None) }
    }

    fn pthread_rwlock_wrlock(rwlock: *mut Rwlock) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { lock(rwlock, true, None) }
    }

    fn pthread_rwlock_tryrdlock(rwlock: *mut Rwlock) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { try_lock(rwlock, false) }
    }

    fn pthread_rwlock_trywrlock(rwlock: *mut Rwlock) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { try_lock(rwlock, true) }
    }

    fn pthread_rwlock_timedrdlock(rwlock: *mut Rwlock, until: *const timespec) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { lock(rwlock, false, Some(&Until::new(libc::CLOCK_REALTIME, until))) }
    }

    fn pthread_rwlock_timedwrlock(rwlock: *mut Rwlock, until: *const timespec) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { lock(rwlock, true, Some(&Until::new(libc::CLOCK_REALTIME, until))) }
    }

    fn pthread_rwlock_clockrdlock(
        rwlock: *mut Rwlock,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { lock(rwlock, false, Some(&Until::new(clock, until))) }
    }

    fn pthread_rwlock_clockwrlock(
        rwlock: *mut Rwlock,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { lock(rwlock, true, Some(&Until::new(clock, until))) }
    }

    fn pthread_rwlock_unlock(lock: *mut Rwlock) -> c_int {
        let mut turn = Turn::take(op::UNLOCK);
        // SAFETY: the caller promises an initialised lock.
        unsafe { &*lock }.release(turn.as_mut());
        0
    }
}

aliases! {
    __pthread_rwlock_init = pthread_rwlock_init(lock: *mut Rwlock, attributes: *const c_void);
    __pthread_rwlock_destroy = pthread_rwlock_destroy(lock: *mut Rwlock);
    __pthread_rwlock_rdlock = pthread_rwlock_rdlock(lock: *mut Rwlock);
    __pthread_rwlock_wrlock = pthread_rwlock_wrlock(lock: *mut Rwlock);
    __pthread_rwlock_tryrdlock = pthread_rwlock_tryrdlock(lock: *mut Rwlock);
    __pthread_rwlock_trywrlock = pthread_rwlock_trywrlock(lock: *mut Rwlock);
    __pthread_rwlock_unlock = pthread_rwlock_unlock(lock: *mut Rwlock);
}
