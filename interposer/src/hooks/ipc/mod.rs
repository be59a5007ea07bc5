//! Interprocess communication beside sockets and pipes.

pub(crate) mod sysv;
