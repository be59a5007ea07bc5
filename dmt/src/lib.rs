//! The deterministic scheduler: the turn, wait queues, timers and virtual time.
//!
//! Model (PARROT, SOSP'13, section 4; time bubbling after CRANE, SOSP'15, section 4): one
//! [`Scheduler`] for a whole process tree lies in memory that the tree shares. Exactly one thread
//! has the *turn*; only it may touch the scheduler, so everything here is plain data without a
//! lock. The five primitives are
//!
//! | PARROT | here |
//! |---|---|
//! | get_turn | the caller sleeps on its [`Thread::baton`] until [`Scheduler::pick`] named it |
//! | put_turn | [`Scheduler::yield_turn`] |
//! | wait | [`Scheduler::block`] |
//! | signal, broadcast | [`Scheduler::wake`] with a count |
//!
//! The *logical clock* counts ordered operations ([`Scheduler::tick`]). An admitted entry brings a
//! wall-clock time and a budget of ticks; the next entry is due when no thread can run or the
//! budget is used up ([`Scheduler::admission_due`]). Both are facts of the logical execution, so
//! every replica admits at the same logical instant, whatever its real speed.
//!
//! Policy `serial`: the turn is kept until the thread blocks, yields or has used its quantum.
//! Policy `parallel`: it is handed on after each ordered operation ([`Scheduler::pass_on`]);
//! threads in the run queue may compute meanwhile.
//!
//! Deliberately absent: system calls, futexes, libc symbols, sockets, the tape. The interposer puts
//! a thread to sleep and wakes it; this crate only says which. Zeroed memory plus
//! [`Scheduler::start`] is a valid scheduler.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod admission;
mod alarms;
mod baton;
mod blocking;
mod clock;
mod slots;
mod soft_barriers;
mod sync;
mod thread;
mod timers;
mod turns;
mod waits;

pub use baton::Baton;
pub use clock::NS_PER_TICK;
pub use soft_barriers::Arrival;
pub use thread::{ANY, Key, THREADS_MAX, Thread, ThreadIx, Wakeup};
pub use turns::Pick;

use soft_barriers::SoftBarriers;
use thread::{State, Threads};
use timers::Timers;
use waits::Waits;

/// The scheduler of a process tree; see the crate's description.
#[derive(Debug)]
#[repr(C)]
pub struct Scheduler {
    clock: u64,
    /// `clock` value at which [`Scheduler::tick`] asks for attention.
    limit: u64,
    budget_end: u64,
    quantum_end: u64,
    quantum: u64,
    schedule_hash: u64,
    /// See [`Scheduler::noted`].
    noted: u64,
    /// Virtual time at `time_clock`.
    time_ns: u64,
    time_clock: u64,
    first_time_ns: u64,
    /// Slot of the entry admitted last.
    slot: u64,
    /// The last ordered operation and, in the upper half, its thread.
    last: u32,
    current: ThreadIx,
    run_head: ThreadIx,
    run_tail: ThreadIx,
    free_head: ThreadIx,
    /// Alarms that went off and were not looked at yet, in the order of their deadlines.
    fired_head: ThreadIx,
    fired_tail: ThreadIx,
    /// Slots ever used; the ones above are zeroed.
    used: ThreadIx,
    runnable: u16,
    /// True once the last entry's end was reported.
    reported: bool,
    attentive: bool,
    waits: Waits,
    timers: Timers,
    soft: SoftBarriers,
    threads: Threads,
}

impl Scheduler {
    /// Makes a zeroed scheduler ready; its first thread has the turn and no budget, so that the
    /// first entry is due before it may run.
    pub fn start(&mut self, quantum: u32) -> ThreadIx {
        assert_eq!(self.used, 0, "a scheduler is started once");
        self.quantum = u64::from(quantum.max(1));
        self.reported = true;
        let first = self.take_slot();
        debug_assert_eq!(first, Some(1));
        self.current = 1;
        self.thread_mut(1).state = State::Runnable;
        self.refresh_limit();
        1
    }
}

#[cfg(test)]
mod round_tests;
#[cfg(test)]
mod tests;
