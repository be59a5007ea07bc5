//! What the interposer answers: records on the output ring.
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
//! between replicas can be named; 0 where nobody in particular did.

use crate::ConnId;
use crate::entry::{ADDRESS_BYTES, EntryError, address_bytes, padded, read_address};
use core::net::SocketAddr;

/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 32;
/// `deadline_ns` of a server that waits for no timer.
pub const NO_DEADLINE: u64 = u64::MAX;

/// What a port of the server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transport {
    /// Connections (TCP).
    Stream = 0,
    /// Datagrams (UDP).
    Datagram = 1,
}

/// One record. Borrowed from the ring.
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
        /// Which of the two.
        transport: Transport,
        /// The server left the port to us: nobody knows it beforehand.
        chosen: bool,
    },
    /// The server opens a connection to the outside; answered by
    /// [`crate::entry::Event::Connected`].
    Connect {
        /// The new connection.
        conn: ConnId,
        /// Where it goes.
        address: SocketAddr,
    },
    /// The server no longer listens.
    Unlisten {
        /// The listener.
        listener: u32,
    },
    /// A datagram of the server for somebody outside.
    Datagram {
        /// The frontend that is to send it: the one that `peer` was last heard through. 0: none was ever
        /// heard of, and the leader's node sends it of the server's own accord.
        frontend: u64,
        /// Counts up from 1 within the frontend, so that a server that replays sends nothing twice.
        number: u64,
        /// Whom the peer is to see as its sender.
        local: SocketAddr,
        /// Where it goes.
        peer: SocketAddr,
        /// The payload.
        bytes: &'a [u8],
    },
    /// Datagrams from outside were dropped because the server did not read the earlier ones.
    Lost {
        /// How many since the start.
        total: u64,
    },
    /// Entry `slot` has had its time: the server is idle, or the entry's clocks are used up.
    Done {
        /// The entry's slot.
        slot: u64,
        /// Schedule hash over everything from the start.
        schedule_hash: u64,
        /// Virtual time of the earliest timer, nanoseconds since the Unix epoch, or [`NO_DEADLINE`].
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
        /// Its number.
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
        /// Its status as `waitpid` would give it.
        status: i32,
    },
    /// The server did something the interposer does not support; the server stops here.
    Fault {
        /// What, in one line.
        message: &'a [u8],
    },
    /// The seccomp filter is in place, or the kernel has refused it.
    Backstop {
        /// The kernel's error; 0: it is in place.
        errno: i32,
    },
    /// A call site whose system calls the filter has caught. Written now and then, not for each call.
    Caught {
        /// Number of the system call.
        number: u32,
        /// How often so far.
        count: u64,
        /// Place of the instruction after it, in the file.
        offset: u64,
        /// Name of the file that the code was loaded from; empty: from none, or it is not known.
        object: &'a [u8],
    },
}

impl Record<'_> {
    /// Whether this is about how the server is watched and not about what it does: such records are no
    /// part of the output that replicas have alike.
    #[must_use]
    pub const fn is_about_watching(&self) -> bool {
        matches!(self, Self::Backstop { .. } | Self::Caught { .. })
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
    pub const BACKSTOP: u16 = 14;
    pub const CAUGHT: u16 = 15;
}

/// The fixed part of a record, ready to be written.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u16,
    conn: ConnId,
    arg: u64,
}

/// Largest payload of a record without bytes of the server in it.
const SMALL_PAYLOAD_BYTES: usize = 40;
/// What a `Datagram` has before the bytes: both addresses.
const DATAGRAM_PREFIX_BYTES: usize = 2 * ADDRESS_BYTES;

impl Record<'_> {
    /// Bytes of a ring that are enough for this record.
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

/// Writes a record that nobody in particular caused; see [`encode_by`].
pub fn encode(record: &Record<'_>, put: impl FnMut(&[u8])) {
    encode_by(0, record, put);
}

