//! One log entry: `{ time, clocks, events[] }` (DESIGN section 3), as bytes.
//!
//! All integers are little-endian and every item starts on a multiple of eight bytes, so the same
//! bytes are the consensus value, the journal payload and the tape frame, and nobody re-encodes.
//!
//! ```text
//! entry  := time_ns u64 | clocks u32 | event_count u32 | event*
//! event  := kind u8, flags u8, u16 0 | payload_len u32 | frontend u64 | counter u64 | arg u64
//!           | payload, padded with zeros to a multiple of 8
//! ```

use crate::ConnId;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of an entry before its first event.
pub const ENTRY_HEADER_BYTES: usize = 16;
/// Bytes of an event before its payload.
pub const EVENT_HEADER_BYTES: usize = 32;
/// Bytes of an encoded address.
pub const ADDRESS_BYTES: usize = 24;

/// How a client ended its side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseHow {
    /// End of stream after `offset` bytes; the client still reads.
    Fin = 0,
    /// The client is gone; nothing more will be read or written.
    Reset = 1,
}

/// One event of an entry. Borrowed from the encoded bytes.
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
        /// How.
        how: CloseHow,
    },
    /// The client has received all output bytes before `upto`: the window moves, retained output
    /// before it may be dropped.
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
        /// Its sender.
        peer: SocketAddr,
        /// The address that it was sent to.
        local: SocketAddr,
        /// The payload.
        bytes: &'a [u8],
    },
    /// A connection that the server opens ([`crate::record::Record::Connect`]) was answered. Ignored when
    /// it was answered before, or when the log does not know the owner (any more).
    Connected {
        /// The connection.
        conn: ConnId,
        /// The frontend that has it.
        owner: u64,
        /// Its own address, or the number of the error (an `errno`).
        outcome: Result<SocketAddr, u8>,
    },
    /// Node `node` has started with a new frontend: every connection of an earlier frontend of that
    /// node is reset.
    FrontendUp {
        /// The node.
        node: u64,
        /// Its frontend from now on.
        frontend: u64,
    },
    /// A frontend is gone for good: all its connections are reset.
    FrontendGone {
        /// The frontend.
        frontend: u64,
    },
    /// An operator's signal for the server.
    Signal {
        /// Its number, 1 to 64.
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
    /// A field has a value that it can't have.
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

/// `family u16 (4 or 6) | port u16 | scope u32 | address 16 bytes`
///
/// # Errors
/// Too few bytes from `at` on, or a family that there is not.
pub fn read_address(bytes: &[u8], at: usize) -> Result<SocketAddr, EntryError> {
    let b = bytes
        .get(at..at + ADDRESS_BYTES)
        .ok_or(EntryError::Truncated)?;
    let port = u16::from_le_bytes([b[2], b[3]]);
    let ip = match b[0] {
        4 => IpAddr::V4(Ipv4Addr::new(b[8], b[9], b[10], b[11])),
        6 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&b[8..24]);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return Err(EntryError::BadField),
    };
    Ok(SocketAddr::new(ip, port))
}

/// The encoding that [`read_address`] reads.
#[must_use]
pub fn address_bytes(address: SocketAddr) -> [u8; ADDRESS_BYTES] {
    let mut b = [0; ADDRESS_BYTES];
    b[2..4].copy_from_slice(&address.port().to_le_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            b[0] = 4;
            b[8..12].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            b[0] = 6;
            b[8..24].copy_from_slice(&ip.octets());
        }
    }
    b
}

#[cfg(feature = "alloc")]
pub use build::EntryBuilder;

#[cfg(feature = "alloc")]
mod build {
    use super::{
        ADDRESS_BYTES, CloseHow, ConnId, ENTRY_HEADER_BYTES, EVENT_HEADER_BYTES, Event,
        address_bytes, kind, padded,
    };
    use alloc::vec::Vec;
    use core::net::SocketAddr;

    fn both(peer: SocketAddr, local: SocketAddr) -> [u8; 2 * ADDRESS_BYTES] {
        let mut bytes = [0; 2 * ADDRESS_BYTES];
        bytes[..ADDRESS_BYTES].copy_from_slice(&address_bytes(peer));
        bytes[ADDRESS_BYTES..].copy_from_slice(&address_bytes(local));
        bytes
    }

    /// Collects events into the encoding of one entry. Reusable: [`EntryBuilder::finish`] leaves it empty.
    #[derive(Debug)]
    pub struct EntryBuilder {
        bytes: Vec<u8>,
        count: u32,
    }

