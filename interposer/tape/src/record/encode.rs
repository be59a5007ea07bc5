//! The encoder of records: header, fixed fields, bytes of the server, padding.

use super::{DATAGRAM_PREFIX_BYTES, RECORD_HEADER_BYTES, Record, kind};
use crate::ConnId;
use crate::entry::{ADDRESS_BYTES, address_bytes, padded};

/// Writes a record that nobody in particular caused; see [`encode_by`].
pub fn encode(record: &Record<'_>, put: impl FnMut(&[u8])) {
    encode_by(0, record, put);
}

/// Writes a record that `thread` caused as a header and a payload to `put`, which is called once
/// for each piece.
pub fn encode_by(thread: u16, record: &Record<'_>, mut put: impl FnMut(&[u8])) {
    let mut room = [0; DATAGRAM_PREFIX_BYTES];
    let fixed = fixed_fields(record, &mut room);
    let bytes = server_bytes(record);
    let len = fixed.len() + bytes.len();
    put(&header(thread, record, len));
    put(fixed);
    put(bytes);
    put(&[0; 8][..padded(len) - len]);
}

#[inline]
fn header(thread: u16, record: &Record<'_>, payload_len: usize) -> [u8; RECORD_HEADER_BYTES] {
    let (kind, conn, arg) = header_fields(record);
    let mut head = [0; RECORD_HEADER_BYTES];
    head[0..2].copy_from_slice(&kind.to_le_bytes());
    head[2..4].copy_from_slice(&thread.to_le_bytes());
    head[4..8].copy_from_slice(&(payload_len as u32).to_le_bytes());
    head[8..16].copy_from_slice(&conn.frontend.to_le_bytes());
    head[16..24].copy_from_slice(&conn.counter.to_le_bytes());
    head[24..32].copy_from_slice(&arg.to_le_bytes());
    head
}

/// The kind of a record, the connection in its header and its `arg`.
#[inline]
fn header_fields(record: &Record<'_>) -> (u16, ConnId, u64) {
    const NONE: ConnId = ConnId {
        frontend: 0,
        counter: 0,
    };
    match *record {
        Record::Data { conn, offset, .. } => (kind::DATA, conn, offset),
        Record::Fin { conn, offset } => (kind::FIN, conn, offset),
        Record::Closed { conn, offset, .. } => (kind::CLOSED, conn, offset),
        Record::Consumed { conn, upto } => (kind::CONSUMED, conn, upto),
        Record::Listen { listener, .. } => (kind::LISTEN, NONE, u64::from(listener)),
        Record::Connect { conn, .. } => (kind::CONNECT, conn, 0),
        Record::Unlisten { listener } => (kind::UNLISTEN, NONE, u64::from(listener)),
        Record::Datagram {
            frontend,
            number: counter,
            ..
        } => (kind::DATAGRAM, ConnId { frontend, counter }, 0),
        Record::Lost { total } => (kind::LOST, NONE, total),
        Record::Done { slot, .. } => (kind::DONE, NONE, slot),
        Record::Step { clock, .. } => (kind::STEP, NONE, clock),
        Record::Exit { status } => (kind::EXIT, NONE, u64::from(status.cast_unsigned())),
        Record::Fault { .. } => (kind::FAULT, NONE, 0),
        Record::SyscallFilter { errno } => {
            (kind::SYSCALL_FILTER, NONE, u64::from(errno.cast_unsigned()))
        }
        Record::Caught {
            number,
            count: counter,
            offset: frontend,
            ..
        } => (
            kind::CAUGHT,
            ConnId { frontend, counter },
            u64::from(number),
        ),
    }
}

/// Writes the fields that a record's payload begins with to `room`, which is all zeros, and returns
/// that part of it.
#[inline]
fn fixed_fields<'a>(record: &Record<'_>, room: &'a mut [u8; DATAGRAM_PREFIX_BYTES]) -> &'a [u8] {
    let len = match *record {
        Record::Closed { reset, .. } => {
            room[0] = u8::from(reset);
            8
        }
        Record::Listen {
            address,
            transport,
            chosen,
            ..
        } => {
            room[..ADDRESS_BYTES].copy_from_slice(&address_bytes(address));
            room[24] = transport as u8;
            room[25] = u8::from(chosen);
            32
        }
        Record::Connect { address, .. } => {
            room[..ADDRESS_BYTES].copy_from_slice(&address_bytes(address));
            ADDRESS_BYTES
        }
        Record::Datagram { local, peer, .. } => {
            room[..ADDRESS_BYTES].copy_from_slice(&address_bytes(local));
            room[ADDRESS_BYTES..].copy_from_slice(&address_bytes(peer));
            DATAGRAM_PREFIX_BYTES
        }
        Record::Done {
            schedule_hash,
            deadline_ns,
            clock,
            idle,
            operation,
            ..
        } => {
            room[0..8].copy_from_slice(&schedule_hash.to_le_bytes());
            room[8..16].copy_from_slice(&deadline_ns.to_le_bytes());
            room[16..24].copy_from_slice(&clock.to_le_bytes());
            room[24] = u8::from(idle);
            room[26..28].copy_from_slice(&operation.to_le_bytes());
            32
        }
        Record::Step {
            schedule_hash,
            noted,
            operation,
            ..
        } => {
            room[0..8].copy_from_slice(&schedule_hash.to_le_bytes());
            room[8..16].copy_from_slice(&noted.to_le_bytes());
            room[16..18].copy_from_slice(&operation.to_le_bytes());
            24
        }
        _ => 0,
    };
    &room[..len]
}

/// The bytes that end a record's payload: those that the server wrote, or a text.
#[inline]
const fn server_bytes<'a>(record: &Record<'a>) -> &'a [u8] {
    match *record {
        Record::Data { bytes, .. } | Record::Datagram { bytes, .. } => bytes,
        Record::Fault { message } => message,
        Record::Caught { object, .. } => object,
        _ => &[],
    }
}
