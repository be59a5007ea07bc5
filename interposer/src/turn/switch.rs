//! Waiting in the scheduler, and handing the turn from thread to thread.

use super::proof::Turn;
use super::signals::Delivered;
use crate::local::local;
use crate::output::ring_doorbell;
use crate::tls;
use brolga_dmt::{ANY, Key, Pick, ThreadIx, Wakeup};

impl Turn {
    /// Lets the other runnable threads go first.
    pub fn yield_now(&mut self) {
        if local().parallel {
            return; // They do at the end of the operation.
        }
        self.scheduler().yield_turn();
        self.switch();
    }

    /// Blocks until the key is signalled, the deadline (virtual time) has passed, or a handler of a
    /// signal has run. A call that must not be ended by a signal waits again.
    ///
    /// For calls that are cancellation points: for a thread that is to end they end with `EINTR`,
    /// see [`after_interruption`](super::cancel::after_interruption).
    pub fn block(&mut self, key: Key, deadline_ns: Option<u64>) -> Wakeup {
        if self.cancel_due() {
            return Wakeup::Interrupted;
        }
        match self.block_regardless(key, deadline_ns) {
            Wakeup::Spurious | Wakeup::Restart if self.cancel_due() => Wakeup::Interrupted,
            other => other,
        }
    }

    /// As [`Turn::block`], for calls that are no cancellation points.
    pub fn block_regardless(&mut self, key: Key, deadline_ns: Option<u64>) -> Wakeup {
        self.block_bits(key, ANY, deadline_ns)
    }

    /// As [`Turn::block_regardless`], but only a wake-up with one of `bits` is for this thread.
    pub fn block_bits(&mut self, key: Key, bits: u32, deadline_ns: Option<u64>) -> Wakeup {
        self.scheduler().block_bits(key, bits, deadline_ns);
        self.switch();
        let woken = self.scheduler().wakeup();
        if self.cancel_due() {
            // At the next cancellation point, wherever that is.
            self.scheduler().demand_attention();
        }
        let delivered = if self.signal_due() {
            self.deliver()
        } else {
            Delivered::Nothing
        };
        match (woken, delivered) {
            // Another thread took the signal.
            (Wakeup::Interrupted, Delivered::Nothing) => Wakeup::Spurious,
            (Wakeup::Interrupted, Delivered::Restart) => Wakeup::Restart,
            (woken, _) => woken,
        }
    }

    /// Hands the turn to the next thread, and returns when this thread has it again.
    fn switch(&mut self) {
        if let Some(next) = self.choose() {
            ring_doorbell();
            self.hand_to(next);
            self.sleep();
        }
    }

    /// Admits entries until a thread can run; `None` when that is this thread.
    fn choose(&mut self) -> Option<ThreadIx> {
        self.perturb();
        loop {
            self.scheduler().open_soft_barriers();
            while self.scheduler().admission_due() {
                self.admit_next();
            }
            match self.scheduler().pick() {
                Pick::Run(next) => return (next != self.me).then_some(next),
                Pick::Idle => {}
            }
        }
    }

    /// First sleep of a new thread, which is in the schedule since its creator put it there.
    pub fn arrive(me: ThreadIx) -> Self {
        let mut turn = Self::nested(me);
        turn.sleep();
        Self::enter(me, true)
    }

    /// As [`Turn::arrive`], of a child that goes on in the hook in which its parent has forked:
    /// that gives the turn back.
    pub fn arrive_forked(me: ThreadIx) -> Self {
        let mut turn = Self::nested(me);
        turn.sleep();
        Self::enter(me, false)
    }

    /// First admission of the tree's first thread.
    pub fn begin(me: ThreadIx) -> Self {
        let mut turn = Self::enter(me, true);
        let attentive = local().perturb_us != 0 || local().parallel || local().trace;
        turn.scheduler().set_attentive(attentive);
        turn.attend(0);
        turn
    }

    /// A thread that has executed another program still has the turn.
    pub fn resume(me: ThreadIx) -> Self {
        Self::enter(me, true)
    }

    /// Hands the turn on for good: the thread ends, or its process does.
    pub fn leave(mut self) {
        tls::set_thread_ix(0);
        if let Some(next) = self.choose() {
            self.hand_to(next);
        }
    }
}