    impl Default for EntryBuilder {
        fn default() -> Self {
            let mut bytes = Vec::with_capacity(4096);
            bytes.resize(ENTRY_HEADER_BYTES, 0);
            Self { bytes, count: 0 }
        }
    }

    impl EntryBuilder {
        /// An empty entry.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }

        /// Number of events so far.
        #[must_use]
        pub fn event_count(&self) -> u32 {
            self.count
        }

        /// Size of the encoding so far, in bytes.
        #[must_use]
        pub fn len(&self) -> usize {
            self.bytes.len()
        }

        /// True when no event was added.
        #[must_use]
        pub fn is_empty(&self) -> bool {
            self.count == 0
        }

        /// The encoded events so far (for sending them on as they are).
        #[must_use]
        pub fn encoded_events(&self) -> &[u8] {
            &self.bytes[ENTRY_HEADER_BYTES..]
        }

        /// Appends `count` events that are already encoded.
        pub fn push_encoded(&mut self, count: u32, events: &[u8]) {
            self.bytes.extend_from_slice(events);
            self.count += count;
        }

        /// Appends one event.
        pub fn push(&mut self, event: &Event<'_>) {
            match *event {
                Event::Open {
                    conn,
                    listener,
                    peer,
                    local,
                } => {
                    let addresses = both(peer, local);
                    self.put(kind::OPEN, 0, conn, u64::from(listener), &[&addresses]);
                }
                Event::Datagram {
                    frontend,
                    number: counter,
                    peer,
                    local,
                    bytes,
                } => {
                    let addresses = both(peer, local);
                    let conn = ConnId { frontend, counter };
                    self.put(kind::DATAGRAM, 0, conn, 0, &[&addresses, bytes]);
                }
                Event::Connected {
                    conn,
                    owner,
                    outcome: Ok(local),
                } => {
                    let payload = address_bytes(local);
                    self.put(kind::CONNECTED, 0, conn, owner, &[&payload]);
                }
                Event::Connected {
                    conn,
                    owner,
                    outcome: Err(errno),
                } => self.put(kind::CONNECTED, errno.max(1), conn, owner, &[]),
                Event::Data {
                    conn,
                    offset,
                    bytes,
                } => {
                    self.put(kind::DATA, 0, conn, offset, &[bytes]);
                }
                Event::Close { conn, offset, how } => {
                    let flags = match how {
                        CloseHow::Fin => 0,
                        CloseHow::Reset => 1,
                    };
                    self.put(kind::CLOSE, flags, conn, offset, &[]);
                }
                Event::Credit { conn, upto } => self.put(kind::CREDIT, 0, conn, upto, &[]),
                Event::FrontendUp { node, frontend } => {
                    self.put(
                        kind::FRONTEND_UP,
                        0,
                        ConnId {
                            frontend,
                            counter: 0,
                        },
                        node,
                        &[],
                    );
                }
                Event::FrontendGone { frontend } => {
                    self.put(
                        kind::FRONTEND_GONE,
                        0,
                        ConnId {
                            frontend,
                            counter: 0,
                        },
                        0,
                        &[],
                    );
                }
                Event::Signal { signal } => {
                    let nobody = ConnId {
                        frontend: 0,
                        counter: 0,
                    };
                    self.put(kind::SIGNAL, 0, nobody, u64::from(signal), &[]);
                }
            }
        }

        /// Writes the header and the pieces of the payload.
        fn put(&mut self, kind: u8, flags: u8, conn: ConnId, arg: u64, payload: &[&[u8]]) {
            let whole = payload.iter().map(|piece| piece.len()).sum();
            let len = u32::try_from(whole).unwrap_or(u32::MAX);
            assert!(len < u32::MAX, "an event payload is far below 4 GiB");
            let mut header = [0; EVENT_HEADER_BYTES];
            header[0] = kind;
            header[1] = flags;
            header[4..8].copy_from_slice(&len.to_le_bytes());
            header[8..16].copy_from_slice(&conn.frontend.to_le_bytes());
            header[16..24].copy_from_slice(&conn.counter.to_le_bytes());
            header[24..32].copy_from_slice(&arg.to_le_bytes());
            self.bytes.extend_from_slice(&header);
            for piece in payload {
                self.bytes.extend_from_slice(piece);
            }
            self.bytes
                .extend_from_slice(&[0; 8][..padded(whole) - whole]);
            self.count += 1;
        }

