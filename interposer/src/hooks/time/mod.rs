//! Clocks, sleeps and timers: virtual time.

pub(crate) mod clock;
pub(crate) mod timer;
