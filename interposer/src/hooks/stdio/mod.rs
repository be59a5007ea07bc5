//! stdio on descriptors that can block: pipes, FIFOs, sockets, virtual or not.
//!
//! libc's streams read and write inside libc, where no hook sees it: a blocking read would hold up
//! the tree, and a virtual socket has no bytes there. Streams on such descriptors are therefore
//! custom streams (`fopencookie`) whose reads and writes are ours.

pub(crate) mod dprintf;
pub(crate) mod fopen;
pub(crate) mod stream;
