//! Unacknowledged output: every node keeps the server's output for connections of stand-alone
//! frontends until the frontend has acknowledged it. When its node dies, the frontend goes on at
//! any other node, at its own position.

use crate::clients::connection::ByteQueue;
use crate::clients::connection_table::ConnectionTable;
use crate::clients::id_map::IdMap;
use crate::clients::saved::{self, SavedOutput};
use brolga_tape::entry::{CloseHow, Event};
use brolga_tape::record::{Record, encode};
use brolga_tape::{ConnId, StreamStep, stream_step};

/// Largest piece of unacked output in one record.
const PIECE_BYTES: usize = 256 * 1024;

/// The output of one connection.
#[derive(Debug, Default)]
struct Held {
    /// Position of the first byte held.
    base: u64,
    bytes: ByteQueue,
    consumed: u64,
    fin: bool,
    closed: Option<bool>,
}

impl Held {
    fn next(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    fn drop_before(&mut self, upto: u64) {
        let fresh = upto.saturating_sub(self.base);
        let fresh = usize::try_from(fresh).unwrap_or(usize::MAX);
        let fresh = fresh.min(self.bytes.len());
        self.bytes.consume(fresh);
        self.base += fresh as u64;
    }
}

/// The output of all connections of stand-alone frontends.
#[derive(Debug, Default)]
pub struct UnackedOutput {
    held: IdMap<ConnId, Held>,
}

impl UnackedOutput {
    /// The server did something to a connection of a stand-alone frontend.
    pub fn record(&mut self, conn: ConnId, record: &Record<'_>, conns: &ConnectionTable) {
        let held = match (self.held.get_mut(&conn), conns.get(conn)) {
            (Some(held), _) => held,
            (None, Some(open)) => {
                let base = open.credit;
                let fresh = Held {
                    base,
                    ..Held::default()
                };
                self.held.entry(conn).or_insert(fresh)
            }
            // Gone for the stand-alone frontend already: this is a replay.
            (None, None) => return,
        };
        match *record {
            Record::Data { offset, bytes, .. } => {
                if let StreamStep::Take(seen) = stream_step(held.next(), offset, bytes.len()) {
                    held.bytes.push(&bytes[seen..]);
                }
            }
            Record::Consumed { upto, .. } => held.consumed = upto,
            Record::Fin { .. } => held.fin = true,
            Record::Closed { reset, .. } => held.closed = Some(reset),
            _ => {}
        }
    }

    /// Takes note of a committed event: what the stand-alone frontend has got is dropped.
    pub fn event(&mut self, event: &Event<'_>) {
        match *event {
            Event::Credit { conn, upto } => {
                if let Some(held) = self.held.get_mut(&conn) {
                    held.drop_before(upto);
                }
            }
            Event::Close {
                conn,
                how: CloseHow::Reset,
                ..
            } => {
                self.held.remove(&conn);
            }
            Event::FrontendGone { frontend } => {
                self.held.retain(|conn, _| conn.frontend != frontend);
            }
            _ => {}
        }
    }

    /// All of it, for a checkpoint.
    pub fn save(&self) -> Vec<SavedOutput> {
        let output = |(conn, held): (&ConnId, &Held)| SavedOutput {
            id: saved::id(*conn),
            base: held.base,
            bytes: held.bytes.as_slice().to_vec(),
            consumed: held.consumed,
            fin: held.fin,
            closed: held.closed,
        };
        let mut saved: Vec<_> = self.held.iter().map(output).collect();
        saved.sort_unstable_by_key(|output| output.id);
        saved
    }

    /// As it was when it was saved.
    pub fn load(saved: Vec<SavedOutput>) -> Self {
        let held = saved.into_iter().map(|output| {
            let mut bytes = ByteQueue::default();
            bytes.push(&output.bytes);
            let held = Held {
                base: output.base,
                bytes,
                consumed: output.consumed,
                fin: output.fin,
                closed: output.closed,
            };
            (saved::conn_of(output.id), held)
        });
        Self {
            held: held.collect(),
        }
    }

    /// True when output of this connection is, or was and may still be, wanted.
    pub fn knows(&self, conn: ConnId) -> bool {
        self.held.contains_key(&conn)
    }

    /// Encodes everything about `conn` from output position `from` on.
    pub fn replay(&self, conn: ConnId, from: u64, out: &mut Vec<u8>) {
        let Some(held) = self.held.get(&conn) else {
            return;
        };
        let mut put = |record: &Record<'_>| encode(record, |piece| out.extend_from_slice(piece));
        if held.consumed > 0 {
            let upto = held.consumed;
            put(&Record::Consumed { conn, upto });
        }
        let mut offset = held.base;
        for bytes in held.bytes.as_slice().chunks(PIECE_BYTES) {
            if offset + bytes.len() as u64 > from {
                put(&Record::Data {
                    conn,
                    offset,
                    bytes,
                });
            }
            offset += bytes.len() as u64;
        }
        if held.fin {
            put(&Record::Fin { conn, offset });
        }
        if let Some(reset) = held.closed {
            put(&Record::Closed {
                conn,
                offset,
                reset,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_tape::record::decode;

    const CONN: ConnId = ConnId {
        frontend: 7,
        counter: 1,
    };

    fn data(offset: u64, bytes: &[u8]) -> Record<'_> {
        Record::Data {
            conn: CONN,
            offset,
            bytes,
        }
    }

    fn open() -> ConnectionTable {
        let address = "127.0.0.1:1".parse().unwrap();
        let mut conns = ConnectionTable::new();
        conns.apply(&Event::Open {
            conn: CONN,
            listener: 1,
            peer: address,
            local: address,
        });
        conns
    }

    #[test]
    fn output_is_held_until_it_is_credited_and_given_again_from_any_position() {
        let conns = open();
        let mut unacked = UnackedOutput::default();
        unacked.record(CONN, &data(0, b"hello "), &conns);
        unacked.record(CONN, &data(6, b"world"), &conns);
        unacked.record(CONN, &data(0, b"hello "), &conns);
        unacked.event(&Event::Credit {
            conn: CONN,
            upto: 3,
        });
        let closed = Record::Closed {
            conn: CONN,
            offset: 11,
            reset: false,
        };
        unacked.record(CONN, &closed, &conns);
        let mut out = Vec::new();
        unacked.replay(CONN, 4, &mut out);
        let (first, used) = decode(&out).unwrap();
        assert_eq!(first, data(3, b"lo world"));
        assert_eq!(decode(&out[used..]).unwrap().0, closed);
        unacked.event(&Event::Close {
            conn: CONN,
            offset: 0,
            how: CloseHow::Reset,
        });
        assert!(!unacked.knows(CONN));
    }

    #[test]
    fn a_replay_of_a_connection_that_is_gone_is_not_held() {
        let mut conns = open();
        conns.apply(&Event::FrontendGone { frontend: 7 });
        let mut unacked = UnackedOutput::default();
        unacked.record(CONN, &data(0, b"old"), &conns);
        assert!(!unacked.knows(CONN));
    }
}
