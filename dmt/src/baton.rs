//! The hand-off of the turn from one thread to another: a word per thread.
//!
//! The thread that has the turn gives the baton of the next one ([`Baton::give`]). A thread that
//! waits for its turn looks at its baton, and sleeps on it as a futex once [`Baton::mark_asleep`]
//! has said that it was not given yet:
//!
//! ```text
//! while !baton.is_given() {
//!     if baton.mark_asleep() { futex_wait(baton.futex(), Baton::ASLEEP) }
//! }
//! baton.take();
//! ```
//!
//! Whoever gives a baton does nothing under the turn afterwards, so everything done before is seen
//! by the thread that takes it.

use crate::sync::{AtomicU32, Ordering};

const NOT_GIVEN: u32 = 0;
const GIVEN: u32 = 1;

/// A thread's baton. Zeroed memory is one that is not given.
#[derive(Debug)]
#[repr(transparent)]
pub struct Baton(AtomicU32);

impl Baton {
    /// The value of the futex while its thread sleeps.
    pub const ASLEEP: u32 = 2;

    /// Returns a baton that is not given.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(NOT_GIVEN))
    }

    /// Gives the baton to its thread. True: the thread sleeps, and a futex wake is due.
    #[inline]
    #[must_use]
    pub fn give(&self) -> bool {
        self.0.swap(GIVEN, Ordering::Release) == Self::ASLEEP
    }

    /// Gives the baton to the calling thread itself.
    #[inline]
    pub fn keep(&self) {
        self.0.store(GIVEN, Ordering::Relaxed);
    }

    /// Whether the baton was given. Its thread sees then what was done under the turn before.
    #[inline]
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.0.load(Ordering::Acquire) == GIVEN
    }

    /// Says that its thread is going to sleep. False: the baton was given meanwhile.
    #[inline]
    #[must_use]
    pub fn mark_asleep(&self) -> bool {
        let (from, to) = (NOT_GIVEN, Self::ASLEEP);
        let was = self
            .0
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        was != Err(GIVEN)
    }

    /// Takes a baton that was given. Nobody else changes it then.
    #[inline]
    pub fn take(&self) {
        self.0.store(NOT_GIVEN, Ordering::Relaxed);
    }

    /// The futex on which its thread sleeps.
    #[inline]
    #[must_use]
    pub fn futex(&self) -> &AtomicU32 {
        &self.0
    }
}

impl Default for Baton {
    fn default() -> Self {
        Self::new()
    }
}
