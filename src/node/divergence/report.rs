//! The divergence report: where two replicas differ first, in words: slot, connection, position,
//! thread, both values.

use crate::clients::connection_table::ConnectionTable;
use crate::divergence::agreement::Dispute;
use crate::server::hashes::SlotHashes;
use crate::server::recent_outputs::RecentOutputs;
use brolga_tape::record::{Record, decode, thread_of};
use brolga_tape::{ConnId, OUTGOING, operation};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of output that are shown of each side.
const SHOWN_BYTES: usize = 24;
/// Records of a slot that are compared.
pub const RECORDS_MAX: usize = 8192;

/// The first difference between two replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DivergenceReport {
    /// The slot.
    pub slot: u64,
    /// The slots before it are known to be equal; otherwise they are forgotten.
    pub exact: bool,
    /// The node that tells this.
    pub node: u64,
    /// The other one.
    pub peer: u64,
    /// Hashes of the node.
    pub ours: SlotHashes,
    /// Hashes of the other.
    pub theirs: SlotHashes,
    /// The replicas that a majority has found wrong; empty while there is no majority.
    pub minority: Vec<u64>,
    /// The operation that differs; `None` until the other has told, or when it is forgotten.
    pub place: Option<Location>,
    /// Microseconds from the moment this node's server had computed the slot until a majority's
    /// verdict was known.
    pub judged_after_us: Option<u64>,
    /// Microseconds from the same moment until `place` was known.
    pub named_after_us: Option<u64>,
}

/// The operation that two servers did differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The connection, when one is concerned.
    pub connection: Option<Connection>,
    /// Position in the connection's output stream, when bytes differ.
    pub offset: Option<u64>,
    /// The thread of the node's server, as its scheduler counts threads; 0 for none.
    pub thread: u16,
    /// The thread of the other's.
    pub their_thread: u16,
    /// The node's operation, in words.
    pub ours: String,
    /// The other's operation, in words.
    pub theirs: String,
}

/// A client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Frontend that it came to.
    pub frontend: u64,
    /// Number of the connection there, from 1.
    pub counter: u64,
    /// The node of the frontend; `None` when the frontend stands alone or is gone.
    pub node: Option<u64>,
}

impl DivergenceReport {
    /// Begins the report on a dispute.
    pub fn new(node: u64, dispute: &Dispute) -> Self {
        Self {
            slot: dispute.slot,
            exact: dispute.exact,
            node,
            peer: dispute.with,
            ours: dispute.ours,
            theirs: dispute.theirs,
            minority: Vec::new(),
            place: None,
            judged_after_us: None,
            named_after_us: None,
        }
    }
}

/// Finds the first record in which this server differs from one with these output hashes; gives its
/// number, and the record if there is one. `None`: the slot is forgotten.
pub fn first_difference(
    slot: u64,
    theirs: &[u64],
    recent: &RecentOutputs,
) -> Option<(usize, Option<Vec<u8>>)> {
    let ours = recent.hashes(slot, RECORDS_MAX);
    if ours.is_empty() {
        return None;
    }
    let same = ours
        .iter()
        .zip(theirs)
        .take_while(|(one, other)| one == other);
    let index = same.count();
    Some((index, recent.record(slot, index)))
}

/// Locates the difference between two records; an empty one stands for none.
pub fn locate(ours: &[u8], theirs: &[u8], conns: &ConnectionTable) -> Option<Location> {
    let (mine, other) = (Side::read(ours), Side::read(theirs));
    let of = |side: &Side<'_>| side.record.as_ref().and_then(connection_of);
    let conn = of(&mine).or_else(|| of(&other));
    let connection = conn.map(|conn| connection(conn, conns));
    let (from, offset) = match (&mine.record, &other.record) {
        (None, None) => return None,
        (
            Some(Record::Data {
                conn,
                offset,
                bytes,
            }),
            Some(theirs),
        ) => match theirs {
            Record::Data {
                conn: their_conn,
                offset: their_offset,
                bytes: their_bytes,
            } if (conn, offset) == (their_conn, their_offset) => {
                let same = bytes
                    .iter()
                    .zip(*their_bytes)
                    .take_while(|(one, it)| one == it);
                let same = same.count();
                (same, Some(offset + same as u64))
            }
            _ => (0, Some(*offset)),
        },
        (None, Some(Record::Data { offset, .. })) => (0, Some(*offset)),
        _ => (0, None),
    };
    Some(Location {
        connection,
        offset,
        thread: mine.thread,
        their_thread: other.thread,
        ours: mine.describe(from),
        theirs: other.describe(from),
    })
}

