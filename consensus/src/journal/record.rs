//! The bytes of the log: segment headers and records.
//!
//! All integers are little-endian. A record is a header of 64 bytes and its payload, padded to 8:
//!
//! ```text
//!  0 magic u32      4 header crc u32   8 header crc of the previous record u32
//! 12 payload crc   16 payload length  20 kind u8, 3 zero bytes
//! 24 seq u64       32 durable u64     40 ballot round u64
//! 48 ballot node   56 slot u64
//! ```
//!
//! `durable` is the last operation known to be on disk when this record was written. It is what
//! tells a torn tail from rot: if any later record says that the operation at a damaged place was
//! durable, it cannot have been torn. Header checksums start from the segment header's checksum, so
//! a record of another log or segment is never taken for one of this.

use crate::core::{Ballot, IoSeq, JournalOp, NodeId, Recovery, Slot};

/// Bytes of a segment header, and of a record header.
pub(super) const HEADER_BYTES: usize = 64;
/// Version of this format.
pub(super) const VERSION: u32 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"BROLGALG";
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"BrRc");
const ALIGN: usize = 8;

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub version: u32,
    pub cluster: u128,
    pub node: NodeId,
    pub number: u32,
    pub size: u64,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.cluster.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.node.to_le_bytes());
        bytes[40..48].copy_from_slice(&u64::from(self.number).to_le_bytes());
        bytes[48..56].copy_from_slice(&self.size.to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header, if the checksum holds.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut copy: [u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        copy[12..16].fill(0);
        if copy[..8] != SEGMENT_MAGIC || crc32c::crc32c(&copy) != u32_at(bytes, 12) {
            return None;
        }
        Some(Self {
            version: u32_at(bytes, 8),
            cluster: u128::from_le_bytes(bytes[16..32].try_into().ok()?),
            node: u64_at(bytes, 32),
            number: u32::try_from(u64_at(bytes, 40)).ok()?,
            size: u64_at(bytes, 48),
        })
    }

    /// The start value of the header checksums of this segment's records.
    pub fn salt(&self) -> u32 {
        u32_at(&self.encode(), 12)
    }
}

/// Header of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub crc: u32,
    pub previous: u32,
    pub payload_crc: u32,
    pub payload_len: u32,
    pub kind: Kind,
    pub seq: IoSeq,
    pub durable: IoSeq,
    pub ballot: Ballot,
    pub slot: Slot,
}

/// The operation that a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Promise = 1,
    Accept = 2,
    Commit = 3,
    Recovery = 4,
    Install = 5,
}

impl RecordHeader {
    /// The header of `op`, whose checksum is filled in by [`RecordHeader::encode`].
    pub fn of(op: &JournalOp, seq: IoSeq, durable: IoSeq, previous: u32) -> Self {
        let (kind, ballot, slot, payload) = match op {
            JournalOp::Promise(ballot) => (Kind::Promise, *ballot, 0, &[][..]),
            JournalOp::Accept {
                ballot,
                slot,
                value,
            } => (Kind::Accept, *ballot, *slot, value.as_ref()),
            JournalOp::Commit(slot) => (Kind::Commit, Ballot::default(), *slot, &[][..]),
            JournalOp::Install(slot) => (Kind::Install, Ballot::default(), *slot, &[][..]),
            JournalOp::Recovery(recovery) => {
                let (ballot, slot) = recovery_words(*recovery);
                (Kind::Recovery, ballot, slot, &[][..])
            }
        };
        let payload_crc = crc32c::crc32c(payload);
        let payload_len = payload.len() as u32;
        Self {
            crc: 0,
            previous,
            payload_crc,
            payload_len,
            kind,
            seq,
            durable,
            ballot,
            slot,
        }
    }

    /// The bytes, and the checksum that the next record names.
    pub fn encode(&self, salt: u32) -> ([u8; HEADER_BYTES], u32) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.previous.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[20] = self.kind as u8;
        bytes[24..32].copy_from_slice(&self.seq.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.durable.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.ballot.round.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.ballot.node.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.slot.to_le_bytes());
        let crc = crc32c::crc32c_append(salt, &bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// The header at the start of `bytes`, if its checksum holds.
    pub fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || u32_at(bytes, 0) != RECORD_MAGIC {
            return None;
        }
        let crc = u32_at(bytes, 4);
        if crc32c::crc32c_append(salt, &bytes[8..HEADER_BYTES]) != crc {
            return None;
        }
        let kind = match bytes[20] {
            1 => Kind::Promise,
            2 => Kind::Accept,
            3 => Kind::Commit,
            4 => Kind::Recovery,
            5 => Kind::Install,
            _ => return None,
        };
        Some(Self {
            crc,
            previous: u32_at(bytes, 8),
            payload_crc: u32_at(bytes, 12),
            payload_len: u32_at(bytes, 16),
            kind,
            seq: IoSeq(u64_at(bytes, 24)),
            durable: IoSeq(u64_at(bytes, 32)),
            ballot: Ballot {
                round: u64_at(bytes, 40),
                node: u64_at(bytes, 48),
            },
            slot: u64_at(bytes, 56),
        })
    }

    /// The payload after the header at the start of `bytes`, if it is whole.
    pub fn payload<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + self.payload_len as usize)?;
        (crc32c::crc32c(payload) == self.payload_crc).then_some(payload)
    }
}

const VOTER: u64 = 1;
const LOST: u64 = 2;
const CATCHING_UP: u64 = 3;
const LEARNER: u64 = 4;

/// A state of recovery in the places of ballot and slot: the floor, its kind, and the slot to wait
/// for.
pub(super) fn recovery_words(recovery: Recovery) -> (Ballot, Slot) {
    let (round, node, slot) = match recovery {
        Recovery::Voter { floor } => (floor, VOTER, 0),
        Recovery::Lost => (0, LOST, 0),
        Recovery::Learner => (0, LEARNER, 0),
        Recovery::CatchingUp { upto, floor } => (floor, CATCHING_UP, upto),
    };
    (Ballot { round, node }, slot)
}

impl RecordHeader {
    /// The state of recovery that such a record notes.
    pub fn recovery(&self) -> Option<Recovery> {
        recovery_of(self.ballot, self.slot)
    }
}

/// The state of recovery in the places of ballot and slot; `None` if there is none such.
pub(super) fn recovery_of(ballot: Ballot, upto: Slot) -> Option<Recovery> {
    let floor = ballot.round;
    match ballot.node {
        VOTER => Some(Recovery::Voter { floor }),
        LOST => Some(Recovery::Lost),
        LEARNER => Some(Recovery::Learner),
        CATCHING_UP => Some(Recovery::CatchingUp { upto, floor }),
        _ => None,
    }
}

/// Bytes that a record with this much payload takes.
pub(super) fn record_bytes(payload_len: usize) -> usize {
    HEADER_BYTES + payload_len.next_multiple_of(ALIGN)
}

/// Bytes of zeros after the payload.
pub(super) fn padding(payload_len: usize) -> usize {
    payload_len.next_multiple_of(ALIGN) - payload_len
}

/// Payload bytes of an operation.
pub(super) fn payload_len(op: &JournalOp) -> usize {
    match op {
        JournalOp::Accept { value, .. } => value.len(),
        JournalOp::Promise(_)
        | JournalOp::Commit(_)
        | JournalOp::Recovery(_)
        | JournalOp::Install(_) => 0,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
