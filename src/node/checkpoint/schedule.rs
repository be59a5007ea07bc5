//! When this replica takes a checkpoint without being asked: its log has grown by so many bytes, or
//! so much time has passed.
//!
//! # Invariants
//!
//! * A log that does not grow causes nothing: no checkpoint, no message, no timer.
//! * After a failure there is a pause, which doubles with each further failure.
//!
//! Sans-IO. Deliberately absent: which replica goes first ([`crate::checkpoint::coordination`]) and
//! how a checkpoint is taken ([`crate::checkpoint::procedure`]).

use brolga_consensus::Backoff;
use std::time::{Duration, Instant};

/// Bytes of the log per entry beside its payload, about.
const ENTRY_OVERHEAD: u64 = 64;
/// Time between two requests for the checkpoint token.
const REQUEST_AGAIN: Duration = Duration::from_millis(200);
/// The pause after the first failure; it doubles with each that follows.
const PAUSE_LEAST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(3600);

/// Tells when the next checkpoint is due.
#[derive(Debug)]
pub struct Schedule {
    every: Option<Duration>,
    log_bytes: Option<u64>,
    /// Bytes of the log since the node was started.
    seen: u64,
    /// The same number at the newest checkpoint, and at the one that is being taken.
    covered: u64,
    noted: u64,
    last_at: Instant,
    backoff: Backoff,
    not_before: Option<Instant>,
    last_error: Option<String>,
    request_at: Option<Instant>,
}

impl Schedule {
    /// A schedule. `every`: a period; `log_bytes`: growth of the log; either may be missing.
    pub fn new(every: Option<Duration>, log_bytes: Option<u64>, now: Instant) -> Self {
        Self {
            every,
            log_bytes,
            seen: 0,
            covered: 0,
            noted: 0,
            last_at: now,
            backoff: Backoff::new(PAUSE_LEAST, PAUSE_MOST),
            not_before: None,
            last_error: None,
            request_at: None,
        }
    }

    /// Counts one more entry of the log.
    pub fn logged(&mut self, bytes: usize) {
        self.seen += bytes as u64 + ENTRY_OVERHEAD;
    }

    /// Returns about how many bytes the log has grown by since the node was started.
    pub fn logged_bytes(&self) -> u64 {
        self.seen
    }

    /// Returns true when twice as much is due as makes a checkpoint due: the replicas that were to
    /// go first cannot, or take too long.
    pub fn is_overdue(&self, now: Instant) -> bool {
        let grown = self.seen - self.covered;
        let by_log = self.log_bytes.is_some_and(|most| grown / 2 >= most);
        let by_time = |every: Duration| grown > 0 && self.last_at + 2 * every <= now;
        self.is_due(now) && (by_log || self.every.is_some_and(by_time))
    }

    /// The time from which one is due, if the log grows no further.
    fn due_at(&self) -> Option<Instant> {
        let grown = self.seen - self.covered;
        let by_log = self.log_bytes.is_some_and(|most| grown >= most);
        let period = self.every.filter(|_| grown > 0);
        let at = match by_log {
            true => Some(self.last_at),
            false => period.map(|every| self.last_at + every),
        };
        at.map(|at| self.not_before.map_or(at, |pause| pause.max(at)))
    }