/// A connection with the node of its frontend.
pub fn connection(conn: ConnId, conns: &ConnectionTable) -> Connection {
    let known = conns.frontend(conn.frontend).map(|known| known.node);
    Connection {
        frontend: conn.frontend,
        counter: conn.counter,
        node: known.filter(|node| *node != conn.frontend),
    }
}

struct Side<'a> {
    thread: u16,
    record: Option<Record<'a>>,
}

impl<'a> Side<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        Self {
            thread: thread_of(bytes),
            record: decode(bytes).ok().map(|(record, _)| record),
        }
    }

    fn describe(&self, from: usize) -> String {
        let Some(record) = &self.record else {
            return "nothing more".into();
        };
        match *record {
            Record::Data { bytes, .. } => {
                format!("writes {}", shown(&bytes[from.min(bytes.len())..]))
            }
            Record::Fin { .. } => "ends the output".into(),
            Record::Closed { reset: true, .. } => "resets the connection".into(),
            Record::Closed { reset: false, .. } => "closes the connection".into(),
            Record::Consumed { upto, .. } => format!("has read the input up to byte {upto}"),
            Record::Listen { address, .. } => format!("listens on {address}"),
            Record::Unlisten { listener } => format!("gives up listener {listener}"),
            Record::Connect { address, .. } => format!("connects to {address}"),
            Record::Datagram {
                local, peer, bytes, ..
            } => {
                let bytes = shown(&bytes[from.min(bytes.len())..]);
                format!("sends {peer} from {local} {bytes}")
            }
            Record::Lost { total } => format!("has lost {total} datagrams"),
            Record::Step {
                operation,
                clock,
                noted,
                ..
            } => {
                let name = operation::name(operation).unwrap_or("something new");
                format!("goes on with a {name}, operation {clock}; the last result was {noted}")
            }
            Record::Exit { status } => format!("exits with wait status {status}"),
            Record::Fault { message } => {
                format!("stops: {}", String::from_utf8_lossy(message))
            }
            // Never compared.
            Record::SyscallFilter { .. } | Record::Caught { .. } => {
                "tells how it is watched".into()
            }
            Record::Done {
                schedule_hash,
                deadline_ns,
                clock,
                idle,
                operation,
                ..
            } => {
                let last = operation::name(operation).unwrap_or("something new");
                let state = if idle { "idle" } else { "busy" };
                format!(
                    "is {state} after {clock} operations, the last one: {last}, next timer {}, \
                     schedule {schedule_hash:016x}",
                    timer(deadline_ns)
                )
            }
        }
    }
}

fn timer(deadline_ns: u64) -> String {
    match deadline_ns {
        brolga_tape::record::NO_DEADLINE => "none".into(),
        at => format!("at {at} ns"),
    }
}

fn connection_of(record: &Record<'_>) -> Option<ConnId> {
    match *record {
        Record::Data { conn, .. }
        | Record::Fin { conn, .. }
        | Record::Closed { conn, .. }
        | Record::Connect { conn, .. }
        | Record::Consumed { conn, .. } => Some(conn),
        _ => None,
    }
}

fn shown(bytes: &[u8]) -> String {
    let some = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let dots = if some.len() < bytes.len() { "…" } else { "" };
    format!("\"{}\"{dots}", some.escape_ascii())
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            _ if self.frontend == OUTGOING => write!(f, "outgoing connection {}", self.counter),
            Some(node) => write!(f, "connection {} of replica {node}", self.counter),
            None => write!(
                f,
                "connection {} of frontend {:016x}",
                self.counter, self.frontend
            ),
        }
    }
}

