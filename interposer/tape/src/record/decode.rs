//! The decoder of records. No byte is trusted.

use super::{DATAGRAM_PREFIX_BYTES, RECORD_HEADER_BYTES, Record, Transport, kind, record_bytes};
use crate::ConnId;
use crate::entry::{ADDRESS_BYTES, EntryError, read_address};

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
    let header = Fields(bytes);
    let kind = header.u16(0)?;
    let len = header.u32(4)? as usize;
    let conn = ConnId {
        frontend: header.u64(8)?,
        counter: header.u64(16)?,
    };
    let arg = header.u64(24)?;
    let whole = bytes
        .get(..record_bytes(len))
        .ok_or(EntryError::Truncated)?;
    let payload = &whole[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + len];
    Ok((decode_kind(kind, conn, arg, payload)?, whole.len()))
}

fn decode_kind(
    kind: u16,
    conn: ConnId,
    arg: u64,
    payload: &[u8],
) -> Result<Record<'_>, EntryError> {
    let fields = Fields(payload);
    Ok(match kind {
        kind::DATA => Record::Data {
            conn,
            offset: arg,
            bytes: payload,
        },
        kind::FIN => Record::Fin { conn, offset: arg },
        kind::CLOSED => Record::Closed {
            conn,
            offset: arg,
            reset: fields.flag(0)?,
        },
        kind::CONSUMED => Record::Consumed { conn, upto: arg },
        kind::LISTEN => decode_listen(small(arg)?, fields)?,
        kind::CONNECT => Record::Connect {
            conn,
            address: read_address(payload, 0)?,
        },
        kind::DATAGRAM => decode_datagram(conn, payload)?,
        kind::LOST => Record::Lost { total: arg },
        kind::UNLISTEN => Record::Unlisten {
            listener: small(arg)?,
        },
        kind::DONE => decode_done(arg, fields)?,
        kind::STEP => Record::Step {
            operation: fields.u16(16)?,
            clock: arg,
            schedule_hash: fields.u64(0)?,
            noted: fields.u64(8)?,
        },
        kind::EXIT => Record::Exit {
            status: small(arg)?.cast_signed(),
        },
        kind::FAULT => Record::Fault { message: payload },
        kind::SYSCALL_FILTER => Record::SyscallFilter {
            errno: small(arg)?.cast_signed(),
        },
        kind::CAUGHT => Record::Caught {
            number: small(arg)?,
            count: conn.counter,
            offset: conn.frontend,
            object: payload,
        },
        other => return Err(EntryError::UnknownKind(other.to_le_bytes()[0])),
    })
}

fn decode_listen(listener: u32, fields: Fields<'_>) -> Result<Record<'static>, EntryError> {
    Ok(Record::Listen {
        listener,
        address: read_address(fields.0, 0)?,
        transport: match fields.0.get(ADDRESS_BYTES) {
            Some(0) => Transport::Stream,
            Some(1) => Transport::Datagram,
            Some(_) => return Err(EntryError::BadField),
            None => return Err(EntryError::Truncated),
        },
        chosen: fields.flag(ADDRESS_BYTES + 1)?,
    })
}

fn decode_datagram(conn: ConnId, payload: &[u8]) -> Result<Record<'_>, EntryError> {
    let bytes = payload.get(DATAGRAM_PREFIX_BYTES..);
    Ok(Record::Datagram {
        frontend: conn.frontend,
        number: conn.counter,
        local: read_address(payload, 0)?,
        peer: read_address(payload, ADDRESS_BYTES)?,
        bytes: bytes.ok_or(EntryError::Truncated)?,
    })
}

fn decode_done(slot: u64, fields: Fields<'_>) -> Result<Record<'static>, EntryError> {
    Ok(Record::Done {
        slot,
        schedule_hash: fields.u64(0)?,
        deadline_ns: fields.u64(8)?,
        clock: fields.u64(16)?,
        idle: fields.flag(24)?,
        operation: fields.u16(26)?,
    })
}

fn small(arg: u64) -> Result<u32, EntryError> {
    u32::try_from(arg).map_err(|_| EntryError::BadField)
}

/// Little-endian fields of a header or a payload.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(self, at: usize) -> Result<[u8; N], EntryError> {
        let bytes = self.0.get(at..at + N).ok_or(EntryError::Truncated)?;
        bytes.try_into().map_err(|_| EntryError::Truncated)
    }

    fn u16(self, at: usize) -> Result<u16, EntryError> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }

    fn u32(self, at: usize) -> Result<u32, EntryError> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    fn u64(self, at: usize) -> Result<u64, EntryError> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    fn flag(self, at: usize) -> Result<bool, EntryError> {
        Ok(self.array::<1>(at)? != [0])
    }
}
