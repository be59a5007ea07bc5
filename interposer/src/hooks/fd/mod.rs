//! Descriptors: what a process's descriptors name, and the calls that work on descriptors of any kind.

pub(crate) mod counter;
pub(crate) mod descriptor;
pub(crate) mod fifo;
pub(crate) mod iovec;
pub(crate) mod lock;
pub(crate) mod splice;
