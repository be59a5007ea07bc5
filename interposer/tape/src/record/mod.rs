//! Records: what the interposer writes to the output ring.
//!
//! Their sequence is a function of the log alone, so all replicas write the same records; the
//! node's output hash covers every one of them.
//!
//! ```text
//! record := kind u16 | thread u16 | payload_len u32 | frontend u64 | counter u64 | arg u64
//!           | payload, padded with zeros to a multiple of 8
//! ```
//!
//! `thread` is the scheduler's index of the thread that caused the record, so that a difference
//! between replicas can be attributed; 0 where no thread in particular did.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{decode, thread_of};
pub use encode::{encode, encode_by};

use crate::ConnId;
use crate::entry::{ADDRESS_BYTES, padded};
use core::net::SocketAddr;

/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 32;
/// `deadline_ns` of a server that waits for no timer.
pub const NO_DEADLINE: u64 = u64::MAX;

/// Transport protocol of a port of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transport {
    /// Connections (TCP).
    Stream = 0,
    /// Datagrams (UDP).
    Datagram = 1,
}

/// A record. Borrowed from the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Output bytes of a connection.
    Data {
        /// The connection.
        conn: ConnId,
        /// Position of the first byte in the server's output stream.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The server ended its output (shutdown of writing) after `offset` bytes; it still reads.
    Fin {
        /// The connection.
        conn: ConnId,
        /// Length of the output stream.
        offset: u64,
    },
    /// The server closed the connection; all output before it is still to be delivered.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Length of the output stream.
        offset: u64,
        /// The server asked for an abortive close (`SO_LINGER` 0): the client sees a reset.
        reset: bool,
    },
    /// The server has consumed the client's stream up to here: the input window moves.
    Consumed {
        /// The connection.
        conn: ConnId,
        /// Input stream position.
        upto: u64,
    },
    /// The server takes connections or datagrams; the node opens the port.
    Listen {
        /// Counts up from 1; never used again within a log.
        listener: u32,
        /// The address that the server bound.
        address: SocketAddr,
        /// Connections or datagrams.
        transport: Transport,
        /// The server left the port to us: nobody knows it beforehand.
        chosen: bool,
    },
    /// The server opens a connection to the outside; answered by
    /// [`crate::entry::Event::Connected`].
    Connect {
        /// The new connection.
        conn: ConnId,
        /// The destination.
        address: SocketAddr,
    },
    /// The server no longer listens.
    Unlisten {
        /// The listener.
        listener: u32,
    },
    /// A datagram of the server for somebody outside.
    Datagram {
        /// The frontend that is to send it: the one that `peer` was last heard through. 0: none was
        /// ever heard of, and the leader's node sends it of the server's own accord.
        frontend: u64,
        /// Counts up from 1 within the frontend, so that a server that replays sends nothing twice.
        number: u64,
        /// Whom the peer is to see as its sender.
        local: SocketAddr,
        /// The receiver.
        peer: SocketAddr,
        /// The payload.
        bytes: &'a [u8],
    },
    /// Datagrams from outside were dropped because the server did not read the earlier ones.
    Lost {
        /// Number of lost datagrams since the start.
        total: u64,
    },
    /// Entry `slot` has had its time: the server is idle, or the entry's clocks are used up.
    Done {
        /// The entry's slot.
        slot: u64,
        /// Schedule hash over everything from the start.
        schedule_hash: u64,
        /// Virtual time of the earliest timer, nanoseconds since the Unix epoch, or
        /// [`NO_DEADLINE`].
        deadline_ns: u64,
        /// Logical clock: ticks since the start.
        clock: u64,
        /// False when threads could still run: the next bubble is wanted at once.
        idle: bool,
        /// The last ordered operation; the record's thread made it.
        operation: u16,
    },
    /// An ordered operation begins. Only while the server is traced; left out of the output hash.
    Step {
        /// The operation's number.
        operation: u16,
        /// Logical clock, this operation included.
        clock: u64,
        /// Schedule hash over everything up to this operation.
        schedule_hash: u64,
        /// The last result of an operation that went into the hash.
        noted: u64,
    },
    /// The first process of the tree ended.
    Exit {
        /// The exit status in the encoding of `waitpid`.
        status: i32,
    },
    /// The server did something the interposer does not support; the server stops here.
    Fault {
        /// Description in one line.
        message: &'a [u8],
    },
    /// The seccomp filter is in place, or the kernel has refused it.
    SyscallFilter {
        /// The kernel's error; 0: it is in place.
        errno: i32,
    },
    /// A call site whose system calls the filter has caught. Written now and then, not for each
    /// call.
    Caught {
        /// Number of the system call.
        number: u32,
        /// Number of calls so far.
        count: u64,
        /// Place of the instruction after it, in the file.
        offset: u64,
        /// Name of the file that the code was loaded from; empty: from none, or it is not known.
        object: &'a [u8],
    },
}

impl Record<'_> {
    /// True for a record about the supervision of the server, not about what the server does:
    /// replicas may differ in these.
    #[must_use]
    pub const fn is_about_watching(&self) -> bool {
        matches!(self, Self::SyscallFilter { .. } | Self::Caught { .. })
    }
}

mod kind {
    pub const DATA: u16 = 1;
    pub const FIN: u16 = 2;
    pub const CLOSED: u16 = 3;
    pub const CONSUMED: u16 = 4;
    pub const LISTEN: u16 = 5;
    pub const UNLISTEN: u16 = 6;
    pub const DONE: u16 = 7;
    pub const EXIT: u16 = 8;
    pub const FAULT: u16 = 9;
    pub const DATAGRAM: u16 = 10;
    pub const LOST: u16 = 11;
    pub const CONNECT: u16 = 12;
    pub const STEP: u16 = 13;
    pub const SYSCALL_FILTER: u16 = 14;
    pub const CAUGHT: u16 = 15;
}

/// Largest payload of a record without bytes of the server in it.
const SMALL_PAYLOAD_BYTES: usize = 40;
/// Bytes of a `Datagram` before its payload: both addresses.
const DATAGRAM_PREFIX_BYTES: usize = 2 * ADDRESS_BYTES;

impl Record<'_> {
    /// Room on a ring that is enough for this record, in bytes.
    #[must_use]
    pub const fn room(&self) -> usize {
        record_bytes(match self {
            Self::Data { bytes, .. } => bytes.len(),
            Self::Datagram { bytes, .. } => DATAGRAM_PREFIX_BYTES + bytes.len(),
            Self::Fault { message } => message.len(),
            Self::Caught { object, .. } => object.len(),
            _ => SMALL_PAYLOAD_BYTES,
        })
    }
}

/// Bytes that a record with this payload takes on the ring.
#[must_use]
pub const fn record_bytes(payload_len: usize) -> usize {
    RECORD_HEADER_BYTES + padded(payload_len)
}
