//! The beginning of a log whose first segments were dropped, and how they are dropped.
//!
//! The file `base` says which segment is the first, and what those before it added up to, apart
//! from the values. It is written aside and renamed before any segment is removed; segments before
//! the first that are still there are left from a crash and removed when the log is opened.
//!
//! ```text
//!  0 magic          8 crc u32        12 version u32
//! 16 first segment 24 upto slot      32 ballot round, node
//! 48 last seq      56 its header's crc
//! 64 recovery as in a record: round, node, slot; all 0 if none was noted
//! ```

use super::record::{HEADER_BYTES, RecordHeader, recovery_of, recovery_words};
use super::segment::{Segments, sync_dir};
use super::{JournalError, VERSION_BASE};
use crate::core::{Ballot, IoSeq, JournalOp, Recovery, Slot};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

const MAGIC: [u8; 8] = *b"BROLGABS";
const BYTES: usize = 88;

/// The reason why the bytes of a file `base` are not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BaseError {
    /// Another build has written it.
    Version(u32),
    /// The bytes are damaged.
    Corrupt(&'static str),
}

impl From<&'static str> for BaseError {
    fn from(what: &'static str) -> Self {
        Self::Corrupt(what)
    }
}

/// The contents of the file `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub first_segment: u32,
    /// Every slot that the dropped segments had a vote for is at most this one.
    pub upto: Slot,
    pub promised: Ballot,
    pub last_seq: IoSeq,
    pub previous: u32,
    pub recovery: Option<Recovery>,
}

impl Default for Base {
    /// Nothing was dropped.
    fn default() -> Self {
        Self {
            first_segment: 1,
            upto: 0,
            promised: Ballot::default(),
            last_seq: IoSeq(0),
            previous: 0,
            recovery: None,
        }
    }
}

/// The sum of the records of one segment, and all before it, at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Highest slot with a vote in this segment.
    pub max_slot: Slot,
    pub last_seq: IoSeq,
    pub promised: Ballot,
    pub recovery: Option<Recovery>,
}

impl Summary {
    /// Adds a record.
    pub fn add(&mut self, seq: IoSeq, op: &JournalOp) {
        self.last_seq = seq;
        match op {
            JournalOp::Promise(ballot) => self.promised = *ballot,
            JournalOp::Accept { ballot, slot, .. } => {
                self.promised = *ballot;
                self.max_slot = self.max_slot.max(*slot);
            }
            JournalOp::Recovery(recovery) => self.recovery = Some(*recovery),
            JournalOp::Install(_) | JournalOp::Commit(_) => {}
        }
    }
}

impl Base {
    pub(super) fn encode(&self) -> [u8; BYTES] {
        let (recovery, slot) = self.recovery.map_or((Ballot::default(), 0), recovery_words);
        let words = [
            u64::from(self.first_segment),
            self.upto,
            self.promised.round,
            self.promised.node,
            self.last_seq.0,
            u64::from(self.previous),
            recovery.round,
            recovery.node,
            slot,
        ];
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[12..16].copy_from_slice(&VERSION_BASE.to_le_bytes());
        for (at, word) in words.iter().enumerate() {
            bytes[16 + 8 * at..24 + 8 * at].copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes a file of this format. One of another format is recognised even if it has another length.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BaseError> {
        let Ok(mut copy) = <[u8; BYTES]>::try_from(bytes) else {
            return Err(match version_of(bytes) {
                Some(version) if version != VERSION_BASE => BaseError::Version(version),
                _ => "it has another length".into(),
            });
        };
        let crc = u32::from_le_bytes([copy[8], copy[9], copy[10], copy[11]]);
        copy[8..12].fill(0);
        if copy[..8] != MAGIC || crc32c::crc32c(&copy) != crc {
            return Err("its checksum is wrong".into());
        }
        match version_of(&copy) {
            Some(VERSION_BASE) | None => {}
            Some(version) => return Err(BaseError::Version(version)),
        }
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&copy[16 + 8 * at..24 + 8 * at]);
            u64::from_le_bytes(word)
        };
        let small = |at: usize| u32::try_from(word(at)).map_err(|_| "a number is too large");
        let ballot = |at: usize| Ballot {
            round: word(at),
            node: word(at + 1),
        };
        let noted = ballot(6) != Ballot::default();
        let recovery = match noted {
            true => {
                Some(recovery_of(ballot(6), word(8)).ok_or("the state of recovery is invalid")?)
            }
            false => None,
        };
        Ok(Self {
            first_segment: small(0)?,
            upto: word(1),
            promised: ballot(2),
            last_seq: IoSeq(word(4)),
            previous: small(5)?,
            recovery,
        })
    }

