//! The logical clock: ordered operations, the schedule hash, virtual time, quantum and budget.

use crate::Scheduler;
use crate::thread::ThreadIx;

/// Virtual nanoseconds that one tick adds between entries. Below the real cost of any ordered
/// operation, so that virtual time never runs ahead of the leader's clock for long.
pub const NS_PER_TICK: u64 = 10;

impl Scheduler {
    /// Counts one ordered operation of the current thread. True: the quantum or the budget is used
    /// up, or attention was asked for; see [`Scheduler::admission_due`] and
    /// [`Scheduler::quantum_used`].
    #[inline]
    #[must_use]
    pub fn tick(&mut self, operation: u16) -> bool {
        self.clock += 1;
        self.last = u32::from(operation) | u32::from(self.current) << 16;
        self.mix(u64::from(self.last));
        self.clock >= self.limit
    }

    #[inline]
    pub(crate) fn mix(&mut self, value: u64) {
        let mixed = (self.schedule_hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.schedule_hash = mixed ^ (mixed >> 29);
    }

    /// Folds a result that other threads or replicas could see into the schedule hash.
    #[inline]
    pub fn note(&mut self, value: u64) {
        self.noted = value;
        self.mix(value);
    }

    /// The last result that was folded into the schedule hash.
    #[must_use]
    pub fn noted(&self) -> u64 {
        self.noted
    }

    /// Ticks since the start.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Address of the clock, for code that reads it without a call.
    #[must_use]
    pub fn clock_address(&self) -> *const u64 {
        &raw const self.clock
    }

    /// Hash over all ordered operations and admissions so far.
    #[must_use]
    pub fn schedule_hash(&self) -> u64 {
        self.schedule_hash
    }

    /// The last ordered operation.
    #[must_use]
    pub fn last_operation(&self) -> u16 {
        (self.last & 0xFFFF) as u16
    }

    /// The thread that made the last ordered operation; 0 before the first.
    #[must_use]
    pub fn last_thread(&self) -> ThreadIx {
        (self.last >> 16) as ThreadIx
    }

    /// Virtual time, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.time_ns + (self.clock - self.time_clock) * NS_PER_TICK
    }

    /// Virtual time of the first entry.
    #[must_use]
    pub fn first_time_ns(&self) -> u64 {
        self.first_time_ns
    }

    /// True when the current thread has used its quantum and another thread can run.
    #[must_use]
    pub fn quantum_used(&self) -> bool {
        self.clock >= self.quantum_end && self.run_head != 0
    }

    /// True when the budget of the last entry is used up.
    #[must_use]
    pub fn budget_used(&self) -> bool {
        self.clock >= self.budget_end
    }

    /// Makes every tick ask for attention, so that tests can insert delays. Changes no decision.
    pub fn set_attentive(&mut self, attentive: bool) {
        self.attentive = attentive;
        self.refresh_limit();
    }

    /// Makes the next [`Scheduler::tick`] ask for attention, once.
    pub fn demand_attention(&mut self) {
        self.limit = 0;
    }

    /// Sets when [`Scheduler::tick`] asks for attention next. To be called after the quantum or the
    /// budget was checked.
    pub fn refresh_limit(&mut self) {
        if self.clock >= self.quantum_end {
            self.quantum_end = self.clock + self.quantum;
        }
        self.limit = if self.attentive {
            0
        } else {
            self.budget_end.min(self.quantum_end)
        };
    }
}
