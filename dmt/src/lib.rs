//! The deterministic scheduler: who has the turn, who waits for what, what time it is.
//!
//! Model (PARROT, SOSP'13, section 4; time bubbling after CRANE, SOSP'15, section 4): one
//! [`Scheduler`] for a whole process tree lies in memory that the tree shares. Exactly one thread has
//! the *turn*; only it may touch the scheduler, so everything here is plain data without a lock. The
//! five primitives are
//!
//! | PARROT | here |
//! |---|---|
//! | get_turn | the caller sleeps on its [`Thread::baton`] until [`Scheduler::pick`] named it |
//! | put_turn | [`Scheduler::yield_turn`] |
//! | wait | [`Scheduler::block`] |
//! | signal, broadcast | [`Scheduler::wake`] with a count |
//!
//! The *logical clock* counts ordered operations ([`Scheduler::tick`]). An admitted entry brings a
//! wall-clock time and a budget of ticks; the next entry is due when no thread can run or the budget
//! is used up ([`Scheduler::admission_due`]). Both are facts of the logical execution, so every
//! replica admits at the same logical instant, whatever its real speed.
//!
//! Policy `serial`: the turn is kept until the thread blocks, yields or has used its quantum. Policy
//! `parallel`: it is handed on after each ordered operation ([`Scheduler::pass_on`]); threads in the run
//! queue may compute meanwhile.
//!
//! Deliberately absent: system calls, futexes, libc symbols, sockets, the tape. The interposer puts a
//! thread to sleep and wakes it; this crate only says which. Zeroed memory plus
//! [`Scheduler::start`] is a valid scheduler.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod soft;
mod timers;
mod waits;

use core::sync::atomic::AtomicU32;
pub use soft::Arrival;
use soft::SoftBarriers;
use timers::Timers;
use waits::Waits;

/// Threads that a process tree may have at a time.
pub const THREADS_MAX: usize = 4096;
/// Virtual nanoseconds that one tick adds between entries. Below the real cost of any ordered
/// operation, so that virtual time never runs ahead of the leader's clock for long.
pub const NS_PER_TICK: u64 = 10;

/// Bits of a thread that waits for any wake-up, and of a wake-up for any thread.
pub const ANY: u32 = u32::MAX;

/// Index of a thread, from 1. 0 is no thread.
pub type ThreadIx = u16;

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Key {
    /// Separates kinds of objects, and processes where the object is private to one.
    pub space: u64,
    /// The object, an address or an index.
    pub id: u64,
}

/// Why a blocked thread runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Wakeup {
    /// Not woken yet.
    #[default]
    None = 0,
    /// [`Scheduler::wake`].
    Signalled = 1,
    /// Its deadline passed.
    TimedOut = 2,
    /// [`Scheduler::interrupt`]: a signal for it; its call ends with `EINTR`.
    Interrupted = 3,
    /// Interrupted, but the handler asked for the call to go on (`SA_RESTART`). Only the interposer
    /// sets it, after it has run the handler.
    Restart = 4,
    /// For nothing that concerns the waiter: it is to look again. Only the interposer sets it.
    Spurious = 5,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
enum State {
    #[default]
    Free = 0,
    /// In the run queue or holding the turn.
    Runnable = 1,
    Blocked = 2,
    /// Ended; the slot is kept until it is joined.
    Exited = 3,
    /// Not a thread but a timer of its own, see [`Scheduler::make_alarm`].
    Alarm = 4,
    /// Promised to a thread that is being made.
    Reserved = 5,
}

/// A thread of the tree.
#[derive(Debug)]
#[repr(C)]
pub struct Thread {
    /// Futex of the interposer: whether this thread has the turn, or sleeps until it has.
    pub baton: AtomicU32,
    state: State,
    wakeup: Wakeup,
    /// Next in the run queue.
    next_run: ThreadIx,
    /// Neighbours in a wait bucket.
    next_wait: ThreadIx,
    prev_wait: ThreadIx,
    key: Key,
    /// Only a wake-up with one of these bits is for it.
    bits: u32,
    /// Position in the timer heap plus 1; 0 for no deadline.
    timer: u16,
    deadline_ns: u64,
    /// Orders equal deadlines.
    blocked_at: u64,
    /// For the interposer: which process of the tree it belongs to.
    pub process: u16,
}

