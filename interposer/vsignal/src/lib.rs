//! Signals of a process tree as plain data: actions, masks, what is pending, who takes it.
//!
//! Semantics are POSIX's as Linux has them (`signal(7)`): a signal for a process goes to one thread
//! that does not block it, the main thread first; standard signals do not queue, real-time ones do;
//! the lowest number is delivered first, those of the thread before those of the process. What
//! differs is the moment: a signal is *posted* by whoever has the turn and taken by its thread at
//! the next point where that thread has the turn, so both are facts of the logical execution.
//!
//! A [`Signals`] lies in memory shared by the tree and is touched only by the thread that has the
//! turn. Zeroed memory is a valid empty [`Signals`].
//!
//! Deliberately absent: system calls, handlers being run, threads being woken. Posting says whom to
//! wake; the interposer runs handlers.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

/// Processes of a tree at a time; as for virtual sockets.
pub const PROCESSES_MAX: usize = 256;
/// Threads of a tree at a time; as for the scheduler.
pub const THREADS_MAX: usize = 4096;
/// Highest signal number.
pub const SIGNAL_MAX: u8 = 64;
/// Signals that can be pending in the whole tree at a time.
const QUEUE_MAX: usize = 4096;

/// `SIGKILL`: kills, whatever the process wants.
pub const KILL: u8 = 9;
/// `SIGSTOP`.
pub const STOP: u8 = 19;
/// `SIGCHLD`.
pub const CHILD: u8 = 17;
const CONTINUE: u8 = 18;
const STOPS: [u8; 4] = [STOP, 20, 21, 22];
const URGENT: u8 = 23;
const WINDOW: u8 = 28;
const FIRST_REAL_TIME: u8 = 32;

/// `SIG_DFL`.
pub const DEFAULT: usize = 0;
/// `SIG_IGN`.
pub const IGNORE: usize = 1;

/// A set of signals: bit `n - 1` is signal `n`, as in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Set(pub u64);

impl Set {
    /// The set of one signal.
    #[must_use]
    pub const fn of(signal: u8) -> Self {
        Self(1 << (signal - 1))
    }

    /// True when the set has a signal.
    #[must_use]
    pub const fn has(self, signal: u8) -> bool {
        self.0 & Self::of(signal).0 != 0
    }

    /// With another set's signals as well.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Without another set's signals.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Without the signals that can't be blocked.
    #[must_use]
    pub const fn blockable(self) -> Self {
        self.without(Self::of(KILL).with(Self::of(STOP)))
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    const fn lowest(self) -> Option<u8> {
        match self.0 {
            0 => None,
            bits => Some(bits.trailing_zeros() as u8 + 1),
        }
    }
}

/// The action of a process for a signal, as in `sigaction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Action {
    /// Address of the handler, or [`DEFAULT`] or [`IGNORE`].
    pub handler: usize,
    /// `SA_` flags.
    pub flags: u64,
    /// Blocked while the handler runs.
    pub mask: Set,
}

/// The default action of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The process ends.
    Terminate,
    /// Nothing.
    Ignore,
    /// The process stops.
    Stop,
}

/// The default action of a signal.
#[must_use]
pub fn default_effect(signal: u8) -> Effect {
    match signal {
        CHILD | CONTINUE | URGENT | WINDOW => Effect::Ignore,
        signal if STOPS.contains(&signal) => Effect::Stop,
        _ => Effect::Terminate,
    }
}

/// A signal with what `siginfo_t` tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Info {
    /// The signal's number.
    pub signal: u8,
    /// `si_code`.
    pub code: i32,
    /// `si_pid`, or `si_timerid`.
    pub pid: i32,
    /// `si_status`, or `si_overrun`.
    pub status: i32,
    /// `si_value`.
    pub value: u64,
}

