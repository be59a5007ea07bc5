//! A thread's slot: what it waits for, its state, its places in queues.

use crate::baton::Baton;

/// Threads that a process tree may have at a time.
pub const THREADS_MAX: usize = 4096;

/// Index of a thread, from 1. 0 is no thread.
pub type ThreadIx = u16;

/// Bits of a thread that waits for any wake-up, and of a wake-up for any thread.
pub const ANY: u32 = u32::MAX;

/// The object that a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Key {
    /// Separates kinds of objects, and processes where the object is private to one.
    pub space: u64,
    /// The object, an address or an index.
    pub id: u64,
}

/// Why a blocked thread runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Wakeup {
    /// Not woken yet.
    #[default]
    None = 0,
    /// [`crate::Scheduler::wake`].
    Signalled = 1,
    /// The deadline passed.
    TimedOut = 2,
    /// [`crate::Scheduler::interrupt`]: a signal for it; its call ends with `EINTR`.
    Interrupted = 3,
    /// Interrupted, but the handler asked for the call to go on (`SA_RESTART`). Only the interposer
    /// sets it, after it has run the handler.
    Restart = 4,
    /// Woken for no reason of its own: the waiter checks its condition again. Only the interposer
    /// sets it.
    Spurious = 5,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub(crate) enum State {
    #[default]
    Free = 0,
    /// In the run queue or holding the turn.
    Runnable = 1,
    Blocked = 2,
    /// Ended; the slot is kept until it is joined.
    Exited = 3,
    /// Not a thread but a timer of its own, see [`crate::Scheduler::make_alarm`].
    Alarm = 4,
    /// Promised to a thread that is being made.
    Reserved = 5,
}

/// A thread of the tree.
#[derive(Debug)]
#[repr(C)]
pub struct Thread {
    /// Given when this thread has the turn.
    pub baton: Baton,
    pub(crate) state: State,
    pub(crate) wakeup: Wakeup,
    /// Next in the run queue.
    pub(crate) next_run: ThreadIx,
    /// Neighbours in a wait bucket.
    pub(crate) next_wait: ThreadIx,
    pub(crate) prev_wait: ThreadIx,
    pub(crate) key: Key,
    /// Only a wake-up with one of these bits is for it.
    pub(crate) bits: u32,
    /// Position in the timer heap plus 1; 0 for no deadline.
    pub(crate) timer: u16,
    pub(crate) deadline_ns: u64,
    /// Orders equal deadlines.
    pub(crate) blocked_at: u64,
    /// The process of the tree that it belongs to; only the interposer reads it.
    pub process: u16,
}

impl Thread {
    #[expect(
        clippy::declare_interior_mutable_const,
        reason = "copied into fresh slots only"
    )]
    pub(crate) const EMPTY: Self = Self {
        baton: Baton::new(),
        state: State::Free,
        wakeup: Wakeup::None,
        next_run: 0,
        next_wait: 0,
        prev_wait: 0,
        key: Key { space: 0, id: 0 },
        bits: 0,
        timer: 0,
        deadline_ns: 0,
        blocked_at: 0,
        process: 0,
    };
}

/// The slots of all threads, by [`ThreadIx`].
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Threads([Thread; THREADS_MAX]);

impl Threads {
    #[inline]
    pub(crate) fn get(&self, ix: ThreadIx) -> &Thread {
        &self.0[usize::from(ix) - 1]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, ix: ThreadIx) -> &mut Thread {
        &mut self.0[usize::from(ix) - 1]
    }
}

#[cfg(test)]
impl Default for Threads {
    fn default() -> Self {
        Self([const { Thread::EMPTY }; THREADS_MAX])
    }
}