impl Thread {
    #[expect(
        clippy::declare_interior_mutable_const,
        reason = "copied into fresh slots only"
    )]
    const EMPTY: Self = Self {
        baton: AtomicU32::new(0),
        state: State::Free,
        wakeup: Wakeup::None,
        next_run: 0,
        next_wait: 0,
        prev_wait: 0,
        key: Key { space: 0, id: 0 },
        bits: 0,
        timer: 0,
        deadline_ns: 0,
        blocked_at: 0,
        process: 0,
    };
}

/// Where execution goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// This thread has the turn now.
    Run(ThreadIx),
    /// No thread can run: the next entry must be admitted.
    Idle,
}

/// The scheduler. See the crate's description.
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
    threads: [Thread; THREADS_MAX],
}

impl Scheduler {
    /// Makes a zeroed scheduler ready; its first thread has the turn and no budget, so that the first
    /// entry is due before it may run.
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

    /// Makes every tick ask for attention (to put in delays when testing). Changes no decision.
    pub fn set_attentive(&mut self, attentive: bool) {
        self.attentive = attentive;
        self.refresh_limit();
    }

    /// The thread that has the turn.
    #[must_use]
    pub fn current(&self) -> ThreadIx {
        self.current
    }

    /// Ticks since the start.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Where the clock lies, for code that reads it without a call.
    #[must_use]
    pub fn clock_address(&self) -> *const u64 {
        &raw const self.clock
    }

    /// Hash over all ordered operations and admissions so far.
    #[must_use]
    pub fn schedule_hash(&self) -> u64 {
        self.schedule_hash
    }

    /// Slot of the entry admitted last, 0 before the first.
    #[must_use]
    pub fn slot(&self) -> u64 {
        self.slot
    }

    /// The last ordered operation.
    #[must_use]
    pub fn last_operation(&self) -> u16 {
        (self.last & 0xFFFF) as u16
    }

    /// The thread that made it; 0 before the first.
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