    /// Returns true when a checkpoint is to be taken.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due_at().is_some_and(|at| at <= now)
    }

    /// The time to look again.
    pub fn wakeup(&self, now: Instant) -> Option<Instant> {
        let due = self.due_at().filter(|at| *at > now);
        // A request has a time of its own.
        let ask = self.request_at.filter(|at| *at > now);
        due.into_iter().chain(ask).min()
    }

    /// A checkpoint is wanted: returns true when the leader is to be asked for the token (again).
    pub fn requests(&mut self, now: Instant) -> bool {
        let due = self.request_at.is_none_or(|at| at <= now);
        if due {
            self.request_at = Some(now + REQUEST_AGAIN);
        }
        due
    }

    /// Forgets the last request: it went to a node that does not lead, or nothing is wanted any
    /// more.
    pub fn forget_request(&mut self) {
        self.request_at = None;
    }

    /// A dump begins: the checkpoint covers the log up to here.
    pub fn begun(&mut self) {
        self.noted = self.seen;
    }

    /// The checkpoint is complete.
    pub fn succeeded(&mut self, now: Instant) {
        self.covered = self.noted;
        self.last_at = now;
        self.backoff.reset();
        self.not_before = None;
        self.last_error = None;
    }

    /// No checkpoint was taken. Returns true when the reason differs from the last one.
    pub fn failed(&mut self, error: &str, now: Instant) -> bool {
        self.not_before = Some(now + self.backoff.fail());
        let is_new = self.last_error.as_deref() != Some(error);
        self.last_error = Some(error.to_owned());
        is_new
    }

    /// Says how often in a row no checkpoint could be taken, and why.
    pub fn trouble(&self) -> Option<String> {
        let error = self.last_error.as_ref()?;
        Some(match self.backoff.failures() {
            0 | 1 => format!("failed: {error}"),
            many => format!("failed {many} times in a row: {error}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn growth_of_the_log_makes_one_due_and_what_grows_meanwhile_counts_for_the_next() {
        let now = Instant::now();
        let mut schedule = Schedule::new(None, Some(1000), now);
        schedule.logged(900);
        assert!(!schedule.is_due(now + MINUTE));
        schedule.logged(100);
        assert!(schedule.is_due(now));
        schedule.begun();
        schedule.logged(900);
        schedule.succeeded(now);
        assert!(!schedule.is_due(now));
        schedule.logged(100);
        assert!(schedule.is_due(now));
    }

    #[test]
    fn a_replica_that_waits_for_others_waits_for_as_much_again() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Some(MINUTE), Some(1000), now);
        schedule.logged(1000);
        assert!(schedule.is_due(now) && !schedule.is_overdue(now));
        schedule.logged(1000);
        assert!(schedule.is_overdue(now));
        schedule.begun();
        schedule.succeeded(now);
        schedule.logged(1);
        assert!(schedule.is_due(now + MINUTE) && !schedule.is_overdue(now + MINUTE));
        assert!(schedule.is_overdue(now + 2 * MINUTE));
        schedule.failed("disk full", now + 2 * MINUTE);
        assert!(!schedule.is_overdue(now + 2 * MINUTE));
    }

    #[test]
    fn a_period_counts_only_when_the_log_has_grown() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Some(MINUTE), None, now);
        assert_eq!(schedule.wakeup(now), None);
        assert!(!schedule.is_due(now + 2 * MINUTE));
        schedule.logged(1);
        assert!(!schedule.is_due(now));
        assert_eq!(schedule.wakeup(now), Some(now + MINUTE));
        assert!(schedule.is_due(now + MINUTE));
        schedule.begun();
        schedule.succeeded(now + MINUTE);
        assert_eq!(schedule.wakeup(now + MINUTE), None);
        let mut none = Schedule::new(None, None, now);
        none.logged(usize::MAX >> 1);
        assert!(!none.is_due(now + MINUTE));
        assert_eq!(none.wakeup(now), None);
    }

    #[test]
    fn pauses_double_while_it_fails_and_each_reason_is_news_once() {
        let now = Instant::now();
        let mut schedule = Schedule::new(None, Some(1), now);
        schedule.logged(1);
        let mut pauses = Vec::new();
        for failure in 0..20 {
            assert_eq!(schedule.failed("disk full", now), failure == 0);
            pauses.push(schedule.wakeup(now).unwrap() - now);
        }
        assert_eq!(pauses[..3], [PAUSE_LEAST, 2 * PAUSE_LEAST, 4 * PAUSE_LEAST]);
        assert_eq!(pauses[19], PAUSE_MOST);
        let trouble = schedule.trouble().unwrap();
        assert_eq!(trouble, "failed 20 times in a row: disk full");
        assert!(schedule.failed("CRIU", now));
        assert!(!schedule.failed("CRIU", now));
        schedule.begun();
        schedule.succeeded(now);
        assert_eq!((schedule.trouble(), schedule.wakeup(now)), (None, None));
    }
}