/// Writes a record that `thread` caused as a header and a payload to `put`, which is called once for
/// each piece.
pub fn encode_by(thread: u16, record: &Record<'_>, mut put: impl FnMut(&[u8])) {
    let none = ConnId::default();
    let mut small = [0; SMALL_PAYLOAD_BYTES];
    let mut prefix = [0; DATAGRAM_PREFIX_BYTES];
    let mut before: &[u8] = &[];
    let (header, payload): (Header, &[u8]) = match *record {
        Record::Data {
            conn,
            offset,
            bytes,
        } => (
            Header {
                kind: kind::DATA,
                conn,
                arg: offset,
            },
            bytes,
        ),
        Record::Fin { conn, offset } => (
            Header {
                kind: kind::FIN,
                conn,
                arg: offset,
            },
            &[],
        ),
        Record::Closed {
            conn,
            offset,
            reset,
        } => {
            small[0] = u8::from(reset);
            (
                Header {
                    kind: kind::CLOSED,
                    conn,
                    arg: offset,
                },
                &small[..8],
            )
        }
        Record::Consumed { conn, upto } => (
            Header {
                kind: kind::CONSUMED,
                conn,
                arg: upto,
            },
            &[],
        ),
        Record::Listen {
            listener,
            address,
            transport,
            chosen,
        } => {
            small[..24].copy_from_slice(&address_bytes(address));
            small[24] = transport as u8;
            small[25] = u8::from(chosen);
            (
                Header {
                    kind: kind::LISTEN,
                    conn: none,
                    arg: u64::from(listener),
                },
                &small[..32],
            )
        }
        Record::Connect { conn, address } => {
            small[..24].copy_from_slice(&address_bytes(address));
            (
                Header {
                    kind: kind::CONNECT,
                    conn,
                    arg: 0,
                },
                &small[..24],
            )
        }
        Record::Unlisten { listener } => (
            Header {
                kind: kind::UNLISTEN,
                conn: none,
                arg: u64::from(listener),
            },
            &[],
        ),
        Record::Done {
            slot,
            schedule_hash,
            deadline_ns,
            clock,
            idle,
            operation,
        } => {
            small[0..8].copy_from_slice(&schedule_hash.to_le_bytes());
            small[8..16].copy_from_slice(&deadline_ns.to_le_bytes());
            small[16..24].copy_from_slice(&clock.to_le_bytes());
            small[24] = u8::from(idle);
            small[26..28].copy_from_slice(&operation.to_le_bytes());
            (
                Header {
                    kind: kind::DONE,
                    conn: none,
                    arg: slot,
                },
                &small[..32],
            )
        }
        Record::Datagram {
            frontend,
            number,
            local,
            peer,
            bytes,
        } => {
            let counter = number;
            prefix[..ADDRESS_BYTES].copy_from_slice(&address_bytes(local));
            prefix[ADDRESS_BYTES..].copy_from_slice(&address_bytes(peer));
            before = &prefix;
            (
                Header {
                    kind: kind::DATAGRAM,
                    conn: ConnId { frontend, counter },
                    arg: 0,
                },
                bytes,
            )
        }
        Record::Step {
            operation,
            clock,
            schedule_hash,
            noted,
        } => {
            small[0..8].copy_from_slice(&schedule_hash.to_le_bytes());
            small[8..16].copy_from_slice(&noted.to_le_bytes());
            small[16..18].copy_from_slice(&operation.to_le_bytes());
            (
                Header {
                    kind: kind::STEP,
                    conn: none,
                    arg: clock,
                },
                &small[..24],
            )
        }
        Record::Lost { total } => (
            Header {
                kind: kind::LOST,
                conn: none,
                arg: total,
            },
            &[],
        ),
        Record::Exit { status } => {
            let arg = u64::from(status.cast_unsigned());
            (
                Header {
                    kind: kind::EXIT,
                    conn: none,
                    arg,
                },
                &[],
            )
        }
        Record::Fault { message } => (
            Header {
                kind: kind::FAULT,
                conn: none,
                arg: 0,
            },
            message,
        ),
        Record::Backstop { errno } => (
            Header {
                kind: kind::BACKSTOP,
                conn: none,
                arg: u64::from(errno.cast_unsigned()),
            },
            &[],
        ),
        Record::Caught {
            number,
            count,
            offset,
            object,
        } => (
            Header {
                kind: kind::CAUGHT,
                conn: ConnId {
                    frontend: offset,
                    counter: count,
                },
                arg: u64::from(number),
            },
            object,
        ),
    };
    let len = before.len() + payload.len();
    let mut head = [0; RECORD_HEADER_BYTES];
    head[0..2].copy_from_slice(&header.kind.to_le_bytes());
    head[2..4].copy_from_slice(&thread.to_le_bytes());
    head[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    head[8..16].copy_from_slice(&header.conn.frontend.to_le_bytes());
    head[16..24].copy_from_slice(&header.conn.counter.to_le_bytes());
    head[24..32].copy_from_slice(&header.arg.to_le_bytes());
    put(&head);
    put(before);
    put(payload);
    put(&[0; 8][..padded(len) - len]);
}

/// Bytes that a record with this payload takes on the ring.
#[must_use]
pub const fn record_bytes(payload_len: usize) -> usize {
    RECORD_HEADER_BYTES + padded(payload_len)
}

/// The thread that caused the first record of `bytes`, which [`decode`] has found to be one.
#[must_use]
pub fn thread_of(bytes: &[u8]) -> u16 {
    bytes
        .get(2..4)
        .map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

/// Reads the first record of `bytes`; also returns how many bytes it took.
///
/// # Errors
/// The interposer publishes whole records only, so any error means a broken or foreign writer.
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), EntryError> {
    let u16_of = |b: &[u8], at: usize| -> Result<u16, EntryError> {
        let b = b.get(at..at + 2).ok_or(EntryError::Truncated)?;
        Ok(u16::from_le_bytes([b[0], b[1]]))
    };
    let u32_at = |at: usize| -> Result<u32, EntryError> {
        let b = bytes.get(at..at + 4).ok_or(EntryError::Truncated)?;
        Ok(u32::from_le_bytes(
            b.try_into().map_err(|_| EntryError::Truncated)?,
        ))
    };
    let u64_of = |b: &[u8], at: usize| -> Result<u64, EntryError> {
        let b = b.get(at..at + 8).ok_or(EntryError::Truncated)?;
        Ok(u64::from_le_bytes(
            b.try_into().map_err(|_| EntryError::Truncated)?,
        ))
    };
    let kind = u16_of(bytes, 0)?;
    let len = u32_at(4)? as usize;
    let conn = ConnId {
        frontend: u64_of(bytes, 8)?,
        counter: u64_of(bytes, 16)?,
    };
    let arg = u64_of(bytes, 24)?;
    let whole = bytes
        .get(..record_bytes(len))
        .ok_or(EntryError::Truncated)?;
    let payload = &whole[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + len];
    let small = |arg: u64| u32::try_from(arg).map_err(|_| EntryError::BadField);
    let flag = |at: usize| {
        payload
            .get(at)
            .map(|b| *b != 0)
            .ok_or(EntryError::Truncated)
    };
    let record = match kind {
        kind::DATA => Record::Data {
            conn,
            offset: arg,
            bytes: payload,
        },
        kind::FIN => Record::Fin { conn, offset: arg },
        kind::CLOSED => Record::Closed {
            conn,
            offset: arg,
            reset: flag(0)?,
        },
        kind::CONSUMED => Record::Consumed { conn, upto: arg },
        kind::LISTEN => Record::Listen {
            listener: small(arg)?,
            address: read_address(payload, 0)?,
            transport: match payload.get(ADDRESS_BYTES) {
                Some(0) => Transport::Stream,
                Some(1) => Transport::Datagram,
                Some(_) => return Err(EntryError::BadField),
                None => return Err(EntryError::Truncated),
            },
            chosen: flag(ADDRESS_BYTES + 1)?,
        },
        kind::CONNECT => Record::Connect {
            conn,
            address: read_address(payload, 0)?,
        },
        kind::DATAGRAM => Record::Datagram {
            frontend: conn.frontend,
            number: conn.counter,
            local: read_address(payload, 0)?,
            peer: read_address(payload, ADDRESS_BYTES)?,
            bytes: payload
                .get(DATAGRAM_PREFIX_BYTES..)
                .ok_or(EntryError::Truncated)?,
        },
        kind::LOST => Record::Lost { total: arg },
        kind::UNLISTEN => Record::Unlisten {
            listener: small(arg)?,
        },
        kind::DONE => Record::Done {
            slot: arg,
            schedule_hash: u64_of(payload, 0)?,
            deadline_ns: u64_of(payload, 8)?,
            clock: u64_of(payload, 16)?,
            idle: flag(24)?,
            operation: u16_of(payload, 26)?,
        },
        kind::STEP => Record::Step {
            operation: u16_of(payload, 16)?,
            clock: arg,
            schedule_hash: u64_of(payload, 0)?,
            noted: u64_of(payload, 8)?,
        },
        kind::EXIT => Record::Exit {
            status: small(arg)?.cast_signed(),
        },
        kind::FAULT => Record::Fault { message: payload },
        kind::BACKSTOP => Record::Backstop {
            errno: small(arg)?.cast_signed(),
        },
        kind::CAUGHT => Record::Caught {
            number: small(arg)?,
            count: conn.counter,
            offset: conn.frontend,
            object: payload,
        },
        other => return Err(EntryError::UnknownKind(other.to_le_bytes()[0])),
    };
    Ok((record, record_bytes(len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DATAGRAM_BYTES_MAX;
    use std::vec::Vec;

    static LARGEST: [u8; DATAGRAM_BYTES_MAX] = [7; DATAGRAM_BYTES_MAX];

    fn datagram(bytes: &[u8]) -> Record<'_> {
        Record::Datagram {
            frontend: 1,
            number: 3,
            local: "127.0.0.1:53".parse().unwrap(),
            peer: "[2001:db8::1]:40000".parse().unwrap(),
            bytes,
        }
    }

    #[test]
    fn records_survive_the_round_trip() {
        let conn = ConnId {
            frontend: 1,
            counter: 2,
        };
        let records = [
            Record::Data {
                conn,
                offset: 5,
                bytes: b"+PONG\r\n",
            },
            Record::Fin { conn, offset: 12 },
            Record::Closed {
                conn,
                offset: 12,
                reset: true,
            },
            Record::Consumed { conn, upto: 6 },
            Record::Listen {
                listener: 1,
                address: "0.0.0.0:6379".parse().unwrap(),
                transport: Transport::Stream,
                chosen: false,
            },
            Record::Listen {
                listener: 2,
                address: "[::]:53".parse().unwrap(),
                transport: Transport::Datagram,
                chosen: true,
            },
            datagram(b"answer"),
            datagram(b""),
            datagram(&LARGEST),
            Record::Connect {
                conn: ConnId {
                    frontend: crate::OUTGOING,
                    counter: 3,
                },
                address: "[2001:db8::1]:5432".parse().unwrap(),
            },
            Record::Unlisten { listener: 1 },
            Record::Lost { total: 4 },
            Record::Done {
                slot: 9,
                schedule_hash: 1,
                deadline_ns: 2,
                clock: 3,
                idle: true,
                operation: 4,
            },
            Record::Exit { status: -1 },
            Record::Fault { message: b"splice" },
            Record::Backstop { errno: 22 },
            Record::Caught {
                number: 202,
                count: 1024,
                offset: 0x1234,
                object: b"libc.so.6",
            },
        ];
        let mut bytes = Vec::new();
        for (thread, record) in (7..).zip(&records) {
            let before = bytes.len();
            encode_by(thread, record, |piece| bytes.extend_from_slice(piece));
            assert!(bytes.len() - before <= record.room(), "{record:?}");
        }
        let mut rest = &bytes[..];
        for (thread, record) in (7..).zip(&records) {
            let (read, used) = decode(rest).unwrap();
            assert_eq!((read, thread_of(rest)), (*record, thread));
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn every_truncation_is_an_error_and_no_byte_is_trusted() {
        let listen = Record::Listen {
            listener: 2,
            address: "[::]:53".parse().unwrap(),
            transport: Transport::Datagram,
            chosen: false,
        };
        for record in [listen, datagram(b"answer")] {
            let mut bytes = Vec::new();
            encode(&record, |piece| bytes.extend_from_slice(piece));
            for cut in 0..bytes.len() {
                assert!(decode(&bytes[..cut]).is_err(), "cut to {cut}: {record:?}");
            }
            for at in 0..bytes.len() {
                let mut broken = bytes.clone();
                broken[at] = 0xFF;
                // Any answer will do, but no panic.
                let _ = decode(&broken);
            }
        }
    }
}
