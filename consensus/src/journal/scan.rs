//! Reading the log at start: what it says, where it ends, and whether it is whole.

use super::base::{Base, Summary, remove_before};
use super::index::Index;
use super::record::{HEADER_BYTES, Kind, RecordHeader, record_bytes};
use super::segment::Segments;
use super::{JournalError, Position};
use crate::core::{AcceptedEntry, Ballot, DurableState, IoSeq, Recovery, Slot, Value};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

/// The result of a scan, and the point to go on writing.
pub(super) struct Found {
    pub recovered: DurableState,
    pub index: Index,
    /// The sum of the last segment at its end, and of the full ones before it.
    pub current: Summary,
    pub full: BTreeMap<u32, Summary>,
    pub segment: u32,
    pub offset: u64,
    pub previous: u32,
}

/// The sum of the records so far.
#[derive(Default)]
struct Scan {
    promised: Ballot,
    commit: Slot,
    /// Newest votes above the commit.
    tail: BTreeMap<Slot, (Ballot, Value)>,
    index: Index,
    max_slot: Slot,
    full: BTreeMap<u32, Summary>,
    last_seq: IoSeq,
    recovery: Option<Recovery>,
    previous: u32,
    /// Segment and offset at which the last record ends.
    end: (u32, usize),
}

/// The end of a segment's records.
enum End {
    /// Nothing but zeros follows.
    Clean,
    /// Something that is not the next record follows.
    Bad(usize, &'static str),
    /// A whole record follows that no correct node writes.
    Senseless(usize),
}

/// The changes that a scan may make to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The log is this process's: it is begun if there is none, and a torn tail is erased.
    Owner,
    /// The log may be another process's, which may be writing to it: nothing is changed.
    Reader,
}

pub(super) fn recover(segments: &Segments, access: Access) -> Result<Found, JournalError> {
    let base = Base::load(segments)?;
    if access == Access::Owner {
        remove_before(segments, base.first_segment)?;
    }
    let mut numbers = segments.list()?;
    numbers.retain(|number| *number >= base.first_segment);
    let is_new = numbers.is_empty() && base == Base::default();
    if is_new && access == Access::Reader {
        return Ok(Scan::default().finish());
    }
    if is_new {
        segments
            .create(1)
            .map_err(|source| JournalError::Unwritable {
                path: segments.dir.clone(),
                source,
            })?;
        return Ok(Scan {
            end: (1, HEADER_BYTES),
            ..Scan::default()
        }
        .finish());
    }
    let mut scan = Scan::after(&base);
    let mut at = 0;
    let expected = |at: usize| base.first_segment + at as u32;
    while at < numbers.len().max(1) {
        let number = expected(at);
        if numbers.get(at) != Some(&number) {
            let what = format!("segment {number} is missing");
            return Err(JournalError::corrupt(&segments.dir, 0, &what));
        }
        let bytes = read(segments, number)?;
        let salt = segments.check(number, &bytes)?.salt();
        match scan.segment(number, &bytes, salt) {
            End::Clean => {}
            End::Bad(offset, what) => {
                let after = &numbers[at + 1..];
                judge(segments, &scan, number, &bytes, offset, what, after)?;
                if access == Access::Owner {
                    erase(segments, number, &bytes, offset)?;
                }
            }
            End::Senseless(offset) => {
                let what = "the record is below an earlier promise";
                return Err(JournalError::corrupt(
                    &segments.path(number),
                    offset as u64,
                    what,
                ));
            }
        }
        at += 1;
    }
    scan.check(segments)?;
    Ok(scan.finish())
}

impl Scan {
    fn after(base: &Base) -> Self {
        let mut index = Index::default();
        index.forget(base.upto);
        Self {
            promised: base.promised,
            commit: base.upto,
            index,
            last_seq: base.last_seq,
            recovery: base.recovery,
            previous: base.previous,
            end: (base.first_segment, HEADER_BYTES),
            ..Self::default()
        }
    }

    fn summary(&self) -> Summary {
        Summary {
            max_slot: self.max_slot,
            last_seq: self.last_seq,
            promised: self.promised,
            recovery: self.recovery,
        }
    }

    /// Takes the records of a segment, up to its end or the first that is not right.
    fn segment(&mut self, number: u32, bytes: &Bytes, salt: u32) -> End {
        let (last, before) = (self.end.0, self.summary());
        if number != last {
            self.max_slot = 0;
        }
        let mut offset = HEADER_BYTES;
        loop {
            let promised = self.promised;
            match self.record(number, bytes, offset, salt) {
                Ok(length) => offset += length,
                Err(what) => {
                    if self.end.0 == last {
                        // Nothing in it: made ahead, or number is the last one itself.
                        self.max_slot = self.max_slot.max(before.max_slot);
                    }
                    let clean = bytes[offset..].iter().all(|byte| *byte == 0);
                    return if clean {
                        End::Clean
                    } else {
                        End::Bad(offset, what)
                    };
                }
            }
            if self.promised < promised {
                return End::Senseless(self.end.1);
            }
            if self.end.0 != number {
                self.full.insert(last, before);
            }
            self.end = (number, offset);
        }
    }