/// Result of posting a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// Nobody wants it.
    Dropped,
    /// The signal stays pending until a thread unblocks it or asks for it.
    Pending,
    /// This thread takes it as soon as it has the turn.
    For(u16),
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Process {
    actions: [Action; SIGNAL_MAX as usize],
    pending: Set,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Thread {
    mask: Set,
    pending: Set,
    /// The signals that it waits for in `sigwait` and the like.
    awaited: Set,
}

/// For whom a queued signal is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
enum Target {
    Process(u16),
    Thread(u16),
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Queued {
    target: Option<Target>,
    info: Info,
}

/// All signals of a process tree. Threads are named by the scheduler's index, from 1.
#[repr(C)]
pub struct Signals {
    processes: [Process; PROCESSES_MAX],
    threads: [Thread; THREADS_MAX],
    queue: [Queued; QUEUE_MAX],
    /// The queue's length; in order of posting.
    queued: u32,
}

impl Signals {
    fn thread(&mut self, ix: u16) -> &mut Thread {
        &mut self.threads[usize::from(ix) - 1]
    }

    fn process(&mut self, slot: u16) -> &mut Process {
        &mut self.processes[usize::from(slot)]
    }

    // ---- actions and masks ----

    /// The action of a process for a signal.
    #[must_use]
    pub fn action(&self, process: u16, signal: u8) -> Action {
        self.processes[usize::from(process)].actions[usize::from(signal) - 1]
    }

    /// Changes it. Pending signals that are ignored from now on are dropped, as POSIX has it.
    pub fn set_action(
        &mut self,
        process: u16,
        signal: u8,
        action: Action,
        threads: impl Iterator<Item = u16>,
    ) {
        self.process(process).actions[usize::from(signal) - 1] = action;
        if self.ignores(process, signal) {
            let set = Set::of(signal);
            while self.take(Target::Process(process), set).is_some() {}
            for ix in threads {
                while self.take(Target::Thread(ix), set).is_some() {}
            }
        }
    }

    fn ignores(&self, process: u16, signal: u8) -> bool {
        match self.action(process, signal).handler {
            IGNORE => signal != KILL && signal != STOP,
            DEFAULT => default_effect(signal) == Effect::Ignore,
            _ => false,
        }
    }

    /// The signals that a thread blocks.
    #[must_use]
    pub fn mask(&self, thread: u16) -> Set {
        self.threads[usize::from(thread) - 1].mask
    }

    /// Changes it.
    pub fn set_mask(&mut self, thread: u16, mask: Set) {
        self.thread(thread).mask = mask.blockable();
    }

    /// Sets the signals that a thread waits for in `sigwait`; an empty set when it does not wait.
    pub fn set_awaited(&mut self, thread: u16, set: Set) {
        self.thread(thread).awaited = set;
    }

    /// The signals that are pending for a thread, its process's included.
    #[must_use]
    pub fn pending(&self, process: u16, thread: u16) -> Set {
        let own = self.threads[usize::from(thread) - 1].pending;
        own.with(self.processes[usize::from(process)].pending)
    }

    /// True when [`Signals::next`] would give something.
    #[inline]
    #[must_use]
    pub fn due(&self, process: u16, thread: u16) -> bool {
        self.pending(process, thread).without(self.mask(thread)) != Set(0)
    }

    // ---- posting ----

    /// Posts a signal to a process whose threads are given in the order of their making.
    pub fn post_to_process(
        &mut self,
        process: u16,
        info: Info,
        threads: &(impl Iterator<Item = u16> + Clone),
    ) -> Posted {
        let signal = info.signal;
        let awaited = |ix: &u16| self.threads[usize::from(*ix) - 1].awaited.has(signal);
        let open = |ix: &u16| !self.mask(*ix).has(signal);
        let taker = threads.clone().find(awaited);
        let taker = taker.or_else(|| threads.clone().find(open));
        if taker.is_none() || !self.ignores(process, signal) {
            self.enqueue(Target::Process(process), info);
        } else if taker.is_some_and(|ix| self.mask(ix).has(signal)) {
            // Blocked and awaited, so it counts although its action is to ignore it.
            self.enqueue(Target::Process(process), info);
        } else {
            return Posted::Dropped;
        }
        taker.map_or(Posted::Pending, Posted::For)
    }

    /// Posts a signal to one thread.
    pub fn post_to_thread(&mut self, process: u16, thread: u16, info: Info) -> Posted {
        let blocked = self.mask(thread).has(info.signal);
        if !blocked && self.ignores(process, info.signal) {
            return Posted::Dropped;
        }
        self.enqueue(Target::Thread(thread), info);
        if blocked && !self.thread(thread).awaited.has(info.signal) {
            return Posted::Pending;
        }
        Posted::For(thread)
    }

    fn pending_of(&mut self, target: Target) -> &mut Set {
        match target {
            Target::Process(slot) => &mut self.process(slot).pending,
            Target::Thread(ix) => &mut self.thread(ix).pending,
        }
    }

    /// Keeps a signal. A standard one that is pending already is merged; when the queue is full a
    /// real-time one is lost, as the kernel does beyond `RLIMIT_SIGPENDING` for those sent by
    /// `kill`.
    fn enqueue(&mut self, target: Target, info: Info) {
        let merged = info.signal < FIRST_REAL_TIME && self.pending_of(target).has(info.signal);
        if merged || self.queued as usize == QUEUE_MAX {
            return;
        }
        self.queue[self.queued as usize] = Queued {
            target: Some(target),
            info,
        };
        self.queued += 1;
        *self.pending_of(target) = self.pending_of(target).with(Set::of(info.signal));
    }

    // ---- taking ----

    /// Takes the lowest signal of a set that is pending for a target, the one posted first.
    fn take(&mut self, target: Target, set: Set) -> Option<Info> {
        let signal = self.pending_of(target).and(set).lowest()?;
        let queue = &self.queue[..self.queued as usize];
        let fits = |queued: &Queued| queued.target == Some(target) && queued.info.signal == signal;
        let at = queue.iter().position(fits)?;
        let info = queue[at].info;
        let more = queue[at + 1..].iter().any(fits);
        self.remove(at);
        if !more {
            *self.pending_of(target) = self.pending_of(target).without(Set::of(signal));
        }
        Some(info)
    }

    fn remove(&mut self, at: usize) {
        self.queue.copy_within(at + 1..self.queued as usize, at);
        self.queued -= 1;
    }

    /// Takes the next signal that a thread is to act on.
    pub fn next(&mut self, process: u16, thread: u16) -> Option<Info> {
        let open = Set(!self.mask(thread).0);
        self.take_from(process, thread, open)
    }

    /// Takes a pending signal of a set, blocked or not (`sigwait`, a signal descriptor).
    pub fn take_from(&mut self, process: u16, thread: u16, set: Set) -> Option<Info> {
        self.take(Target::Thread(thread), set)
            .or_else(|| self.take(Target::Process(process), set))
    }

    /// A handler of this signal is about to run: what is blocked meanwhile. A one-shot handler
    /// (`SA_RESETHAND`) is gone afterwards.
    pub fn enter_handler(&mut self, process: u16, thread: u16, signal: u8) -> (Action, Set) {
        const NO_DEFER: u64 = 0x4000_0000;
        const RESET: u64 = 0x8000_0000;
        let action = self.action(process, signal);
        if action.flags & RESET != 0 {
            self.process(process).actions[usize::from(signal) - 1].handler = DEFAULT;
        }
        let before = self.mask(thread);
        let mut during = before.with(action.mask);
        if action.flags & NO_DEFER == 0 {
            during = during.with(Set::of(signal));
        }
        self.set_mask(thread, during);
        (action, before)
    }

    // ---- life of processes and threads ----

    fn forget(&mut self, target: Target) {
        let mut kept = 0;
        for at in 0..self.queued as usize {
            if self.queue[at].target != Some(target) {
                self.queue[kept] = self.queue[at];
                kept += 1;
            }
        }
        self.queued = kept as u32;
        *self.pending_of(target) = Set(0);
    }

    /// A new thread blocks what its maker blocks.
    pub fn thread_made(&mut self, maker: u16, thread: u16) {
        self.forget(Target::Thread(thread));
        *self.thread(thread) = Thread {
            mask: self.mask(maker),
            pending: Set(0),
            awaited: Set(0),
        };
    }

    /// A fork: the child has its parent's actions and nothing pending.
    pub fn process_made(&mut self, parent: u16, child: u16) {
        self.forget(Target::Process(child));
        self.process(child).actions = self.processes[usize::from(parent)].actions;
    }

    /// An exec: handlers are gone, ignored signals stay ignored.
    pub fn program_changed(&mut self, process: u16) {
        for action in &mut self.process(process).actions {
            if action.handler != IGNORE {
                *action = Action::default();
            }
        }
    }
}

#[cfg(test)]
mod tests;
