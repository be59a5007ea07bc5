//! Mutexes of all kinds.
//!
//! The owner of a robust mutex has died when no thread of the tree has its id any more: ids are
//! never used twice, so nothing needs to be kept of who holds what. Threads that wait for a robust
//! mutex all wait on one key, and every death wakes them to look again.

use super::{OUTSIDE, Until, aliases, deadline, id, key_of, wrapped};
use crate::tls;
use crate::turn::{Turn, fault, space};
use brolga_dmt::{Key, Wakeup};
use brolga_tape::operation as op;
use core::cell::Cell;
use core::ffi::c_int;
use libc::{clockid_t, timespec};

/// The first words of glibc's `pthread_mutex_t`.
#[repr(C)]
pub struct Mutex {
    /// [`HELD`], [`ORPHANED`], [`LOST`], [`NATIVE`], [`AWAITED`]; glibc's initialisation puts a
    /// priority ceiling above them.
    pub(super) word: Cell<u32>,
    /// Depth of a recursive mutex.
    pub(super) count: Cell<u32>,
    pub(super) owner: Cell<i32>,
    waiters: Cell<u32>,
    pub(super) kind: Cell<i32>,
}

/// The mutex is locked.
pub(super) const HELD: u32 = 1;
/// The owner died, and the present one has not called `pthread_mutex_consistent`.
const ORPHANED: u32 = 2;
/// The mutex was unlocked while orphaned: it can never be locked again.
const LOST: u32 = 4;
/// Locked in a performance-critical section.
pub(super) const NATIVE: u32 = 8;
/// Others sleep in the kernel until it is given back, which are in sections too.
pub(super) const AWAITED: u32 = 16;

pub(super) const KIND_MASK: i32 = 3;
pub(super) const RECURSIVE: i32 = 1;
pub(super) const ERROR_CHECK: i32 = 2;
pub(super) const ROBUST: i32 = 16;
pub(super) const INHERITING: i32 = 32;
const SHARED: i32 = 128;
/// glibc's mark of a destroyed mutex.
pub(super) const DESTROYED: i32 = -1;

/// Waiting for any robust mutex.
const ROBUST_KEY: Key = Key {
    space: space::ROBUST,
    id: 0,
};

/// Threads have ended: perhaps they had robust mutexes.
pub fn owner_gone(turn: &mut Turn) {
    turn.wake(ROBUST_KEY, usize::MAX);
}

fn lives(turn: &mut Turn, owner: i32) -> bool {
    let shared = turn.shared();
    let (scheduler, threads) = (&shared.scheduler, &shared.threads);
    scheduler
        .living()
        .any(|ix| threads[usize::from(ix) - 1].tid == owner && !scheduler.has_exited(ix))
}

impl Mutex {
    /// Returns whether the kind has one of these flags.
    pub(super) fn has(&self, flags: i32) -> bool {
        self.kind.get() & flags != 0
    }

    fn key(&self, turn: &Turn) -> Key {
        if self.has(ROBUST) {
            return ROBUST_KEY;
        }
        key_of(turn, space::MUTEX, self, self.has(SHARED))
    }

    fn try_lock(&self, me: i32, turn: Option<&mut Turn>) -> c_int {
        let word = self.word.get();
        if word & (HELD | LOST) == 0 {
            self.word.set(word | HELD);
            self.owner.set(me);
            return 0;
        }
        self.try_again(me, turn)
    }

    /// Of a mutex that is not simply free.
    fn try_again(&self, me: i32, turn: Option<&mut Turn>) -> c_int {
        if self.kind.get() == DESTROYED {
            return libc::EINVAL;
        }
        if self.word.get() & LOST != 0 {
            return libc::ENOTRECOVERABLE;
        }
        if self.word.get() & NATIVE != 0 {
            mixed();
        }
        if self.owner.get() != me {
            return self.try_inherit(me, turn);
        }
        match self.kind.get() & KIND_MASK {
            RECURSIVE if self.count.get() == u32::MAX => libc::EAGAIN,
            RECURSIVE => {
                self.count.set(self.count.get() + 1);
                0
            }
            ERROR_CHECK => libc::EDEADLK,
            _ => libc::EBUSY,
        }
    }

    /// Takes a robust mutex over from a thread that died with it.
    fn try_inherit(&self, me: i32, turn: Option<&mut Turn>) -> c_int {
        let orphaned = |turn| self.has(ROBUST) && !lives(turn, self.owner.get());
        if !turn.is_some_and(orphaned) {
            return libc::EBUSY;
        }
        self.word.set(self.word.get() | ORPHANED);
        self.owner.set(me);
        self.count.set(0);
        libc::EOWNERDEAD
    }

    /// Locks, waiting if need be.
    pub(super) fn lock(&self, turn: &mut Turn, until: Option<&Until>) -> c_int {
        let me = id(Some(turn));
        let first = self.try_lock(me, Some(turn));
        if first != libc::EBUSY {
            return first;
        }
        let deadline = match deadline(turn, until) {
            Ok(deadline) => deadline,
            Err(invalid) => return invalid,
        };
        loop {
            self.waiters.set(self.waiters.get() + 1);
            let woken = turn.block_regardless(self.key(turn), deadline);
            self.waiters.set(self.waiters.get() - 1);
            match self.try_lock(me, Some(turn)) {
                libc::EBUSY if woken == Wakeup::TimedOut => return libc::ETIMEDOUT,
                libc::EBUSY => {}
                other => return other,
            }
        }
    }

