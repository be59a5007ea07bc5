//! The way to the leader: tells when a frontend has to send again what is not committed.
//!
//! The way to the leader keeps order but may lose: a link breaks, a leader is deposed with events
//! still queued. Each of these is seen here, so events are sent again right then. The timer is a
//! net below that, for what nobody foresaw; it backs off so that a cluster without a quorum is not
//! buried in repetitions.

use brolga_consensus::Backoff;
use std::time::{Duration, Instant};

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(16);
/// A node that should lead and says it does not may be about to, and a choked link may clear: try
/// again this much later.
const HOLD: Duration = Duration::from_millis(20);

/// The way of events from a frontend to the leader.
#[derive(Debug)]
pub(crate) struct LeaderLink {
    needs_resend: bool,
    check_at: Option<Instant>,
    backoff: Backoff,
    held_until: Option<Instant>,
    progress: u64,
    resends: u64,
}

impl Default for LeaderLink {
    fn default() -> Self {
        Self {
            needs_resend: true,
            check_at: None,
            backoff: Backoff::new(RETRY_FIRST, RETRY_MOST),
            held_until: None,
            progress: 0,
            resends: 0,
        }
    }
}

impl LeaderLink {
    /// What was sent may be lost, or there was nobody to send it to; the way may be another one
    /// now.
    pub(crate) fn lost(&mut self) {
        self.needs_resend = true;
        self.held_until = None;
    }

    /// There is no way to send now; the frontend says everything again when there is one.
    pub(crate) fn needs_resend(&mut self) {
        self.needs_resend = true;
    }

    /// The way does not take anything now: nothing is sent for a while, and then everything again.
    pub(crate) fn hold(&mut self, now: Instant) {
        self.needs_resend = true;
        self.held_until = Some(now + HOLD);
    }

    /// True while nothing can be sent.
    pub(crate) fn is_held(&mut self, now: Instant) -> bool {
        self.held_until = self.held_until.filter(|until| *until > now);
        self.held_until.is_some()
    }

    /// Asks, when events can be sent, whether all have to be sent again first.
    pub(crate) fn take_resend(&mut self) -> bool {
        let resend = std::mem::take(&mut self.needs_resend);
        self.resends += u64::from(resend);
        resend
    }

    /// Events were sent to another node.
    pub(crate) fn sent(&mut self, now: Instant) {
        if self.check_at.is_none() {
            self.check_at = Some(now + self.backoff.pause());
        }
    }

    /// The time at which it is to be asked again although nothing has happened.
    pub(crate) fn wakeup(&self) -> Option<Instant> {
        self.held_until.or(self.check_at)
    }

    /// Looks whether commits come: `progress` counts them, `outstanding` says whether any is
    /// missing.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        progress: u64,
        outstanding: impl FnOnce() -> bool,
    ) {
        if self.check_at.is_none_or(|at| at > now) {
            return;
        }
        self.check_at = None;
        let moved = progress != self.progress;
        self.progress = progress;
        if !outstanding() {
            self.backoff.reset();
            return;
        }
        if moved {
            self.backoff.reset();
        } else {
            self.needs_resend = true;
            self.backoff.fail();
        }
        self.check_at = Some(now + self.backoff.pause());
    }

    /// Returns how often everything was sent again.
    pub(crate) fn resends(&self) -> u64 {
        // The first time is no repetition.
        self.resends.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_leader_is_asked_again_less_and_less_often() {
        let start = Instant::now();
        let mut upstream = LeaderLink::default();
        assert!(upstream.take_resend());
        assert!(!upstream.take_resend());
        upstream.sent(start);
        let mut waits = Vec::new();
        let mut now = start;
        for _ in 0..7 {
            let at = upstream.wakeup().unwrap();
            waits.push((at - now).as_secs());
            now = at;
            upstream.check(now, 0, || true);
            assert!(upstream.take_resend());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16]);
        now = upstream.wakeup().unwrap();
        upstream.check(now, 5, || true);
        assert!(!upstream.take_resend(), "commits are coming");
        now = upstream.wakeup().unwrap();
        upstream.check(now, 9, || false);
        assert_eq!(upstream.wakeup(), None);
        assert_eq!(upstream.resends(), 7);
    }

    #[test]
    fn a_refusal_is_followed_by_an_early_resend() {
        let now = Instant::now();
        let mut upstream = LeaderLink::default();
        assert!(upstream.take_resend());
        upstream.sent(now);
        upstream.hold(now);
        assert!(upstream.is_held(now));
        let at = upstream.wakeup().unwrap();
        assert_eq!(at - now, HOLD);
        assert!(!upstream.is_held(at));
        assert!(upstream.take_resend());
        upstream.hold(now);
        upstream.lost();
        assert!(!upstream.is_held(now), "a new leader is not waited for");
    }
}
