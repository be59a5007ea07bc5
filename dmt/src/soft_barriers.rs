//! Soft barriers (PARROT, SOSP'13, section 3): a hint that some threads should continue together,
//! because they are about to compute for equally long.
//!
//! A thread that arrives waits until `count` are there, or until so many ticks have passed since
//! the first one came, or until nothing else can run. All of that is logical, so it is the same on
//! every replica; none of it is a promise, so no program may depend on it.

use crate::{Key, Scheduler};

/// Soft barriers that a process tree may have at a time; more are ignored.
const BARRIERS: usize = 64;
/// Key space of waiting threads; only those of objects that processes share are as large.
const SPACE: u64 = 1 << 62;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct SoftBarrier {
    name: i64,
    process: u16,
    used: bool,
    count: u32,
    /// Threads that wait, and threads that something else has woken since: the barrier opens the
    /// earlier for these.
    waiting: u32,
    timeout: u64,
    /// Clock at which it opens for those who wait.
    due: u64,
}

/// The soft barriers of a process tree.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SoftBarriers {
    /// Threads that wait at any of them.
    waiting: u32,
    all: [SoftBarrier; BARRIERS],
}

#[cfg(test)]
impl Default for SoftBarriers {
    fn default() -> Self {
        Self {
            waiting: 0,
            all: [SoftBarrier::default(); BARRIERS],
        }
    }
}

/// Result of arriving at a soft barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The thread goes on.
    Pass,
    /// The thread blocks on this key.
    Wait(Key),
}

fn key(at: usize) -> Key {
    Key {
        space: SPACE,
        id: at as u64,
    }
}

impl Scheduler {
    fn soft_barrier(&self, process: u16, name: i64) -> Option<usize> {
        let is_it = |it: &SoftBarrier| it.used && it.process == process && it.name == name;
        self.soft.all.iter().position(is_it)
    }

    /// Makes a soft barrier of a process, or changes one: `count` threads, `timeout` ticks.
    pub fn make_soft_barrier(&mut self, process: u16, name: i64, count: u32, timeout: u64) {
        self.remove_soft_barrier(process, name);
        let Some(free) = self.soft.all.iter_mut().find(|it| !it.used) else {
            return;
        };
        *free = SoftBarrier {
            name,
            process,
            used: true,
            count,
            waiting: 0,
            timeout,
            due: 0,
        };
    }

    /// Removes a soft barrier; threads that wait at it go on.
    pub fn remove_soft_barrier(&mut self, process: u16, name: i64) {
        if let Some(at) = self.soft_barrier(process, name) {
            self.open(at);
            self.soft.all[at].used = false;
        }
    }

    /// Removes all soft barriers of a process that has ended or executes another program.
    pub fn remove_soft_barriers(&mut self, process: u16) {
        for at in 0..BARRIERS {
            let it = self.soft.all[at];
            if it.used && it.process == process {
                self.open(at);
                self.soft.all[at].used = false;
            }
        }
    }

    /// Lets the current thread arrive. The last thread that is awaited wakes the others.
    #[must_use]
    pub fn arrive_at_soft_barrier(&mut self, process: u16, name: i64) -> Arrival {
        let Some(at) = self.soft_barrier(process, name) else {
            return Arrival::Pass;
        };
        let clock = self.clock;
        let it = &mut self.soft.all[at];
        if it.waiting + 1 >= it.count {
            self.open(at);
            return Arrival::Pass;
        }
        if it.waiting == 0 {
            it.due = clock + it.timeout;
        }
        it.waiting += 1;
        self.soft.waiting += 1;
        Arrival::Wait(key(at))
    }

    fn open(&mut self, at: usize) {
        let it = &mut self.soft.all[at];
        self.soft.waiting -= core::mem::take(&mut it.waiting);
        self.wake(key(at), usize::MAX);
    }

    /// Opens barriers whose timeout has passed, and when no thread can run the one whose timeout is
    /// next. To be called before [`Scheduler::admission_due`].
    pub fn open_soft_barriers(&mut self) {
        while self.soft.waiting > 0 {
            let waited_at = |at: &usize| self.soft.all[*at].waiting > 0;
            let next = (0..BARRIERS)
                .filter(waited_at)
                .min_by_key(|at| self.soft.all[*at].due);
            let Some(at) = next else { return };
            if self.can_run() && self.soft.all[at].due > self.clock {
                return;
            }
            self.open(at);
        }
    }
}
