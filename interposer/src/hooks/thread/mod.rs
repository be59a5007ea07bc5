//! Threads: creation, cancellation, scheduling, synchronisation.
//!
//! * [`pthread`], [`c11`], [`cancel`], [`handle`]: making threads and ending them
//! * [`sched`], [`affinity`]: policies, priorities and processors, without effect
//! * [`sync`]: mutexes, condition variables and the others; [`futex`]
//! * [`hint`]: soft barriers and performance-critical sections, for programs that know of us

pub(crate) mod affinity;
pub(crate) mod c11;
pub(crate) mod cancel;
pub(crate) mod futex;
pub(crate) mod handle;
pub(crate) mod hint;
pub(crate) mod pthread;
pub(crate) mod sched;
pub(crate) mod sync;
