//! The progress of a fetch, for other threads, and the means to end it.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The progress, shared by the fetch and its observers.
#[derive(Debug)]
pub struct Progress {
    stopped: AtomicBool,
    socket: Mutex<Option<TcpStream>>,
    slot: AtomicU64,
    all: AtomicU64,
    /// Bytes that need not come, or no more.
    here: AtomicU64,
    /// Of these, what was here at the start.
    found: AtomicU64,
    began: Instant,
}

/// The progress at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Slot of the checkpoint; 0: not known yet.
    pub slot: u64,
    /// Bytes of it.
    pub all: u64,
    /// Of these, what is here.
    pub here: u64,
    /// Bytes per second that came.
    pub rate: u64,
}

impl Seen {
    /// Until all is here at this rate, if that can be told.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let left = self.all.saturating_sub(self.here);
        let milliseconds = left.saturating_mul(1000).checked_div(self.rate)?;
        Some(Duration::from_millis(milliseconds))
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            stopped: AtomicBool::new(false),
            socket: Mutex::new(None),
            slot: AtomicU64::new(0),
            all: AtomicU64::new(0),
            here: AtomicU64::new(0),
            found: AtomicU64::new(0),
            began: Instant::now(),
        }
    }
}

impl Progress {
    /// The fetch ends soon, with what is there kept.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(socket) = &*self.socket.lock().unwrap_or_else(PoisonError::into_inner) {
            // It may be closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Returns true when the fetch is to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The progress now.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let here = self.here.load(Ordering::Relaxed);
        let came = here.saturating_sub(self.found.load(Ordering::Relaxed));
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        Seen {
            slot: self.slot.load(Ordering::Relaxed),
            all: self.all.load(Ordering::Relaxed),
            here,
            rate: came.saturating_mul(1_000_000) / micros.max(1),
        }
    }

    /// Bytes that were here at the start.
    #[cfg(test)]
    pub(crate) fn found_bytes(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    /// Time since it began.
    pub(crate) fn taken(&self) -> Duration {
        self.began.elapsed()
    }

    /// The connection that is waited on.
    pub(crate) fn uses(&self, socket: &TcpStream) {
        // Without it a stop is noticed later.
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = socket.try_clone().ok();
    }

    pub(crate) fn begins(&self, slot: u64, all: u64) {
        self.slot.store(slot, Ordering::Relaxed);
        self.all.store(all, Ordering::Relaxed);
    }

    pub(crate) fn found(&self, bytes: u64) {
        self.here.fetch_add(bytes, Ordering::Relaxed);
        self.found.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn came(&self, bytes: u64) {
        self.here.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that had come were wrong.
    pub(crate) fn lost(&self, bytes: u64) {
        let here = self.here.load(Ordering::Relaxed);
        self.here
            .store(here.saturating_sub(bytes), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_does_not_count_for_the_rate() {
        let progress = Progress::default();
        assert_eq!(progress.seen().left(), None);
        progress.begins(7, 100);
        progress.found(40);
        let seen = progress.seen();
        assert_eq!((seen.slot, seen.all, seen.here, seen.rate), (7, 100, 40, 0));
        progress.came(60);
        let seen = progress.seen();
        assert_eq!((seen.here, seen.left()), (100, Some(Duration::ZERO)));
        progress.lost(10);
        assert_eq!(progress.seen().here, 90);
    }
}
