//! The contract between the node daemon and the interposer: the tape.
//!
//! A *tape* is one shared memory object per replica with two byte rings in it. The node writes
//! committed log entries to the *input* ring; the interposer inside the server admits them one by
//! one and answers with *records* (output bytes, published listeners, end-of-entry marks) on the
//! *output* ring. Nothing else passes between the two but two wake-ups: a futex in the header for
//! the server, an eventfd or FIFO (the *doorbell*) for the node.
//!
//! * [`entry`]: the encoding of one log entry, which is also the value that consensus orders.
//! * [`record`]: the encoding of the answers.
//! * [`operation`]: what the scheduler orders, by number and by name.
//! * [`renumber`]: what a restored server is told about its files.
//! * [`ring`]: the single-producer single-consumer rings and the header both sides map.
//! * [`unix`]: paths of UNIX sockets that clients may use.
//!
//! # Compatibility
//!
//! Node and interposer are normally one file, so both have the same definitions. The header begins
//! with [`ring::MAGIC`]; a side that finds another magic number does not use the tape: the server
//! ends with a message, and so does the node. Its digit is raised when the header changes. Entries
//! are also what the log holds, and records are what output hashes cover: their numbers and
//! encodings stay what they are, and new kinds get new numbers. An older build that reads an
//! unknown kind reports an [`entry::EntryError::UnknownKind`] and goes no further in that entry or
//! record. The golden tests hold every encoding.
//!
//! Deliberately absent: system calls, mapping of memory, Paxos, libc. Both sides bring their own.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod entry;
mod layout;
mod mapping;
pub mod operation;
pub mod record;
pub mod renumber;
pub mod ring;
mod sync;
pub mod unix;

/// Descriptor numbers and environment names that the launcher and the interposer agree on.
pub mod handover {
    /// The interposer itself, a memfd or a file of the container; `LD_PRELOAD` names it as
    /// [`PRELOAD_PATH`], so that the path is the same on every replica and nothing is written to
    /// disk.
    pub const INTERPOSER_FD: i32 = 1000;
    /// The tape, a memfd or a file of the container.
    pub const TAPE_FD: i32 = 1001;
    /// The doorbell, an eventfd or a FIFO of the container, which the interposer writes to wake the
    /// node.
    pub const DOORBELL_FD: i32 = 1002;
    /// The server's working directory at its start. The server is told paths below
    /// [`WORK_DIRECTORY_PATH`] instead of those of this replica.
    pub const WORK_DIRECTORY_FD: i32 = 1003;
    /// The scheduler's state, a memfd made by the interposer of the first process of the tree.
    pub const SCHEDULER_FD: i32 = 1004;
    /// A directory of this replica for temporary files, emptied before every start.
    pub const TEMPORARY_DIRECTORY_FD: i32 = 1005;
    /// A socket that the node has the other end of. The kernel kills the tree when that closes. Not
    /// there in a container, whose processes the kernel kills with its first one.
    pub const LIFELINE_FD: i32 = 1006;
    /// Descriptors from here up to and including [`LAST_FD`] belong to the interposer.
    pub const FIRST_FD: i32 = INTERPOSER_FD;
    /// See [`FIRST_FD`].
    pub const LAST_FD: i32 = LIFELINE_FD;
    /// A name of the working directory that is the same on every replica.
    pub const WORK_DIRECTORY_PATH: &str = "/proc/self/fd/1003";
    /// A name of the directory for temporary files that is the same on every replica.
    pub const TEMPORARY_DIRECTORY_PATH: &str = "/proc/self/fd/1005";
    /// In a server's container: which files have become which others by a restore; see
    /// [`super::renumber`].
    pub const RENUMBERED_PATH: &core::ffi::CStr = c"/.brolga/renumbered";
    /// The value of `LD_PRELOAD` for a wrapped server.
    pub const PRELOAD_PATH: &str = "/proc/self/fd/1000";
}

/// Input bytes a frontend may send beyond what the server has consumed, per connection.
pub const INPUT_WINDOW_BYTES: u64 = 256 * 1024;
/// Output bytes a server may write beyond what [`entry::Event::Credit`] has acknowledged, per
/// connection.
pub const OUTPUT_WINDOW_BYTES: u64 = 1024 * 1024;
/// A consumer reports [`record::Record::Consumed`] each time this many more bytes were read.
pub const CONSUMED_REPORT_BYTES: u64 = INPUT_WINDOW_BYTES / 4;
/// Largest encoded entry; a leader must cut its batches below it.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// Largest payload of a datagram: what IPv6 leaves of 65535 bytes, a little more than IPv4 does.
pub const DATAGRAM_BYTES_MAX: usize = 65_527;
/// Default of N_clock (CRANE section 4): logical clock ticks that one event brings.
pub const CLOCKS_PER_EVENT: u32 = 1000;

/// In place of a frontend in the ids of connections that the server opens to the outside.
pub const OUTGOING: u64 = u64::MAX;

/// A connection with the outside, unique for the life of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct ConnId {
    /// The frontend's identity: random, new each time a frontend starts, never 0. [`OUTGOING`]
    /// where the server has opened the connection, whoever owns it.
    pub frontend: u64,
    /// Counts up from 1 within the frontend.
    pub counter: u64,
}

impl ConnId {
    /// True for a connection that the server has opened.
    #[must_use]
    pub const fn is_outgoing(&self) -> bool {
        self.frontend == OUTGOING
    }
}

/// Treatment of an event that carries a stream offset, so that every byte counts exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStep {
    /// Take the bytes from this index on; the ones before it were seen already.
    Take(usize),
    /// Everything in it was seen already.
    Seen,
    /// The event lies beyond the next expected byte: something before it was lost and must be
    /// resent.
    Gap,
}

/// Decides what to do with `len` bytes at stream `offset` when `next` is the first byte not seen
/// yet. Every replica and every frontend uses this one function.
#[must_use]
pub fn stream_step(next: u64, offset: u64, len: usize) -> StreamStep {
    if offset > next {
        return StreamStep::Gap;
    }
    let seen = next - offset;
    if seen >= len as u64 {
        StreamStep::Seen
    } else {
        StreamStep::Take(seen as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_step_takes_only_the_unseen_part() {
        assert_eq!(stream_step(10, 10, 5), StreamStep::Take(0));
        assert_eq!(stream_step(10, 8, 5), StreamStep::Take(2));
        assert_eq!(stream_step(10, 5, 5), StreamStep::Seen);
        assert_eq!(stream_step(10, 11, 5), StreamStep::Gap);
        assert_eq!(stream_step(10, 10, 0), StreamStep::Seen);
    }
}
