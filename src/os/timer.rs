//! A timer on the poll, finer than the poll's own milliseconds.

use super::sys;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

/// A timer on the poll. It is re-armed only when it would fire too late: deadlines move all the time, and
/// firing early costs one idle iteration.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
    armed: Option<Instant>,
}

impl Timer {
    /// Creates a timer whose events carry `token`.
    ///
    /// # Errors
    /// The kernel gives no timer.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = sys::timer()?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd, armed: None })
    }

    /// Notes that the timer has fired.
    pub fn rang(&mut self) {
        sys::drain_counter(self.fd.as_fd());
        self.armed = None;
    }

    /// Makes the timer fire at `at`, or before.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn arm(&mut self, at: Instant, now: Instant) -> io::Result<()> {
        if self.armed.is_some_and(|armed| armed <= at) {
            return Ok(());
        }
        sys::arm_timer(self.fd.as_fd(), at.saturating_duration_since(now))?;
        self.armed = Some(at);
        Ok(())
    }
}
