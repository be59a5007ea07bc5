//! The turn and the run queue: who has the turn, who has it next.

use crate::Scheduler;
use crate::thread::{State, ThreadIx};

/// Result of [`Scheduler::pick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// This thread has the turn now.
    Run(ThreadIx),
    /// No thread can run: the next entry must be admitted.
    Idle,
}

impl Scheduler {
    /// The thread that has the turn.
    #[must_use]
    pub fn current(&self) -> ThreadIx {
        self.current
    }

    /// True when some thread can run.
    #[must_use]
    pub fn can_run(&self) -> bool {
        self.runnable != 0
    }

    /// True when a thread can run, or has the turn.
    #[must_use]
    pub fn is_runnable(&self, ix: ThreadIx) -> bool {
        self.thread(ix).state == State::Runnable
    }

    /// Number of threads that can run, the one that has the turn included.
    #[must_use]
    pub fn runnable(&self) -> u16 {
        self.runnable
    }

    /// Moves the current thread to the end of the run queue.
    pub fn yield_turn(&mut self) {
        let ix = self.current;
        assert_eq!(self.thread(ix).state, State::Runnable);
        self.current = 0;
        self.push_run(ix);
    }

    /// Moves the current thread to the end of the run queue (policy `parallel`, after each ordered
    /// operation). Returns the thread that has the turn now: the same one if no other can run.
    pub fn pass_on(&mut self) -> ThreadIx {
        if self.run_head != 0 {
            self.yield_turn();
            let Pick::Run(_) = self.pick() else {
                unreachable!("somebody was in the run queue");
            };
        }
        self.current
    }

    /// Gives the turn to the first thread of the run queue, unless the current one still has it.
    pub fn pick(&mut self) -> Pick {
        if self.current != 0 {
            return Pick::Run(self.current);
        }
        let Some(ix) = self.pop_run() else {
            return Pick::Idle;
        };
        self.current = ix;
        self.quantum_end = self.clock + self.quantum;
        self.refresh_limit();
        Pick::Run(ix)
    }

    pub(crate) fn push_run(&mut self, ix: ThreadIx) {
        self.thread_mut(ix).next_run = 0;
        match self.run_tail {
            0 => self.run_head = ix,
            tail => self.thread_mut(tail).next_run = ix,
        }
        self.run_tail = ix;
    }

    fn pop_run(&mut self) -> Option<ThreadIx> {
        let ix = self.run_head;
        if ix == 0 {
            return None;
        }
        self.run_head = self.thread(ix).next_run;
        if self.run_head == 0 {
            self.run_tail = 0;
        }
        Some(ix)
    }

    pub(crate) fn remove_from_run(&mut self, ix: ThreadIx) {
        let mut rest = self.run_head;
        self.run_head = 0;
        self.run_tail = 0;
        while rest != 0 {
            let next = self.thread(rest).next_run;
            if rest != ix {
                self.push_run(rest);
            }
            rest = next;
        }
    }
}
