//! [`Turn`]: the proof that a thread has the turn, and the only way to the memory that all share.

use crate::local::{Local, local};
use crate::output::emit;
use crate::shared::Shared;
use crate::tls;
use brolga_dmt::{Key, Scheduler, ThreadIx};
use brolga_tape::record::Record;
use core::marker::PhantomData;

/// Proof that the calling thread has the turn.
#[must_use]
pub struct Turn {
    pub(super) me: ThreadIx,
    /// The turn was taken for this value and is given back at its end.
    pub(super) gives_back: bool,
    pub(super) not_send: PhantomData<*mut ()>,
}

impl Turn {
    /// Proof without an ordered operation. `None`: the thread is not in the schedule, its calls go
    /// straight to the kernel.
    #[inline]
    pub fn have() -> Option<Self> {
        match tls::running() {
            Some(me) => Some(Self::nested(me)),
            None => Self::acquire(),
        }
    }

    /// Returns whether the calling thread is in the schedule, without taking the turn.
    #[inline]
    pub fn is_scheduled() -> bool {
        tls::thread_ix() != 0
    }

    /// Returns whether threads run beside each other.
    pub fn is_parallel() -> bool {
        local().parallel
    }

    /// The id that the server sees of the calling thread, which never changes.
    pub fn thread_id() -> Option<i32> {
        let me = usize::from(tls::thread_ix());
        // SAFETY: the mapping stays; the thread's own entry, which is written before it runs.
        (me != 0).then(|| unsafe { (&raw const (*local().shared).threads[me - 1].tid).read() })
    }

    /// The id that the server sees of the calling thread's process, which never changes.
    pub fn process_id() -> Option<i32> {
        let process = usize::from(local().process);
        // SAFETY: the mapping stays; the process's own entry, which is written before it runs.
        Self::is_scheduled()
            .then(|| unsafe { (&raw const (*local().shared).processes[process].pid).read() })
    }

    /// Counts one ordered operation, then proof.
    #[inline]
    pub fn take(operation: u16) -> Option<Self> {
        let mut turn = Self::have()?;
        let due = turn.scheduler().tick(operation);
        #[cfg(feature = "trace")]
        crate::trace::operation(turn.scheduler(), operation);
        if due {
            turn.attend(operation);
        }
        Some(turn)
    }

    /// This thread.
    pub fn me(&self) -> ThreadIx {
        self.me
    }

    /// This process's slot.
    #[inline]
    pub fn process(&self) -> u16 {
        local().process
    }

    /// Settings of this process.
    pub fn local(&self) -> &'static Local {
        local()
    }

    /// The tree's memory.
    #[inline]
    pub fn shared(&mut self) -> &mut Shared {
        // SAFETY: only the thread that has the turn gets here, and `&mut self` keeps it to one
        // borrow at a time within it.
        unsafe { &mut *local().shared }
    }

    /// The scheduler.
    #[inline]
    pub fn scheduler(&mut self) -> &mut Scheduler {
        &mut self.shared().scheduler
    }

    /// Virtual time.
    pub fn now_ns(&mut self) -> u64 {
        self.scheduler().now_ns()
    }

    /// The quantum or the budget may be used up.
    #[cold]
    pub(super) fn attend(&mut self, operation: u16) {
        self.trace(operation);
        self.perturb();
        let quantum_used = self.scheduler().quantum_used();
        self.scheduler().open_soft_barriers();
        while self.scheduler().admission_due() {
            self.admit_next();
        }
        if quantum_used {
            self.yield_now();
        }
        self.scheduler().refresh_limit();
        if self.signal_due() {
            self.deliver();
        }
        self.cancel_at(operation);
    }

    /// Records the operation, when all are to be.
    fn trace(&mut self, operation: u16) {
        if !local().trace || operation == 0 {
            return;
        }
        let me = self.me;
        let scheduler = self.scheduler();
        let record = Record::Step {
            operation,
            clock: scheduler.clock(),
            schedule_hash: scheduler.schedule_hash(),
            noted: scheduler.noted(),
        };
        emit(me, &record);
    }

    /// After a handler, which may have forked: this may be another thread.
    pub fn refresh_me(&mut self) {
        self.me = tls::thread_ix();
    }

    /// Signals a key.
    #[inline]
    pub fn wake(&mut self, key: Key, count: usize) -> usize {
        self.scheduler().wake(key, count)
    }
}
