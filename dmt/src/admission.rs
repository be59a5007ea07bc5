//! Admission of entries: when the next one is due, and what its admission changes.

use crate::Scheduler;
use crate::thread::{State, Wakeup};

impl Scheduler {
    /// Slot of the entry admitted last, 0 before the first.
    #[must_use]
    pub fn slot(&self) -> u64 {
        self.slot
    }

    /// The earliest deadline of a blocked thread.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.timers.first().map(|ix| self.thread(ix).deadline_ns)
    }

    /// The admission rule: nothing can run, or the budget is used up.
    #[must_use]
    pub fn admission_due(&self) -> bool {
        self.runnable == 0 || self.budget_used()
    }

    /// True once per entry: the entry has ended, and its end is to be reported now.
    #[must_use]
    pub fn take_report(&mut self) -> bool {
        !core::mem::replace(&mut self.reported, true)
    }

    /// Admits an entry: time advances (it never goes back), the budget is renewed, and timers that
    /// are due wake their threads in the order of their deadlines.
    pub fn admit(&mut self, slot: u64, time_ns: u64, clocks: u32) {
        assert!(slot > self.slot, "entries are admitted in order");
        assert!(
            self.reported,
            "the end of one entry is reported before the next is admitted"
        );
        if self.slot == 0 {
            self.first_time_ns = time_ns;
        }
        self.slot = slot;
        self.reported = false;
        self.time_ns = self.now_ns().max(time_ns);
        self.time_clock = self.clock;
        self.budget_end = self.clock + u64::from(clocks);
        self.mix(slot ^ time_ns.rotate_left(32) ^ u64::from(clocks));
        self.expire_timers();
        self.refresh_limit();
    }

    fn expire_timers(&mut self) {
        let now = self.now_ns();
        while let Some(ix) = self.timers.first() {
            if self.thread(ix).deadline_ns > now {
                break;
            }
            if self.thread(ix).state == State::Alarm {
                self.timers.remove(&mut self.threads, ix);
                self.push_fired(ix);
            } else {
                self.unblock(ix, Wakeup::TimedOut);
            }
        }
    }
}
