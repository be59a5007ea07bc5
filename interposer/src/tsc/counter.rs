//! State of the virtual counter, in the tree's memory.

use brolga_dmt::{NS_PER_TICK, Scheduler};

/// Nanoseconds that a reading adds.
pub(super) const READING_NS: u64 = 32;

/// State of the counter; all zeros is a valid one.
#[repr(C)]
pub struct Counter {
    /// Nanoseconds that readings have added.
    pub(super) readings_ns: u64,
    /// Virtual time since the start when the scheduler's clock was 0, had it always run evenly;
    /// wraps.
    pub(super) base_ns: u64,
    /// Room for rewritten places, which have no registers to spare.
    pub(super) saved: u64,
    pub(super) value: u64,
}

impl Counter {
    /// Time has moved on.
    pub fn update(&mut self, scheduler: &Scheduler) {
        let elapsed = scheduler.now_ns() - scheduler.first_time_ns();
        self.base_ns = elapsed.wrapping_sub(scheduler.clock() * NS_PER_TICK);
    }

    /// A reading of the counter.
    pub(super) fn read(&mut self, scheduler: &Scheduler) -> u64 {
        self.readings_ns += READING_NS;
        (scheduler.clock() * NS_PER_TICK)
            .wrapping_add(self.base_ns)
            .wrapping_add(self.readings_ns)
    }
}
