//! Pauses between attempts that double with each failure.

use std::time::Duration;

/// The pause after each failure in a row: `first`, then twice as long each time, and at most `max`.
///
/// It counts failures and holds no clock: the caller adds the pause to its own time.
///
/// ```
/// use brolga_consensus::Backoff;
/// use std::time::Duration;
///
/// let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));
/// assert_eq!(backoff.fail(), Duration::from_millis(5));
/// assert_eq!(backoff.fail(), Duration::from_millis(10));
/// backoff.reset();
/// assert_eq!(backoff.fail(), Duration::from_millis(5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// A backoff without a failure yet.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            failures: 0,
        }
    }

    /// Counts a failure and returns the pause before the next attempt.
    pub fn fail(&mut self) -> Duration {
        let pause = self.pause();
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// The pause that the next failure leads to.
    pub fn pause(&self) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_double_up_to_the_limit_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(5 * MILLI, 200 * MILLI);
        let pauses: Vec<_> = (0..8).map(|_| backoff.fail().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 200, 200]);
        assert_eq!(backoff.failures(), 8);
        backoff.reset();
        assert_eq!((backoff.failures(), backoff.pause()), (0, 5 * MILLI));
        assert_eq!(backoff.pause(), 5 * MILLI, "asking counts no failure");
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut backoff = Backoff::new(MILLI, Duration::MAX);
        let mut last = Duration::ZERO;
        for _ in 0..100 {
            let pause = backoff.fail();
            assert!(pause >= last);
            last = pause;
        }
        backoff.failures = u32::MAX;
        assert_eq!(backoff.fail(), last);
        assert_eq!(backoff.failures(), u32::MAX);
    }

    #[test]
    fn a_limit_below_the_first_pause_holds_from_the_start() {
        let mut backoff = Backoff::new(9 * MILLI, 4 * MILLI);
        assert_eq!(backoff.fail(), 4 * MILLI);
    }
}
