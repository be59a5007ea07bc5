//! The encoding of a log entry: time, clocks and events.
//!
//! All integers are little-endian and every item starts on a multiple of eight bytes, so the same
//! bytes are the consensus value, the journal payload and the tape frame, and nobody re-encodes.
//!
//! ```text
//! entry  := time_ns u64 | clocks u32 | event_count u32 | event*
//! event  := kind u8, flags u8, u16 0 | payload_len u32 | frontend u64 | counter u64 | arg u64
//!           | payload, padded with zeros to a multiple of 8
//! ```

mod address;
#[cfg(feature = "alloc")]
mod build;
#[cfg(all(test, feature = "alloc"))]
mod tests;

pub use address::{ADDRESS_BYTES, address_bytes, read_address};
#[cfg(feature = "alloc")]
pub use build::EntryBuilder;

use crate::ConnId;
use core::net::SocketAddr;

/// Bytes of an entry before its first event.
pub const ENTRY_HEADER_BYTES: usize = 16;
/// Bytes of an event before its payload.
pub const EVENT_HEADER_BYTES: usize = 32;

/// The two ways in which a client ends its side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseHow {
    /// End of stream after `offset` bytes; the client still reads.
    Fin = 0,
    /// The client is gone; nothing more will be read or written.
    Reset = 1,
}

/// An event of an entry. Borrowed from the encoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A client connected. Ignored when `conn.counter` is not greater than every one opened by the
    /// same frontend before (a resend).
    Open {
        /// The new connection.
        conn: ConnId,
        /// The listener's id, from [`crate::record::Record::Listen`].
        listener: u32,
        /// The client's address, as the server will see it.
        peer: SocketAddr,
        /// The address the client connected to.
        local: SocketAddr,
    },
    /// Bytes from a client. Resends are cut by [`crate::stream_step`].
    Data {
        /// The connection.
        conn: ConnId,
        /// Position of the first byte in the client's stream.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A client closed. A `Fin` counts only when `offset` is the next expected byte.
    Close {
        /// The connection.
        conn: ConnId,
        /// Length of the client's stream.
        offset: u64,
        /// End of stream or reset.
        how: CloseHow,
    },
    /// The client has received all output bytes before `upto`: the window moves, unacknowledged
    /// output before it may be dropped.
    Credit {
        /// The connection.
        conn: ConnId,
        /// Output stream position; absolute, so that a resend does no harm.
        upto: u64,
    },
    /// A datagram from outside. Ignored when `number` is not greater than every one of the same
    /// frontend before (a resend).
    Datagram {
        /// The frontend that got it.
        frontend: u64,
        /// Counts up from 1 within the frontend, apart from connections; numbers may be missing.
        number: u64,
        /// The sender.
        peer: SocketAddr,
        /// The address that it was sent to.
        local: SocketAddr,
        /// The payload.
        bytes: &'a [u8],
    },
    /// A connection that the server opens ([`crate::record::Record::Connect`]) was answered.
    /// Ignored when it was answered before, or when the log does not know the owner (any more).
    Connected {
        /// The connection.
        conn: ConnId,
        /// The frontend that has it.
        owner: u64,
        /// The connection's own address, or the number of the error (an `errno`).
        outcome: Result<SocketAddr, u8>,
    },
    /// Node `node` has started with a new frontend: every connection of an earlier frontend of that
    /// node is reset.
    FrontendUp {
        /// The node.
        node: u64,
        /// The node's frontend from now on.
        frontend: u64,
    },
    /// A frontend is gone for good: all its connections are reset.
    FrontendGone {
        /// The frontend.
        frontend: u64,
    },
    /// An operator's signal for the server.
    Signal {
        /// The signal's number, 1 to 64.
        signal: u32,
    },
}

mod kind {
    pub const OPEN: u8 = 1;
    pub const DATA: u8 = 2;
    pub const CLOSE: u8 = 3;
    pub const CREDIT: u8 = 4;
    pub const FRONTEND_UP: u8 = 5;
    pub const FRONTEND_GONE: u8 = 6;
    pub const SIGNAL: u8 = 7;
    pub const DATAGRAM: u8 = 8;
    pub const CONNECTED: u8 = 9;
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// Fewer bytes than the lengths in them say.
    Truncated,
    /// An event kind that this version does not know.
    UnknownKind(u8),
    /// A field has an impossible value.
    BadField,
    /// Bytes after the last event.
    Trailing,
}