    fn record(
        &mut self,
        number: u32,
        bytes: &Bytes,
        offset: usize,
        salt: u32,
    ) -> Result<usize, &'static str> {
        let rest = &bytes[offset..];
        let header = RecordHeader::decode(rest, salt).ok_or("the record header is damaged")?;
        if header.seq.0 != self.last_seq.0 + 1 {
            return Err("a record is missing");
        }
        if header.previous != self.previous {
            return Err("the record does not follow the one before it");
        }
        let length = header
            .payload(rest)
            .ok_or("the record's payload is damaged")?
            .len();
        self.last_seq = header.seq;
        self.previous = header.crc;
        match header.kind {
            Kind::Promise => self.promised = header.ballot,
            Kind::Accept => {
                let begin = offset + HEADER_BYTES;
                let value = bytes.slice(begin..begin + length);
                self.accept(
                    &header,
                    Position {
                        segment: number,
                        offset8: (offset / 8) as u32,
                    },
                    value,
                );
            }
            Kind::Commit => {
                self.commit = self.commit.max(header.slot);
                self.tail = self.tail.split_off(&(self.commit + 1));
            }
            Kind::Install => {
                self.commit = self.commit.max(header.slot);
                self.tail = self.tail.split_off(&(self.commit + 1));
                self.index.forget(header.slot);
            }
            Kind::Recovery => {
                let recovery = header.recovery();
                self.recovery = Some(recovery.ok_or("the state of recovery is invalid")?);
            }
        }
        Ok(record_bytes(length))
    }

    fn accept(&mut self, header: &RecordHeader, position: Position, value: Value) {
        self.promised = header.ballot;
        self.max_slot = self.max_slot.max(header.slot);
        self.index.put(header.slot, position);
        if header.slot > self.commit {
            self.tail.insert(header.slot, (header.ballot, value));
        }
    }

    /// A commit hint follows the votes it speaks of, so all of them have to be there.
    fn check(&self, segments: &Segments) -> Result<(), JournalError> {
        match self.index.gap(self.commit) {
            None => Ok(()),
            Some(slot) => {
                let what = format!("slot {slot} is committed and not there");
                Err(JournalError::corrupt(&segments.dir, 0, &what))
            }
        }
    }

    fn finish(mut self) -> Found {
        let current = self.summary();
        let full = std::mem::take(&mut self.full);
        let tail = self.tail.into_iter().map(|(slot, (ballot, value))| {
            // A copy, because a slice would keep the whole segment in memory.
            AcceptedEntry {
                slot,
                ballot,
                value: Bytes::copy_from_slice(&value),
            }
        });
        Found {
            recovered: DurableState {
                promised: self.promised,
                commit: self.commit,
                tail: tail.collect(),
                last_seq: self.last_seq,
                recovery: self.recovery,
            },
            current,
            full,
            index: self.index,
            segment: self.end.0,
            offset: self.end.1 as u64,
            previous: self.previous,
        }
    }
}

/// Decides whether the damage at `offset` is the tear of an unfinished write.
fn judge(
    segments: &Segments,
    scan: &Scan,
    number: u32,
    bytes: &[u8],
    offset: usize,
    what: &str,
    after: &[u32],
) -> Result<(), JournalError> {
    let lost = IoSeq(scan.last_seq.0 + 1);
    let path = segments.path(number);
    if proves_durable(&bytes[offset..], segments.header(number).salt(), lost) {
        return Err(JournalError::corrupt(&path, offset as u64, what));
    }
    for next in after {
        // A segment is written to only when the one before is durable to its end.
        let bytes = read(segments, *next)?;
        if bytes[HEADER_BYTES.min(bytes.len())..]
            .iter()
            .any(|byte| *byte != 0)
        {
            return Err(JournalError::corrupt(&path, offset as u64, what));
        }
    }
    Ok(())
}

/// Returns true if any record in `bytes` was written when operation `seq` was durable.
fn proves_durable(bytes: &[u8], salt: u32, seq: IoSeq) -> bool {
    let mut rest = bytes;
    while rest.len() >= HEADER_BYTES {
        if RecordHeader::decode(rest, salt).is_some_and(|header| header.durable >= seq) {
            return true;
        }
        rest = &rest[8..];
    }
    false
}

/// Overwrites a torn tail with zeros, so that it cannot be taken for anything later.
fn erase(
    segments: &Segments,
    number: u32,
    bytes: &[u8],
    offset: usize,
) -> Result<(), JournalError> {
    let path = segments.path(number);
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(offset, |last| last + 1);
    let zeros = vec![0; end.saturating_sub(offset)];
    let written = segments.open(number).and_then(|file| {
        file.write_all_at(&zeros, offset as u64)?;
        file.sync_data()
    });
    written.map_err(|error| JournalError::io(&path, error))
}

fn read(segments: &Segments, number: u32) -> Result<Bytes, JournalError> {
    let path = segments.path(number);
    fs::read(&path)
        .map(Bytes::from)
        .map_err(|error| JournalError::io(&path, error))
}

/// Scans the bytes of one segment, and looks for records that prove damage.
#[cfg(feature = "fuzzing")]
pub(super) fn scan_bytes(bytes: &Bytes, salt: u32) {
    let mut scan = Scan::default();
    if let End::Bad(offset, _) = scan.segment(1, bytes, salt) {
        proves_durable(&bytes[offset..], salt, IoSeq(scan.last_seq.0 + 1));
    }
    let commit = scan.commit;
    let found = scan.finish();
    let _ = found.index.gap(commit);
}
