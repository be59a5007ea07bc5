//! Interprocess communication beside sockets and pipes.

pub(crate) mod mqueue;
pub(crate) mod sysv;