    /// Reads it; a log from which nothing was dropped has none.
    pub fn load(segments: &Segments) -> Result<Self, JournalError> {
        let path = segments.dir.join("base");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(JournalError::io(&path, error)),
        };
        Self::decode(&bytes).map_err(|error| match error {
            BaseError::Version(found) => JournalError::Version { path, found },
            BaseError::Corrupt(what) => JournalError::corrupt(&path, 0, what),
        })
    }

    fn save(&self, segments: &Segments) -> io::Result<()> {
        let path = segments.dir.join("base");
        let aside = path.with_extension("new");
        let mut file = File::create(&aside)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        sync_dir(&segments.dir)
    }
}

/// The version that bytes with the right magic claim to have.
fn version_of(bytes: &[u8]) -> Option<u32> {
    let (version, _) = bytes.strip_prefix(&MAGIC)?.get(4..)?.split_first_chunk()?;
    Some(u32::from_le_bytes(*version))
}

/// Makes the log begin at segment `first`, whose predecessor ends as `summary` says.
pub(super) fn drop_before(
    segments: &Segments,
    first: u32,
    upto: Slot,
    summary: &Summary,
) -> Result<(), JournalError> {
    let path = segments.path(first);
    let mut bytes = [0; HEADER_BYTES];
    File::open(&path)
        .and_then(|file| file.read_exact_at(&mut bytes, HEADER_BYTES as u64))
        .map_err(|error| JournalError::io(&path, error))?;
    let salt = segments.header(first).salt();
    let next = RecordHeader::decode(&bytes, salt)
        .filter(|next| next.seq.0 == summary.last_seq.0 + 1)
        .ok_or_else(|| {
            let what = "its first record is not the one after those that are to go";
            JournalError::corrupt(&path, HEADER_BYTES as u64, what)
        })?;
    let base = Base {
        first_segment: first,
        upto,
        promised: summary.promised,
        last_seq: summary.last_seq,
        previous: next.previous,
        recovery: summary.recovery,
    };
    base.save(segments)
        .map_err(|error| JournalError::io(&segments.dir, error))?;
    remove_before(segments, first)
}

/// Removes the segments before `first`, the oldest first.
pub(super) fn remove_before(segments: &Segments, first: u32) -> Result<(), JournalError> {
    for number in segments.list()? {
        if number < first {
            let path = segments.path(number);
            fs::remove_file(&path).map_err(|error| JournalError::io(&path, error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same_and_damage_is_noticed() {
        for recovery in [
            None,
            Some(Recovery::Lost),
            Some(Recovery::Learner),
            Some(Recovery::Voter { floor: 1 << 40 }),
            Some(Recovery::CatchingUp { upto: 3, floor: 4 }),
        ] {
            let base = Base {
                first_segment: 7,
                upto: 1000,
                promised: Ballot { round: 3, node: 2 },
                last_seq: IoSeq(5000),
                previous: u32::MAX,
                recovery,
            };
            let bytes = base.encode();
            assert_eq!(Base::decode(&bytes), Ok(base));
            for at in 0..BYTES {
                let mut flipped = bytes;
                flipped[at] ^= 1;
                assert!(Base::decode(&flipped).is_err(), "flipped at {at}");
            }
        }
    }

    #[test]
    fn the_file_has_the_same_bytes_as_ever() {
        let base = Base {
            first_segment: 7,
            upto: 1000,
            promised: Ballot { round: 3, node: 2 },
            last_seq: IoSeq(5000),
            previous: 0x0102_0304,
            recovery: Some(Recovery::CatchingUp { upto: 9, floor: 4 }),
        };
        let golden = concat!(
            "42524f4c47414253df68e84c01000000",
            "0700000000000000e803000000000000",
            "03000000000000000200000000000000",
            "88130000000000000403020100000000",
            "04000000000000000300000000000000",
            "0900000000000000",
        );
        let hex: String = base.encode().iter().map(|it| format!("{it:02x}")).collect();
        assert_eq!(hex, golden);
        assert_eq!(Base::decode(&base.encode()), Ok(base));
    }

    #[test]
    fn a_file_of_another_version_is_refused_by_its_number() {
        let mut bytes = Base::default().encode();
        bytes[12..16].copy_from_slice(&7_u32.to_le_bytes());
        bytes[8..12].fill(0);
        let crc = crc32c::crc32c(&bytes);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Base::decode(&bytes), Err(BaseError::Version(7)));
        let longer = [&bytes[..], &[0; 8]].concat();
        assert_eq!(Base::decode(&longer), Err(BaseError::Version(7)));
        assert!(matches!(
            Base::decode(&bytes[..10]),
            Err(BaseError::Corrupt(_))
        ));
    }
}
