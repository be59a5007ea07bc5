//! Alarms: timers that belong to no waiting thread.
//!
//! An alarm takes a thread's slot, so that alarms and threads share one order of deadlines.

use crate::Scheduler;
use crate::thread::{State, Thread, ThreadIx};

impl Scheduler {
    /// Makes an alarm that is not set. `None` when there are too many threads and alarms.
    pub fn make_alarm(&mut self, process: u16) -> Option<ThreadIx> {
        let ix = self.take_slot()?;
        self.runnable -= 1;
        *self.thread_mut(ix) = Thread {
            state: State::Alarm,
            process,
            ..Thread::EMPTY
        };
        Some(ix)
    }

    /// Sets an alarm to a moment of virtual time, or with `None` stops it. An alarm that went off
    /// but was not taken yet is forgotten.
    pub fn set_alarm(&mut self, ix: ThreadIx, deadline_ns: Option<u64>) {
        assert_eq!(self.thread(ix).state, State::Alarm, "an alarm is set");
        self.disarm(ix);
        if let Some(deadline) = deadline_ns {
            let now = self.clock;
            let alarm = self.thread_mut(ix);
            alarm.deadline_ns = deadline;
            alarm.blocked_at = now;
            self.timers.insert(&mut self.threads, ix);
        }
    }

    /// The deadline of an alarm; `None` when it is not set.
    #[must_use]
    pub fn alarm_deadline_ns(&self, ix: ThreadIx) -> Option<u64> {
        let alarm = self.thread(ix);
        (alarm.timer != 0).then_some(alarm.deadline_ns)
    }

    /// The last deadline of an alarm that is not set any more.
    #[must_use]
    pub fn last_deadline_ns(&self, ix: ThreadIx) -> u64 {
        self.thread(ix).deadline_ns
    }

    /// Takes the next alarm that went off; it is not set any more.
    #[must_use]
    pub fn take_fired(&mut self) -> Option<ThreadIx> {
        let ix = self.fired_head;
        if ix == 0 {
            return None;
        }
        self.fired_head = self.thread(ix).next_run;
        if self.fired_head == 0 {
            self.fired_tail = 0;
        }
        Some(ix)
    }

    pub(crate) fn push_fired(&mut self, ix: ThreadIx) {
        self.thread_mut(ix).next_run = 0;
        match self.fired_tail {
            0 => self.fired_head = ix,
            tail => self.thread_mut(tail).next_run = ix,
        }
        self.fired_tail = ix;
    }

    pub(crate) fn disarm(&mut self, ix: ThreadIx) {
        if self.thread(ix).timer != 0 {
            self.timers.remove(&mut self.threads, ix);
        }
        let mut rest = core::mem::take(&mut self.fired_head);
        self.fired_tail = 0;
        while rest != 0 {
            let next = self.thread(rest).next_run;
            if rest != ix {
                self.push_fired(rest);
            }
            rest = next;
        }
    }

    /// All alarms of a process, in order of their index.
    pub fn alarms(&self, process: u16) -> impl Iterator<Item = ThreadIx> + '_ {
        (1..=self.used).filter(move |ix| {
            let slot = self.thread(*ix);
            slot.state == State::Alarm && slot.process == process
        })
    }
}
