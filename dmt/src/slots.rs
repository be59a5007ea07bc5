//! Slots of threads: taken, reserved, begun, ended, given back.

use crate::Scheduler;
use crate::thread::{State, THREADS_MAX, Thread, ThreadIx};

impl Scheduler {
    /// The slot of a thread.
    #[must_use]
    pub fn thread(&self, ix: ThreadIx) -> &Thread {
        self.threads.get(ix)
    }

    /// The slot of a thread, to change it.
    pub fn thread_mut(&mut self, ix: ThreadIx) -> &mut Thread {
        self.threads.get_mut(ix)
    }

    pub(crate) fn take_slot(&mut self) -> Option<ThreadIx> {
        let ix = if self.free_head != 0 {
            let ix = self.free_head;
            self.free_head = self.thread(ix).next_run;
            ix
        } else if usize::from(self.used) < THREADS_MAX {
            self.used += 1;
            self.used
        } else {
            return None;
        };
        self.runnable += 1;
        Some(ix)
    }

    /// Reserves a slot for a thread of `process` that is being made: its maker may have to hand on
    /// the turn meanwhile, and a thread that does not exist could not take it. `None` when there
    /// are too many.
    pub fn reserve(&mut self, process: u16) -> Option<ThreadIx> {
        let ix = self.take_slot()?;
        self.runnable -= 1;
        *self.thread_mut(ix) = Thread {
            state: State::Reserved,
            process,
            ..Thread::EMPTY
        };
        Some(ix)
    }

    /// Puts the thread of a reserved slot at the end of the run queue: the thread exists now.
    pub fn begin(&mut self, ix: ThreadIx) {
        let thread = self.thread_mut(ix);
        assert_eq!(thread.state, State::Reserved, "a thread begins once");
        thread.state = State::Runnable;
        self.runnable += 1;
        self.push_run(ix);
    }

    /// Makes a thread of `process`, at the end of the run queue. `None` when there are too many.
    pub fn spawn(&mut self, process: u16) -> Option<ThreadIx> {
        let ix = self.reserve(process)?;
        self.begin(ix);
        Some(ix)
    }

    /// Frees the slot of a reserved thread that could not be made, or of a thread that was killed,
    /// whatever it was doing.
    pub fn remove(&mut self, ix: ThreadIx) {
        match self.thread(ix).state {
            State::Free => return,
            State::Exited | State::Reserved => {}
            State::Alarm => self.disarm(ix),
            State::Runnable => {
                self.runnable -= 1;
                if self.current == ix {
                    self.current = 0;
                } else {
                    self.remove_from_run(ix);
                }
            }
            State::Blocked => {
                self.waits.dequeue(&mut self.threads, ix);
                if self.thread(ix).timer != 0 {
                    self.timers.remove(&mut self.threads, ix);
                }
            }
        }
        let free = self.free_head;
        *self.thread_mut(ix) = Thread {
            next_run: free,
            ..Thread::EMPTY
        };
        self.free_head = ix;
    }

    /// Ends another thread whose real thread stays asleep on its baton for ever. The slot is never
    /// used again.
    pub fn retire(&mut self, ix: ThreadIx) {
        self.remove(ix);
        self.free_head = self.thread(ix).next_run;
        *self.thread_mut(ix) = Thread {
            state: State::Exited,
            ..Thread::EMPTY
        };
    }

    /// Ends the current thread; its slot stays until [`Scheduler::remove`].
    pub fn exit(&mut self) {
        let ix = self.current;
        let thread = self.thread_mut(ix);
        assert_eq!(thread.state, State::Runnable);
        thread.state = State::Exited;
        self.runnable -= 1;
        self.current = 0;
    }

    /// True when the thread has ended but was not removed.
    #[must_use]
    pub fn has_exited(&self, ix: ThreadIx) -> bool {
        self.thread(ix).state == State::Exited
    }

    /// All threads that are not free, in order of their index.
    pub fn living(&self) -> impl Iterator<Item = ThreadIx> + Clone + '_ {
        let none = [State::Free, State::Alarm];
        (1..=self.used).filter(move |ix| !none.contains(&self.thread(*ix).state))
    }
}
