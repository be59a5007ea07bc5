//! The encoder of entries, which needs a heap.

use super::{
    ADDRESS_BYTES, ConnId, ENTRY_HEADER_BYTES, EVENT_HEADER_BYTES, Event, address_bytes, kind,
    padded,
};
use alloc::vec::Vec;
use core::net::SocketAddr;

fn both(peer: SocketAddr, local: SocketAddr) -> [u8; 2 * ADDRESS_BYTES] {
    let mut bytes = [0; 2 * ADDRESS_BYTES];
    bytes[..ADDRESS_BYTES].copy_from_slice(&address_bytes(peer));
    bytes[ADDRESS_BYTES..].copy_from_slice(&address_bytes(local));
    bytes
}

/// No connection of `frontend` in particular.
const fn all_of(frontend: u64) -> ConnId {
    ConnId {
        frontend,
        counter: 0,
    }
}

/// Collects events into the encoding of one entry. Reusable: [`EntryBuilder::finish`] leaves it
/// empty.
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
                outcome,
            } => match outcome {
                Ok(local) => self.put(kind::CONNECTED, 0, conn, owner, &[&address_bytes(local)]),
                Err(errno) => self.put(kind::CONNECTED, errno.max(1), conn, owner, &[]),
            },
            Event::Data {
                conn,
                offset,
                bytes,
            } => self.put(kind::DATA, 0, conn, offset, &[bytes]),
            Event::Close { conn, offset, how } => {
                self.put(kind::CLOSE, how as u8, conn, offset, &[]);
            }
            Event::Credit { conn, upto } => self.put(kind::CREDIT, 0, conn, upto, &[]),
            Event::FrontendUp { node, frontend } => {
                self.put(kind::FRONTEND_UP, 0, all_of(frontend), node, &[]);
            }
            Event::FrontendGone { frontend } => {
                self.put(kind::FRONTEND_GONE, 0, all_of(frontend), 0, &[]);
            }
            Event::Signal { signal } => {
                self.put(kind::SIGNAL, 0, all_of(0), u64::from(signal), &[]);
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
