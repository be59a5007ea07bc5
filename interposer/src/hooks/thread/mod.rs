//! Threads: creation, cancellation, scheduling, synchronisation.

pub(crate) mod affinity;
pub(crate) mod c11;
pub(crate) mod cancel;
pub(crate) mod futex;
pub(crate) mod handle;
pub(crate) mod hint;
pub(crate) mod pthread;
pub(crate) mod sched;
pub(crate) mod sync;
