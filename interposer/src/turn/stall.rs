//! Stall reports: a thread computes while others wait for their turn, or its process is gone.
//!
//! A thread that makes no ordered operation keeps the turn. One that computes for long delays the
//! others; one that spins until another has changed some memory delays them for ever, since the
//! other never runs. It cannot be interrupted at the same point on all replicas, so it is left
//! alone, but a thread that has waited for its turn for long tells the node.
//!
//! A process of the tree that was killed from outside hands its turn to nobody, and looks the same
//! from here. The node checks whether it exists: a file that is opened here would take a descriptor
//! number from the server.
//!
//! This reads the scheduler without the turn. The numbers may be stale; only the node's reports
//! depend on them.

use crate::local::local;
use crate::output::{ring_doorbell, tape};
use crate::shared::{FIRST, Shared};
use crate::sys;
use brolga_dmt::ThreadIx;
use brolga_tape::ring::Stall;
use core::sync::atomic::AtomicU32;

/// Seconds between two looks around of a thread that sleeps.
const LOOK_EVERY_S: u32 = 5;

/// The one that holds up the others: the thread that has the turn, or else the process that takes
/// the input.
fn holder(shared: &Shared, current: ThreadIx) -> Stall {
    let (process, thread) = match current {
        0 => {
            let slot = shared.process_of(shared.taker).unwrap_or(FIRST);
            (&shared.processes[usize::from(slot)], 0)
        }
        _ => {
            let slot = shared.scheduler.thread(current).process;
            let thread = &shared.threads[usize::from(current) - 1];
            (&shared.processes[usize::from(slot)], thread.tid)
        }
    };
    Stall {
        real_process: process.real_pid,
        process: process.pid,
        thread,
        seconds: 0,
        waiting: 0,
    }
}

/// Observations of a thread while it waits for its turn.
pub(super) struct Watch {
    me: ThreadIx,
    clock: u64,
    current: ThreadIx,
    seconds: u32,
    told: bool,
}

impl Watch {
    /// A watch that has seen nothing.
    pub(super) const fn new(me: ThreadIx) -> Self {
        Self {
            me,
            clock: 0,
            current: 0,
            seconds: 0,
            told: false,
        }
    }

    /// Sleeps while a word has a value, but not for longer than until it is time to look around.
    pub(super) fn sleep(&mut self, word: &AtomicU32, value: u32) {
        if sys::futex_wait_for(word, value, LOOK_EVERY_S) {
            self.look();
        }
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self) {
        // SAFETY: the mapping stays; plain numbers, see the module's description.
        let shared = unsafe { &*local().shared };
        let scheduler = &shared.scheduler;
        let (clock, current) = (scheduler.clock(), scheduler.current());
        let stands = (clock, current) == (self.clock, self.current)
            && current != self.me
            && !tape().server_waits();
        (self.clock, self.current) = (clock, current);
        if !stands {
            self.seconds = 0;
            return;
        }
        self.seconds += LOOK_EVERY_S;
        tape().report_stall(&Stall {
            seconds: self.seconds,
            waiting: u32::from(scheduler.runnable()).saturating_sub(1),
            ..holder(shared, current)
        });
        self.told = true;
        ring_doorbell();
    }

    /// The turn has come.
    pub(super) fn end(self) {
        if self.told {
            tape().clear_stall();
            ring_doorbell();
        }
    }
}
