//! Deadlines of blocked threads: a binary heap of thread indices.
//!
//! Equal deadlines expire in the order in which their threads blocked, then by thread, so that the
//! order is total and the same everywhere.

use crate::{Scheduler, THREADS_MAX, ThreadIx};

/// The heap. `Thread::timer` is a thread's position in it plus one.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Timers {
    len: u16,
    heap: [ThreadIx; THREADS_MAX],
}

#[cfg(test)]
impl Default for Timers {
    fn default() -> Self {
        Self {
            len: 0,
            heap: [0; THREADS_MAX],
        }
    }
}

impl Timers {
    /// The thread whose deadline is earliest.
    pub(crate) fn first(&self) -> Option<ThreadIx> {
        (self.len > 0).then(|| self.heap[0])
    }
}

fn order(scheduler: &Scheduler, ix: ThreadIx) -> (u64, u64, ThreadIx) {
    let thread = scheduler.thread(ix);
    (thread.deadline_ns, thread.blocked_at, ix)
}

fn place(scheduler: &mut Scheduler, at: usize, ix: ThreadIx) {
    scheduler.timers.heap[at] = ix;
    scheduler.thread_mut(ix).timer = at as u16 + 1;
}

fn sift_up(scheduler: &mut Scheduler, mut at: usize) {
    let ix = scheduler.timers.heap[at];
    while at > 0 {
        let parent = (at - 1) / 2;
        let above = scheduler.timers.heap[parent];
        if order(scheduler, above) <= order(scheduler, ix) {
            break;
        }
        place(scheduler, at, above);
        at = parent;
    }
    place(scheduler, at, ix);
}

fn sift_down(scheduler: &mut Scheduler, mut at: usize) {
    let ix = scheduler.timers.heap[at];
    let len = usize::from(scheduler.timers.len);
    loop {
        let mut child = 2 * at + 1;
        if child >= len {
            break;
        }
        let right = child + 1;
        let heap = &scheduler.timers.heap;
        if right < len && order(scheduler, heap[right]) < order(scheduler, heap[child]) {
            child = right;
        }
        let below = scheduler.timers.heap[child];
        if order(scheduler, ix) <= order(scheduler, below) {
            break;
        }
        place(scheduler, at, below);
        at = child;
    }
    place(scheduler, at, ix);
}

/// Adds a blocked thread whose deadline is set.
pub(crate) fn insert(scheduler: &mut Scheduler, ix: ThreadIx) {
    let at = usize::from(scheduler.timers.len);
    scheduler.timers.len += 1;
    scheduler.timers.heap[at] = ix;
    sift_up(scheduler, at);
}

/// Takes a thread out.
pub(crate) fn remove(scheduler: &mut Scheduler, ix: ThreadIx) {
    let at = usize::from(scheduler.thread(ix).timer) - 1;
    scheduler.thread_mut(ix).timer = 0;
    scheduler.timers.len -= 1;
    let last = usize::from(scheduler.timers.len);
    if at == last {
        return;
    }
    let moved = scheduler.timers.heap[last];
    scheduler.timers.heap[at] = moved;
    sift_up(scheduler, at);
    sift_down(scheduler, usize::from(scheduler.thread(moved).timer) - 1);
}