    /// The earliest deadline of a blocked thread.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.timers.first().map(|ix| self.thread(ix).deadline_ns)
    }

    /// A thread's slot.
    #[must_use]
    pub fn thread(&self, ix: ThreadIx) -> &Thread {
        &self.threads[usize::from(ix) - 1]
    }

    /// A thread's slot.
    pub fn thread_mut(&mut self, ix: ThreadIx) -> &mut Thread {
        &mut self.threads[usize::from(ix) - 1]
    }

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
    fn mix(&mut self, value: u64) {
        let mixed = (self.schedule_hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.schedule_hash = mixed ^ (mixed >> 29);
    }

    /// Folds a result that other threads or replicas could see into the schedule hash.
    #[inline]
    pub fn note(&mut self, value: u64) {
        self.noted = value;
        self.mix(value);
    }

    /// The last result that was folded in.
    #[must_use]
    pub fn noted(&self) -> u64 {
        self.noted
    }

    /// The entry's clocks are used up.
    #[must_use]
    pub fn budget_used(&self) -> bool {
        self.clock >= self.budget_end
    }

    /// The admission rule: nothing can run, or the budget is used up.
    #[must_use]
    pub fn admission_due(&self) -> bool {
        self.runnable == 0 || self.budget_used()
    }

    /// True when some thread can run.
    #[must_use]
    pub fn can_run(&self) -> bool {
        self.runnable != 0
    }

    /// Whether a thread can run, or does.
    #[must_use]
    pub fn is_runnable(&self, ix: ThreadIx) -> bool {
        self.thread(ix).state == State::Runnable
    }

    /// How many threads can run, or do.
    #[must_use]
    pub fn runnable(&self) -> u16 {
        self.runnable
    }

    /// The current thread has had its quantum and somebody else can run.
    #[must_use]
    pub fn quantum_used(&self) -> bool {
        self.clock >= self.quantum_end && self.run_head != 0
    }

    /// True once per entry: its end has come and is to be reported now.
    #[must_use]
    pub fn take_report(&mut self) -> bool {
        !core::mem::replace(&mut self.reported, true)
    }

    /// Admits an entry: time moves on (never back), the budget starts anew, timers that are due wake
    /// their threads in the order of their deadlines.
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
                timers::remove(self, ix);
                self.push_fired(ix);
            } else {
                self.unblock(ix, Wakeup::TimedOut);
            }
        }
    }

    /// Call after the quantum or budget was looked at: sets when [`Scheduler::tick`] asks next.
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

    // ---- the five primitives ----

    /// Blocks the current thread on `key`, until woken or until `deadline_ns`. Nobody is current until
    /// [`Scheduler::pick`]; the caller keeps exclusive access up to then.
    pub fn block(&mut self, key: Key, deadline_ns: Option<u64>) {
        self.block_bits(key, ANY, deadline_ns);
    }

    /// As [`Scheduler::block`], but only a wake-up with one of `bits` is for it.
    pub fn block_bits(&mut self, key: Key, bits: u32, deadline_ns: Option<u64>) {
        let ix = self.current;
        let blocked_at = self.clock;
        let thread = self.thread_mut(ix);
        assert_eq!(
            thread.state,
            State::Runnable,
            "only a running thread blocks"
        );
        thread.state = State::Blocked;
        thread.wakeup = Wakeup::None;
        thread.key = key;
        thread.bits = bits;
        thread.blocked_at = blocked_at;
        self.runnable -= 1;
        self.current = 0;
        waits::enqueue(self, ix);
        if let Some(deadline) = deadline_ns {
            self.thread_mut(ix).deadline_ns = deadline;
            timers::insert(self, ix);
        }
    }

    /// Whether a thread is blocked on a key.
    #[must_use]
    pub fn waits_on(&self, ix: ThreadIx, key: Key) -> bool {
        let thread = self.thread(ix);
        thread.state == State::Blocked && thread.key == key
    }

    /// Why the current thread runs again after [`Scheduler::block`].
    #[must_use]
    pub fn wakeup(&self) -> Wakeup {
        self.thread(self.current).wakeup
    }

    /// Wakes up to `count` threads that wait on `key`, first come first served; says how many.
    pub fn wake(&mut self, key: Key, count: usize) -> usize {
        self.wake_bits(key, ANY, count)
    }

    /// As [`Scheduler::wake`], but leaves out threads that wait for none of `bits`.
    pub fn wake_bits(&mut self, key: Key, bits: u32, count: usize) -> usize {
        let mut woken = 0;
        while woken < count {
            let Some(ix) = waits::first(self, key, bits) else {
                break;
            };
            self.unblock(ix, Wakeup::Signalled);
            woken += 1;
        }
        woken
    }

    /// Moves up to `count` waiters from one key to another without waking them (futex requeue).
    pub fn requeue(&mut self, from: Key, to: Key, count: usize) -> usize {
        let mut moved = 0;
        while moved < count && from != to {
            let Some(ix) = waits::first(self, from, ANY) else {
                break;
            };
            waits::dequeue(self, ix);
            self.thread_mut(ix).key = to;
            waits::enqueue(self, ix);
            moved += 1;
        }
        moved
    }

    /// Wakes a blocked thread for a signal. False: it was not blocked.
    pub fn interrupt(&mut self, ix: ThreadIx) -> bool {
        let blocked = self.thread(ix).state == State::Blocked;
        if blocked {
            self.unblock(ix, Wakeup::Interrupted);
        }
        blocked
    }

    /// Has the next [`Scheduler::tick`] ask for attention, once.
    pub fn demand_attention(&mut self) {
        self.limit = 0;
    }

    /// What threads wait for is known by other keys now. The order of waiting for each stays.
    pub fn rekey(&mut self, now: impl Fn(Key) -> Key) {
        waits::rekey(self, now);
    }

    fn unblock(&mut self, ix: ThreadIx, wakeup: Wakeup) {
        waits::dequeue(self, ix);
        if self.thread(ix).timer != 0 {
            timers::remove(self, ix);
        }
        let thread = self.thread_mut(ix);
        assert_eq!(thread.state, State::Blocked);
        thread.state = State::Runnable;
        thread.wakeup = wakeup;
        self.runnable += 1;
        self.push_run(ix);
    }

    /// The current thread goes to the end of the run queue.
    pub fn yield_turn(&mut self) {
        let ix = self.current;
        assert_eq!(self.thread(ix).state, State::Runnable);
        self.current = 0;
        self.push_run(ix);
    }

    /// The current thread goes to the end of the run queue (policy `parallel`, after each ordered
    /// operation); says who has the turn now, which is the same thread if no other can run.
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

    fn push_run(&mut self, ix: ThreadIx) {
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

    fn remove_from_run(&mut self, ix: ThreadIx) {
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

    // ---- alarms ----

    /// A timer that belongs to no waiting thread, not set. It shares slots and the order of deadlines
    /// with threads. `None`: there are too many.
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

    /// Sets an alarm to go off at a moment of virtual time, or with `None` not at all. One that went
    /// off but was not taken yet is forgotten.
    pub fn set_alarm(&mut self, ix: ThreadIx, deadline_ns: Option<u64>) {
        assert_eq!(self.thread(ix).state, State::Alarm, "an alarm is set");
        self.disarm(ix);
        if let Some(deadline) = deadline_ns {
            let now = self.clock;
            let alarm = self.thread_mut(ix);
            alarm.deadline_ns = deadline;
            alarm.blocked_at = now;
            timers::insert(self, ix);
        }
    }

    /// When an alarm goes off next.
    #[must_use]
    pub fn alarm_deadline_ns(&self, ix: ThreadIx) -> Option<u64> {
        let alarm = self.thread(ix);
        (alarm.timer != 0).then_some(alarm.deadline_ns)
    }

    /// When an alarm that is not set was to go off last.
    #[must_use]
    pub fn last_deadline_ns(&self, ix: ThreadIx) -> u64 {
        self.thread(ix).deadline_ns
    }

    /// The next alarm that went off; it is not set any more.
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

    fn push_fired(&mut self, ix: ThreadIx) {
        self.thread_mut(ix).next_run = 0;
        match self.fired_tail {
            0 => self.fired_head = ix,
            tail => self.thread_mut(tail).next_run = ix,
        }
        self.fired_tail = ix;
    }

    fn disarm(&mut self, ix: ThreadIx) {
        if self.thread(ix).timer != 0 {
            timers::remove(self, ix);
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

    // ---- threads ----

    fn take_slot(&mut self) -> Option<ThreadIx> {
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

    /// A place for a new thread of `process` that is not there yet: whoever makes it may have to hand on
    /// the turn meanwhile, and nobody would take it. `None`: there are too many.
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

    /// The thread that a place was reserved for is there: it goes to the end of the run queue.
    pub fn begin(&mut self, ix: ThreadIx) {
        let thread = self.thread_mut(ix);
        assert_eq!(thread.state, State::Reserved, "a thread begins once");
        thread.state = State::Runnable;
        self.runnable += 1;
        self.push_run(ix);
    }

    /// A new thread of `process`, at the end of the run queue. `None`: there are too many.
    pub fn spawn(&mut self, process: u16) -> Option<ThreadIx> {
        let ix = self.reserve(process)?;
        self.begin(ix);
        Some(ix)
    }

    /// Takes back a [`Scheduler::reserve`] whose real thread could not be made, or removes a thread
    /// that was killed, whatever it was doing. Its slot can be used again.
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
                waits::dequeue(self, ix);
                if self.thread(ix).timer != 0 {
                    timers::remove(self, ix);
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

    /// Ends another thread whose real thread stays asleep on its baton for ever, so that its slot is never
    /// used again.
    pub fn retire(&mut self, ix: ThreadIx) {
        self.remove(ix);
        self.free_head = self.thread(ix).next_run;
        *self.thread_mut(ix) = Thread {
            state: State::Exited,
            ..Thread::EMPTY
        };
    }

    /// The current thread ends; its slot stays until [`Scheduler::remove`].
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

    /// All alarms of a process, in order of their index.
    pub fn alarms(&self, process: u16) -> impl Iterator<Item = ThreadIx> + '_ {
        (1..=self.used).filter(move |ix| {
            let slot = self.thread(*ix);
            slot.state == State::Alarm && slot.process == process
        })
    }
}

#[cfg(test)]
mod round_tests;
#[cfg(test)]
mod tests;
