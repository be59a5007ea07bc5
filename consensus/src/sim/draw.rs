//! The shapes in which a run draws random numbers. All come from one generator with the run's seed.

use fastrand::Rng;

pub(super) trait Draw {
    /// A number from `low` up to and including `high`.
    fn between(&mut self, low: u64, high: u64) -> u64;
    /// True in so many of a hundred cases.
    fn percent(&mut self, percent: u64) -> bool;
    /// One of several, each as likely as the others.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T;
}

impl Draw for Rng {
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.u64(low..=high)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.u64(0..100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.usize(0..from.len())]
    }
}
