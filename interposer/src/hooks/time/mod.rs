//! Clocks, sleeps and timers: virtual time.

pub(crate) mod alarm;
pub(crate) mod clock;
pub(crate) mod itimer;
pub(crate) mod sleep;
pub(crate) mod timer;