impl core::fmt::Display for EntryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => write!(f, "entry is cut short"),
            Self::UnknownKind(kind) => write!(f, "entry has an event of unknown kind {kind}"),
            Self::BadField => write!(f, "entry has a field with an impossible value"),
            Self::Trailing => write!(f, "entry has bytes after its last event"),
        }
    }
}

impl core::error::Error for EntryError {}

/// Rounds up to the alignment of items.
#[must_use]
pub const fn padded(len: usize) -> usize {
    (len + 7) & !7
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A view of an encoded entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Leader's wall clock, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Logical clock ticks that may run after this entry is admitted.
    pub clocks: u32,
    /// Number of events.
    pub event_count: u32,
    events: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads the header. The events are checked one by one as they are read.
    ///
    /// # Errors
    /// [`EntryError::Truncated`] when there is no whole header.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let time_ns = u64_at(bytes, 0).ok_or(EntryError::Truncated)?;
        let clocks = u32_at(bytes, 8).ok_or(EntryError::Truncated)?;
        let event_count = u32_at(bytes, 12).ok_or(EntryError::Truncated)?;
        Ok(Self {
            time_ns,
            clocks,
            event_count,
            events: &bytes[ENTRY_HEADER_BYTES..],
        })
    }

    /// The events, in order. An error ends the iteration.
    #[must_use]
    pub fn events(&self) -> Events<'a> {
        Events {
            rest: self.events,
            left: self.event_count,
        }
    }
}

/// Iterator over the events of an entry.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, EntryError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let trailing = !self.rest.is_empty();
            self.rest = &[];
            return trailing.then_some(Err(EntryError::Trailing));
        }
        self.left -= 1;
        let result = split_event(self.rest).and_then(|(event, rest)| {
            self.rest = rest;
            event
        });
        if result.is_err() {
            self.left = 0;
            self.rest = &[];
        }
        Some(result)
    }
}

type Split<'a> = Result<(Result<Event<'a>, EntryError>, &'a [u8]), EntryError>;

fn split_event(bytes: &[u8]) -> Split<'_> {
    if bytes.len() < EVENT_HEADER_BYTES {
        return Err(EntryError::Truncated);
    }
    let (header, rest) = bytes.split_at(EVENT_HEADER_BYTES);
    let len = u32_at(header, 4).ok_or(EntryError::Truncated)? as usize;
    let whole = padded(len);
    if rest.len() < whole {
        return Err(EntryError::Truncated);
    }
    let (payload, rest) = rest.split_at(whole);
    Ok((decode_event(header, &payload[..len]), rest))
}

fn decode_event<'a>(header: &[u8], payload: &'a [u8]) -> Result<Event<'a>, EntryError> {
    let word = |at| u64_at(header, at).ok_or(EntryError::Truncated);
    let conn = ConnId {
        frontend: word(8)?,
        counter: word(16)?,
    };
    let arg = word(24)?;
    Ok(match header[0] {
        kind::OPEN => Event::Open {
            conn,
            listener: u32::try_from(arg).map_err(|_| EntryError::BadField)?,
            peer: read_address(payload, 0)?,
            local: read_address(payload, ADDRESS_BYTES)?,
        },
        kind::DATA => Event::Data {
            conn,
            offset: arg,
            bytes: payload,
        },
        kind::CLOSE => Event::Close {
            conn,
            offset: arg,
            how: match header[1] {
                0 => CloseHow::Fin,
                1 => CloseHow::Reset,
                _ => return Err(EntryError::BadField),
            },
        },
        kind::CREDIT => Event::Credit { conn, upto: arg },
        kind::DATAGRAM => Event::Datagram {
            frontend: conn.frontend,
            number: conn.counter,
            peer: read_address(payload, 0)?,
            local: read_address(payload, ADDRESS_BYTES)?,
            bytes: payload
                .get(2 * ADDRESS_BYTES..)
                .ok_or(EntryError::Truncated)?,
        },
        kind::CONNECTED => Event::Connected {
            conn,
            owner: arg,
            outcome: match header[1] {
                0 => Ok(read_address(payload, 0)?),
                errno => Err(errno),
            },
        },
        kind::FRONTEND_UP => Event::FrontendUp {
            node: arg,
            frontend: conn.frontend,
        },
        kind::FRONTEND_GONE => Event::FrontendGone {
            frontend: conn.frontend,
        },
        kind::SIGNAL => Event::Signal {
            signal: u32::try_from(arg)
                .ok()
                .filter(|signal| (1..=64).contains(signal))
                .ok_or(EntryError::BadField)?,
        },
        other => return Err(EntryError::UnknownKind(other)),
    })
}
