//! Descriptors: what a process's descriptors name, and the calls that work on descriptors of any
//! kind.
//!
//! * [`object`]: the table of what descriptors name; [`real`]: those whose bytes the kernel carries
//!   inside the tree; [`counter`]: what eventfd, timerfd and signalfd have in common
//! * [`read_write`], [`iovec`], [`splice`]: bytes
//! * the others are named after their calls

pub(crate) mod close;
pub(crate) mod counter;
pub(crate) mod dup;
pub(crate) mod eventfd;
pub(crate) mod fcntl;
pub(crate) mod fifo;
pub(crate) mod ioctl;
pub(crate) mod iovec;
pub(crate) mod object;
pub(crate) mod pipe;
pub(crate) mod read_write;
pub(crate) mod real;
pub(crate) mod signalfd;
pub(crate) mod splice;
pub(crate) mod timerfd;
