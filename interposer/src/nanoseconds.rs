//! Times of C as nanoseconds.

use core::ffi::c_long;
use libc::{time_t, timespec};

/// Nanoseconds of a second.
pub(crate) const NS: u64 = 1_000_000_000;

/// Nanoseconds of a timespec; negative ones count as 0.
pub(crate) fn ns_of(time: &timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(NS)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// A timespec of nanoseconds.
pub(crate) fn timespec_of(ns: u64) -> timespec {
    timespec {
        tv_sec: (ns / NS) as time_t,
        tv_nsec: (ns % NS) as c_long,
    }
}
