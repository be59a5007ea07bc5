//! A bound on bytes per second that several threads share.
//!
//! Time is handed out instead of bytes: each send takes its share of the time, and waits until that
//! has come. What was not used is lost, but for a moment's worth, so that a thread that was held up
//! does not make up for it at once.
//!
//! Sans-IO: says how long to wait.

use std::time::{Duration, Instant};

/// Time that may be made up for.
const SLACK: Duration = Duration::from_millis(5);

/// A limit on the bytes that are sent per second.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: u64,
    /// Until when all time is handed out.
    free_at: Option<Instant>,
}

impl Throttle {
    /// 0: no bound.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            free_at: None,
        }
    }

    /// The time to wait before `bytes` are sent.
    pub fn wait_for(&mut self, bytes: u64, now: Instant) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let begins = self.free_at.map_or(now, |at| at.max(earliest));
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let takes = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.free_at = Some(begins + takes);
        begins.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_whoever_sends_them() {
        let now = Instant::now();
        let mut throttle = Throttle::new(1000);
        assert_eq!(throttle.wait_for(500, now), Duration::ZERO);
        assert_eq!(throttle.wait_for(250, now), Duration::from_millis(500));
        assert_eq!(throttle.wait_for(1, now), Duration::from_millis(750));
    }

    #[test]
    fn what_was_not_used_is_lost() {
        let now = Instant::now();
        let mut throttle = Throttle::new(1000);
        throttle.wait_for(1, now);
        let later = now + Duration::from_secs(100);
        assert_eq!(throttle.wait_for(1000, later), Duration::ZERO);
        let wait = throttle.wait_for(1, later);
        assert_eq!(wait, Duration::from_secs(1) - SLACK);
    }

    #[test]
    fn there_need_not_be_a_bound() {
        let now = Instant::now();
        let mut throttle = Throttle::new(0);
        for _ in 0..10 {
            assert_eq!(throttle.wait_for(u64::MAX, now), Duration::ZERO);
        }
    }
}
