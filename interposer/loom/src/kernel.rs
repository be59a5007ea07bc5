//! What the kernel does for the two sides of a tape and for threads that wait for their turn.

use crate::sync::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};

/// The queue of a futex.
#[derive(Debug, Default)]
pub struct Futex {
    queue: Mutex<()>,
    woken: Condvar,
}

impl Futex {
    /// `FUTEX_WAIT`. The kernel looks at the word under the lock of its queue.
    pub fn wait(&self, word: &AtomicU32, value: u32) {
        let Ok(queue) = self.queue.lock() else { return };
        if word.load(Ordering::Relaxed) == value {
            drop(self.woken.wait(queue));
        }
    }

    /// `FUTEX_WAKE`.
    pub fn wake(&self) {
        drop(self.queue.lock());
        self.woken.notify_all();
    }
}

/// An eventfd.
#[derive(Debug, Default)]
pub struct EventFd {
    count: Mutex<u64>,
    written: Condvar,
}

impl EventFd {
    /// Adds one.
    pub fn write(&self) {
        if let Ok(mut count) = self.count.lock() {
            *count += 1;
        }
        self.written.notify_all();
    }

    /// Waits until it is not zero, and resets it.
    pub fn read(&self) {
        let Ok(mut count) = self.count.lock() else {
            return;
        };
        while *count == 0 {
            let Ok(again) = self.written.wait(count) else {
                return;
            };
            count = again;
        }
        *count = 0;
    }
}