impl fmt::Display for DivergenceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            slot, node, peer, ..
        } = self;
        let first = if self.exact {
            "first at"
        } else {
            "at or before"
        };
        write!(f, "replicas {node} and {peer} differ {first} slot {slot}")?;
        match &self.place {
            None => write!(f, " (what they did there is not known)")?,
            Some(place) => write!(f, ": {}", place.between(*node, *peer))?,
        }
        match &self.minority[..] {
            [] => write!(f, "; no majority says who is right"),
            [one] => write!(f, "; a majority differs from replica {one}"),
            many => write!(f, "; a majority differs from replicas {many:?}"),
        }
    }
}

impl Location {
    /// In words, with the numbers of both replicas.
    #[must_use]
    pub fn between(&self, node: u64, peer: u64) -> String {
        let mut text = String::new();
        match (&self.connection, self.offset) {
            (Some(connection), Some(offset)) => {
                text += &format!("{connection}, output byte {offset}: ");
            }
            (Some(connection), None) => text += &format!("{connection}: "),
            (None, _) => {}
        }
        let Self { ours, theirs, .. } = self;
        let (thread, their_thread) = (self.thread, self.their_thread);
        text + &format!("{node} (thread {thread}) {ours}, {peer} (thread {their_thread}) {theirs}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_tape::record::encode_by;

    const CONN: ConnId = ConnId {
        frontend: 7,
        counter: 3,
    };

    fn encoded(thread: u16, record: &Record<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode_by(thread, record, |piece| out.extend_from_slice(piece));
        out
    }

    fn data(offset: u64, bytes: &[u8]) -> Vec<u8> {
        let conn = CONN;
        encoded(
            2,
            &Record::Data {
                conn,
                offset,
                bytes,
            },
        )
    }

    #[test]
    fn the_first_byte_that_differs_is_named() {
        let mut conns = ConnectionTable::new();
        conns.apply(&brolga_tape::entry::Event::FrontendUp {
            node: 1,
            frontend: 7,
        });
        let place = locate(
            &data(100, b"value=1\r\n"),
            &data(100, b"value=2\r\n"),
            &conns,
        )
        .unwrap();
        assert_eq!((place.offset, place.thread), (Some(106), 2));
        assert_eq!(
            place.between(1, 2),
            "connection 3 of replica 1, output byte 106: 1 (thread 2) writes \"1\\r\\n\", \
             2 (thread 2) writes \"2\\r\\n\""
        );
    }

    #[test]
    fn different_deeds_are_named() {
        let conns = ConnectionTable::new();
        let close = encoded(
            5,
            &Record::Closed {
                conn: CONN,
                offset: 9,
                reset: false,
            },
        );
        let told = locate(&data(9, b"more"), &close, &conns).unwrap();
        assert!(
            told.between(1, 2)
                .contains("2 (thread 5) closes the connection")
        );
        let told = locate(&[], &data(9, b"more"), &conns).unwrap();
        assert_eq!((told.offset, &*told.ours), (Some(9), "nothing more"));
        assert_eq!(locate(&[], &[], &conns), None);
    }

    #[test]
    fn the_first_record_that_differs_is_found() {
        let mut recent = RecentOutputs::default();
        for (hash, text) in [(1, b"one"), (2, b"two"), (3, b"six")] {
            recent.push(&data(0, text), hash);
        }
        recent.done(4);
        let found = |theirs: &[u64]| first_difference(4, theirs, &recent);
        assert_eq!(found(&[1, 9, 9]), Some((1, Some(data(0, b"two")))));
        assert_eq!(found(&[1, 2]), Some((2, Some(data(0, b"six")))));
        assert_eq!(found(&[1, 2, 3, 4]), Some((3, None)));
        assert_eq!(first_difference(5, &[1], &recent), None);
    }
}