        /// Takes the finished entry out.
        #[must_use]
        pub fn finish(&mut self, time_ns: u64, clocks: u32) -> Vec<u8> {
            let mut done = core::mem::take(self);
            done.bytes[0..8].copy_from_slice(&time_ns.to_le_bytes());
            done.bytes[8..12].copy_from_slice(&clocks.to_le_bytes());
            done.bytes[12..16].copy_from_slice(&done.count.to_le_bytes());
            done.bytes
        }
    }
}

#[cfg(all(test, feature = "alloc"))]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use std::vec::Vec;

    const CONN: ConnId = ConnId {
        frontend: 7,
        counter: 9,
    };

    fn sample() -> Vec<Event<'static>> {
        std::vec![
            Event::FrontendUp {
                node: 2,
                frontend: 7
            },
            Event::Open {
                conn: CONN,
                listener: 3,
                peer: "127.0.0.9:50000".parse().unwrap(),
                local: "[::1]:6379".parse().unwrap(),
            },
            Event::Data {
                conn: CONN,
                offset: 0,
                bytes: b"PING\r\n"
            },
            Event::Data {
                conn: CONN,
                offset: 6,
                bytes: b""
            },
            Event::Credit {
                conn: CONN,
                upto: 77
            },
            Event::Close {
                conn: CONN,
                offset: 6,
                how: CloseHow::Fin
            },
            Event::Close {
                conn: CONN,
                offset: 6,
                how: CloseHow::Reset
            },
            Event::Datagram {
                frontend: 7,
                number: 12,
                peer: "127.0.0.9:50000".parse().unwrap(),
                local: "[::1]:53".parse().unwrap(),
                bytes: b"query",
            },
            Event::Datagram {
                frontend: 7,
                number: 14,
                peer: "[2001:db8::1]:1".parse().unwrap(),
                local: "10.0.0.1:53".parse().unwrap(),
                bytes: b"",
            },
            Event::Connected {
                conn: CONN,
                owner: 11,
                outcome: Ok("10.0.0.1:40000".parse().unwrap()),
            },
            Event::Connected {
                conn: CONN,
                owner: 12,
                outcome: Err(111),
            },
            Event::FrontendGone { frontend: 7 },
            Event::Signal { signal: 15 },
        ]
    }

    fn encoded() -> Vec<u8> {
        let mut builder = EntryBuilder::new();
        for event in sample() {
            builder.push(&event);
        }
        builder.finish(123, 456)
    }

    #[test]
    fn what_is_built_is_read_back() {
        let bytes = encoded();
        let entry = Entry::parse(&bytes).unwrap();
        assert_eq!(
            (entry.time_ns, entry.clocks, entry.event_count),
            (123, 456, 13)
        );
        let events: Result<Vec<_>, _> = entry.events().collect();
        assert_eq!(events.unwrap(), sample());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = encoded();
        for cut in 0..bytes.len() {
            let whole = Entry::parse(&bytes[..cut])
                .is_ok_and(|entry| entry.events().all(|event| event.is_ok()));
            assert!(!whole, "an entry cut to {cut} bytes was taken for whole");
        }
    }

    #[test]
    fn trailing_bytes_and_unknown_kinds_are_errors() {
        let mut bytes = encoded();
        bytes.extend_from_slice(&[0; 8]);
        let last = Entry::parse(&bytes).unwrap().events().last();
        assert_eq!(last, Some(Err(EntryError::Trailing)));
        let mut bytes = encoded();
        bytes[ENTRY_HEADER_BYTES] = 200;
        let first = Entry::parse(&bytes).unwrap().events().next();
        assert_eq!(first, Some(Err(EntryError::UnknownKind(200))));
    }

    #[test]
    fn the_largest_datagram_fits_an_entry() {
        let bytes = std::vec![9; crate::DATAGRAM_BYTES_MAX];
        let event = Event::Datagram {
            frontend: 1,
            number: 1,
            peer: "[::1]:1".parse().unwrap(),
            local: "[::1]:2".parse().unwrap(),
            bytes: &bytes,
        };
        let mut builder = EntryBuilder::new();
        builder.push(&event);
        let entry = builder.finish(1, 1);
        assert!(entry.len() < crate::ENTRY_BYTES_MAX);
        let read = Entry::parse(&entry).unwrap().events().next();
        assert_eq!(read, Some(Ok(event)));
    }
}