    /// Returns whether unlocking is refused to anybody but the owner.
    fn checks_owner(&self) -> bool {
        let kind = self.kind.get() & KIND_MASK;
        kind == RECURSIVE || kind == ERROR_CHECK || self.has(ROBUST | INHERITING)
    }

    /// Unlocks; an errno.
    pub(super) fn unlock(&self, mut turn: Option<&mut Turn>) -> c_int {
        if self.kind.get() & !SHARED != 0
            && self.checks_owner()
            && (self.word.get() & HELD == 0 || self.owner.get() != id(turn.as_deref_mut()))
        {
            return libc::EPERM;
        }
        if self.count.get() > 0 {
            self.count.set(self.count.get() - 1);
            return 0;
        }
        let lost = self.word.get() & ORPHANED != 0;
        let left = self.word.get() & !(HELD | ORPHANED);
        self.word.set(if lost { left | LOST } else { left });
        self.owner.set(0);
        if self.waiters.get() > 0
            && let Some(turn) = turn
        {
            // All wait for robust ones together.
            let count = if self.has(ROBUST) { usize::MAX } else { 1 };
            turn.wake(self.key(turn), count);
        }
        0
    }

    fn destroy(&self) -> c_int {
        let busy = self.word.get() & HELD != 0 || self.waiters.get() > 0;
        if busy && !self.has(ROBUST) {
            return libc::EBUSY;
        }
        self.kind.set(DESTROYED);
        self.word.set(self.word.get() | HELD);
        0
    }
}

/// Locks a mutex until a reading of a clock.
///
/// # Safety
/// `mutex` is one that lives, `until` points to a timespec.
unsafe fn timed_lock(mutex: *mut Mutex, clock: clockid_t, until: *const timespec) -> c_int {
    if !Until::is_clock(clock) {
        return libc::EINVAL;
    }
    // SAFETY: as for lock; the caller promises a timespec.
    let (mutex, until) = unsafe { (&*mutex, Until::new(clock, until)) };
    match Turn::take(op::LOCK) {
        Some(mut turn) => mutex.lock(&mut turn, Some(&until)),
        None => mutex.try_lock(OUTSIDE, None),
    }
}

wrapped! {
    fn pthread_mutex_lock(mutex: *mut Mutex) -> c_int {
        // SAFETY: the caller promises an initialised mutex; whoever has the turn has it alone.
        let mutex = unsafe { &*mutex };
        if tls::is_in_section() && mutex.suits_sections() {
            return mutex.lock_natively(true);
        }
        match Turn::take(op::LOCK) {
            Some(mut turn) => mutex.lock(&mut turn, None),
            None => {
                mutex.try_lock(OUTSIDE, None);
                0
            }
        }
    }

    fn pthread_mutex_trylock(mutex: *mut Mutex) -> c_int {
        // SAFETY: as for lock.
        let mutex = unsafe { &*mutex };
        if tls::is_in_section() && mutex.suits_sections() {
            return mutex.lock_natively(false);
        }
        let mut turn = Turn::take(op::LOCK);
        let me = id(turn.as_mut());
        match mutex.try_lock(me, turn.as_mut()) {
            // So glibc does with the simple kinds only.
            libc::EDEADLK if !mutex.has(ROBUST | INHERITING) => libc::EBUSY,
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

    fn pthread_mutex_timedlock(mutex: *mut Mutex, until: *const timespec) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { timed_lock(mutex, libc::CLOCK_REALTIME, until) }
    }

    fn pthread_mutex_clocklock(
        mutex: *mut Mutex,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { timed_lock(mutex, clock, until) }
    }

    fn pthread_mutex_unlock(mutex: *mut Mutex) -> c_int {
        // SAFETY: as for lock.
        let mutex = unsafe { &*mutex };
        if tls::is_in_section() && mutex.is_locked_natively() {
            return mutex.unlock_natively();
        }
        mutex.unlock(Turn::take(op::UNLOCK).as_mut())
    }

    fn pthread_mutex_destroy(mutex: *mut Mutex) -> c_int {
        let _turn = Turn::have();
        // SAFETY: as for lock.
        unsafe { &*mutex }.destroy()
    }

    fn pthread_mutex_consistent(mutex: *mut Mutex) -> c_int {
        let _turn = Turn::have();
        // SAFETY: as for lock.
        let mutex = unsafe { &*mutex };
        if !mutex.has(ROBUST) || mutex.word.get() & ORPHANED == 0 {
            return libc::EINVAL;
        }
        mutex.word.set(mutex.word.get() & !ORPHANED);
        0
    }
}

aliases! {
    __pthread_mutex_lock = pthread_mutex_lock(mutex: *mut Mutex);
    __pthread_mutex_trylock = pthread_mutex_trylock(mutex: *mut Mutex);
    __pthread_mutex_unlock = pthread_mutex_unlock(mutex: *mut Mutex);
    __pthread_mutex_destroy = pthread_mutex_destroy(mutex: *mut Mutex);
    pthread_mutex_consistent_np = pthread_mutex_consistent(mutex: *mut Mutex);
}

/// A mutex is used in sections and outside of them at the same time.
#[cold]
pub(super) fn mixed() -> ! {
    fault(&[
        b"a mutex is locked in a performance-critical section and outside of one at the same time",
    ])
}
