//! Mutexes in performance-critical sections (policy `parallel`): locked without a turn, by atomic
//! operations, waiting in the kernel, in whatever order threads come.
//!
//! A mutex that is held so is marked [`NATIVE`]. Its holder makes no ordered operation, so
//! no thread waits here for one that waits for its turn. While a mutex is used in sections it is
//! used in sections only; where that is seen not to be so the server stops.

use super::mutex::{
    AWAITED, DESTROYED, ERROR_CHECK, HELD, INHERITING, KIND_MASK, Mutex, NATIVE, RECURSIVE, ROBUST,
    mixed,
};
use crate::sys::{futex_wait, futex_wake};
use crate::tls;
use crate::turn::{Turn, fault};
use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// glibc's mark of a mutex with a priority ceiling.
const PROTECTING: i32 = 64;
/// Looks at a mutex before a thread sleeps.
const SPINS: u32 = 100;

fn my_id() -> i32 {
    Turn::thread_id().unwrap_or(super::OUTSIDE)
}

impl Mutex {
    fn atomic_word(&self) -> &AtomicU32 {
        // SAFETY: in sections all accesses are atomic, and outside of them nobody uses it
        // meanwhile.
        unsafe { AtomicU32::from_ptr(self.word.as_ptr()) }
    }

    fn atomic_owner(&self) -> &AtomicI32 {
        // SAFETY: as above.
        unsafe { AtomicI32::from_ptr(self.owner.as_ptr()) }
    }

    /// Others are ordered wherever they are locked.
    pub(super) fn suits_sections(&self) -> bool {
        let kind = self.kind.get();
        kind != DESTROYED && !self.has(ROBUST | INHERITING | PROTECTING)
    }

    /// Returns whether the mutex is locked in a section.
    pub(super) fn is_locked_natively(&self) -> bool {
        self.atomic_word().load(Ordering::Relaxed) & NATIVE != 0
    }

    /// Locks in a section; an errno.
    pub(super) fn lock_natively(&self, waits: bool) -> c_int {
        let me = my_id();
        if self.is_locked_natively() && self.atomic_owner().load(Ordering::Relaxed) == me {
            return self.lock_again(waits);
        }
        let mut spins = SPINS;
        // Who has slept does not know whether others still do.
        let mut mark = 0;
        loop {
            let word = self.atomic_word().load(Ordering::Relaxed);
            if word & HELD == 0 {
                if self.change(word, word | HELD | NATIVE | mark) {
                    break;
                }
                continue;
            }
            if word & NATIVE == 0 {
                mixed();
            }
            if !waits {
                return libc::EBUSY;
            }
            if spins > 0 {
                spins -= 1;
                core::hint::spin_loop();
            } else if word & AWAITED != 0 || self.change(word, word | AWAITED) {
                futex_wait(self.atomic_word(), word | AWAITED);
                mark = AWAITED;
            }
        }
        self.atomic_owner().store(me, Ordering::Relaxed);
        if !tls::note_lock() {
            fault(&[b"a thread has too many mutexes in a performance-critical section"]);
        }
        0
    }

    fn change(&self, from: u32, to: u32) -> bool {
        let word = self.atomic_word();
        word.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// By the thread that has it.
    fn lock_again(&self, waits: bool) -> c_int {
        match self.kind.get() & KIND_MASK {
            RECURSIVE if self.count.get() == u32::MAX => libc::EAGAIN,
            RECURSIVE => {
                self.count.set(self.count.get() + 1);
                0
            }
            ERROR_CHECK if waits => libc::EDEADLK,
            _ if waits => fault(&[b"a thread waits for a mutex that it has itself"]),
            _ => libc::EBUSY,
        }
    }

    /// Unlocks in a section; an errno.
    pub(super) fn unlock_natively(&self) -> c_int {
        let mine = self.atomic_owner().load(Ordering::Relaxed) == my_id();
        let checks = matches!(self.kind.get() & KIND_MASK, RECURSIVE | ERROR_CHECK);
        if !mine && checks {
            return libc::EPERM;
        }
        if self.count.get() > 0 {
            self.count.set(self.count.get() - 1);
            return 0;
        }
        self.atomic_owner().store(0, Ordering::Relaxed);
        let word = self.atomic_word();
        let before = word.fetch_and(!(HELD | NATIVE | AWAITED), Ordering::Release);
        tls::note_unlock();
        if before & AWAITED != 0 {
            futex_wake(word);
        }
        0
    }
}
