//! Deadlines of blocked threads and alarms: a binary heap of thread indices.
//!
//! Equal deadlines expire in the order in which their threads blocked, then by thread, so that the
//! order is total and the same everywhere.

use crate::thread::{THREADS_MAX, ThreadIx, Threads};

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

fn order(threads: &Threads, ix: ThreadIx) -> (u64, u64, ThreadIx) {
    let thread = threads.get(ix);
    (thread.deadline_ns, thread.blocked_at, ix)
}

impl Timers {
    /// Returns the thread whose deadline is earliest.
    pub(crate) fn first(&self) -> Option<ThreadIx> {
        (self.len > 0).then(|| self.heap[0])
    }

    /// Adds a thread whose deadline is set.
    pub(crate) fn insert(&mut self, threads: &mut Threads, ix: ThreadIx) {
        let at = usize::from(self.len);
        self.len += 1;
        self.heap[at] = ix;
        self.sift_up(threads, at);
    }

    /// Removes a thread.
    pub(crate) fn remove(&mut self, threads: &mut Threads, ix: ThreadIx) {
        let at = usize::from(threads.get(ix).timer) - 1;
        threads.get_mut(ix).timer = 0;
        self.len -= 1;
        let last = usize::from(self.len);
        if at == last {
            return;
        }
        let moved = self.heap[last];
        self.heap[at] = moved;
        self.sift_up(threads, at);
        self.sift_down(threads, usize::from(threads.get(moved).timer) - 1);
    }

    fn place(&mut self, threads: &mut Threads, at: usize, ix: ThreadIx) {
        self.heap[at] = ix;
        threads.get_mut(ix).timer = at as u16 + 1;
    }

    fn sift_up(&mut self, threads: &mut Threads, mut at: usize) {
        let ix = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / 2;
            let above = self.heap[parent];
            if order(threads, above) <= order(threads, ix) {
                break;
            }
            self.place(threads, at, above);
            at = parent;
        }
        self.place(threads, at, ix);
    }

    fn sift_down(&mut self, threads: &mut Threads, mut at: usize) {
        let ix = self.heap[at];
        let len = usize::from(self.len);
        loop {
            let mut child = 2 * at + 1;
            if child >= len {
                break;
            }
            let right = child + 1;
            let heap = &self.heap;
            if right < len && order(threads, heap[right]) < order(threads, heap[child]) {
                child = right;
            }
            let below = self.heap[child];
            if order(threads, ix) <= order(threads, below) {
                break;
            }
            self.place(threads, at, below);
            at = child;
        }
        self.place(threads, at, ix);
    }
}
