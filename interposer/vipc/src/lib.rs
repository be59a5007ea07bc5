//! System V IPC as plain data: [`semaphore`] sets, [`message`] queues, and who has attached which
//! shared [`memory`].
//!
//! The kernel's objects have ids, process ids and times that differ between replicas, and replicas
//! on one machine would meet in them. These belong to one process tree. Calls that would block say
//! so, and nothing is changed; the caller waits in the scheduler and tries again.
//!
//! Everything here is plain data in memory that the server's process tree shares, touched only by
//! the thread that has the turn. Zeroed memory is valid. Errors are errno values.
//!
//! Deliberately absent: threads and waiting, the memory of the segments itself, `IPC_INFO` and the
//! other calls that list what the machine has, POSIX message queues.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod memory;
pub mod message;
pub mod names;
pub mod semaphore;

use memory::Segments;
use message::Queues;
use semaphore::Semaphores;

/// `errno` values of these calls (`<errno.h>`).
pub mod errno {
    #![allow(missing_docs, reason = "the names are POSIX's")]
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const E2BIG: i32 = 7;
    pub const EAGAIN: i32 = 11;
    pub const EACCES: i32 = 13;
    pub const EEXIST: i32 = 17;
    pub const EINVAL: i32 = 22;
    pub const EFBIG: i32 = 27;
    pub const ENOSPC: i32 = 28;
    pub const ERANGE: i32 = 34;
    pub const ENOMSG: i32 = 42;
}

/// Bits of `IPC_CREAT`, `IPC_EXCL` and `IPC_NOWAIT` (`<sys/ipc.h>`).
pub mod flag {
    #![allow(missing_docs, reason = "the names are POSIX's")]
    pub const CREAT: i32 = 0o1000;
    pub const EXCL: i32 = 0o2000;
    pub const NOWAIT: i32 = 0o4000;
}

/// The calling process and the time of the call.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Effective user and group.
    pub user: u32,
    /// See `user`.
    pub group: u32,
    /// Slot of the process in the tree.
    pub process: u16,
    /// The process id that the server sees.
    pub pid: i32,
    /// Virtual time, seconds since the Unix epoch.
    pub now: i64,
}

/// All objects of a process tree.
#[repr(C)]
pub struct Objects {
    /// Semaphore sets.
    pub semaphores: Semaphores,
    /// Message queues.
    pub queues: Queues,
    /// Shared memory segments.
    pub segments: Segments,
}

#[cfg(test)]
mod testing {
    use crate::Caller;

    /// A process of the same user as every other; its time tells it from them.
    pub(crate) fn by(process: u16) -> Caller {
        Caller {
            user: 10,
            group: 20,
            process,
            pid: 1000 + i32::from(process),
            now: i64::from(process) + 5,
        }
    }
}
