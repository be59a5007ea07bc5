//! Blocking on a key and being woken: PARROT's wait, signal and broadcast.

use crate::Scheduler;
use crate::thread::{ANY, Key, State, ThreadIx, Wakeup};

impl Scheduler {
    /// Blocks the current thread on `key` until it is woken or `deadline_ns` passes. No thread is
    /// current until [`Scheduler::pick`]; the caller keeps exclusive access up to then.
    pub fn block(&mut self, key: Key, deadline_ns: Option<u64>) {
        self.block_bits(key, ANY, deadline_ns);
    }

    /// As [`Scheduler::block`], but only a wake-up with one of `bits` wakes it.
    pub fn block_bits(&mut self, key: Key, bits: u32, deadline_ns: Option<u64>) {
        let ix = self.current;
        let blocked_at = self.clock;
        let thread = self.thread_mut(ix);
        assert_eq!(
            thread.state,
            State::Runnable,
            "only a running thread blocks"
        );
        thread.state = State::Blocked;
        thread.wakeup = Wakeup::None;
        thread.key = key;
        thread.bits = bits;
        thread.blocked_at = blocked_at;
        self.runnable -= 1;
        self.current = 0;
        self.waits.enqueue(&mut self.threads, ix);
        if let Some(deadline) = deadline_ns {
            self.thread_mut(ix).deadline_ns = deadline;
            self.timers.insert(&mut self.threads, ix);
        }
    }

    /// True when a thread is blocked on a key.
    #[must_use]
    pub fn waits_on(&self, ix: ThreadIx, key: Key) -> bool {
        let thread = self.thread(ix);
        thread.state == State::Blocked && thread.key == key
    }

    /// The reason why the current thread runs again after [`Scheduler::block`].
    #[must_use]
    pub fn wakeup(&self) -> Wakeup {
        self.thread(self.current).wakeup
    }

    /// Wakes up to `count` threads that wait on `key`, first come first served. Returns their
    /// number.
    pub fn wake(&mut self, key: Key, count: usize) -> usize {
        self.wake_bits(key, ANY, count)
    }

    /// As [`Scheduler::wake`], but leaves out threads that wait for none of `bits`.
    pub fn wake_bits(&mut self, key: Key, bits: u32, count: usize) -> usize {
        let mut woken = 0;
        while woken < count {
            let Some(ix) = self.waits.first(&self.threads, key, bits) else {
                break;
            };
            self.unblock(ix, Wakeup::Signalled);
            woken += 1;
        }
        woken
    }

    /// Moves up to `count` waiters from one key to another without waking them (futex requeue).
    pub fn requeue(&mut self, from: Key, to: Key, count: usize) -> usize {
        let mut moved = 0;
        while moved < count && from != to {
            let Some(ix) = self.waits.first(&self.threads, from, ANY) else {
                break;
            };
            self.waits.dequeue(&mut self.threads, ix);
            self.thread_mut(ix).key = to;
            self.waits.enqueue(&mut self.threads, ix);
            moved += 1;
        }
        moved
    }

    /// Wakes a blocked thread for a signal. False when it was not blocked.
    pub fn interrupt(&mut self, ix: ThreadIx) -> bool {
        let blocked = self.thread(ix).state == State::Blocked;
        if blocked {
            self.unblock(ix, Wakeup::Interrupted);
        }
        blocked
    }

    /// Replaces the key of every waiting thread by what `new_key` makes of it. The order of waiting
    /// for each key stays.
    pub fn rekey(&mut self, new_key: impl Fn(Key) -> Key) {
        self.waits.rekey(&mut self.threads, new_key);
    }

    pub(crate) fn unblock(&mut self, ix: ThreadIx, wakeup: Wakeup) {
        self.waits.dequeue(&mut self.threads, ix);
        if self.thread(ix).timer != 0 {
            self.timers.remove(&mut self.threads, ix);
        }
        let thread = self.thread_mut(ix);
        assert_eq!(thread.state, State::Blocked);
        thread.state = State::Runnable;
        thread.wakeup = wakeup;
        self.runnable += 1;
        self.push_run(ix);
    }
}
