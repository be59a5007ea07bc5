//! Reading the log at start: what it says, where it ends, and whether it is whole.

use super::record::{HEADER_BYTES, Kind, RecordHeader, record_bytes};
use super::segment::Place;
use super::{JournalError, NOWHERE, Position, index_put};
use crate::core::{AcceptedEntry, Ballot, IoSeq, Recovered, Slot, Value};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

/// What was found, and where to go on writing.
pub(super) struct Found {
    pub recovered: Recovered,
    pub index: Vec<Position>,
    pub segment: u32,
    pub offset: u64,
    pub previous: u32,
}

/// What the records so far add up to.
#[derive(Default)]
struct Scan {
    promised: Ballot,
    commit: Slot,
    /// Newest votes above the commit.
    tail: BTreeMap<Slot, (Ballot, Value)>,
    index: Vec<Position>,
    last_seq: IoSeq,
    previous: u32,
    /// Segment and offset at which the last record ends.
    end: (u32, usize),
}

/// How a segment's records end.
enum End {
    /// Nothing but zeros follows.
    Clean,
    /// Something that is not the next record follows.
    Bad(usize, &'static str),
    /// A whole record follows that no correct node writes.
    Senseless(usize),
}

pub(super) fn recover(place: &Place) -> Result<Found, JournalError> {
    let numbers = place.list()?;
    if numbers.is_empty() {
        place.create(1).map_err(|source| JournalError::Unwritable {
            path: place.dir.clone(),
            source,
        })?;
        return Ok(Scan {
            end: (1, HEADER_BYTES),
            ..Scan::default()
        }
        .finish());
    }
    let mut scan = Scan {
        end: (1, HEADER_BYTES),
        ..Scan::default()
    };
    let mut at = 0;
    while at < numbers.len() {
        let number = numbers[at];
        if number as usize != at + 1 {
            let what = format!("segment {} is missing", at + 1);
            return Err(JournalError::corrupt(&place.dir, 0, &what));
        }
        let bytes = read(place, number)?;
        let salt = place.check(number, &bytes)?.salt();
        match scan.segment(number, &bytes, salt) {
            End::Clean => {}
            End::Bad(offset, what) => {
                let after = &numbers[at + 1..];
                judge(place, &scan, number, &bytes, offset, what, after)?;
                erase(place, number, &bytes, offset)?;
            }
            End::Senseless(offset) => {
                let what = "the record is below an earlier promise";
                return Err(JournalError::corrupt(
                    &place.path(number),
                    offset as u64,
                    what,
                ));
            }
        }
        at += 1;
    }
    scan.check(place)?;
    Ok(scan.finish())
}

impl Scan {
    /// Takes the records of a segment, up to its end or the first that is not right.
    fn segment(&mut self, number: u32, bytes: &Bytes, salt: u32) -> End {
        let mut offset = HEADER_BYTES;
        loop {
            let promised = self.promised;
            match self.record(number, bytes, offset, salt) {
                Ok(length) => offset += length,
                Err(_) if bytes[offset..].iter().all(|byte| *byte == 0) => return End::Clean,
                Err(what) => return End::Bad(offset, what),
            }
            if self.promised < promised {
                return End::Senseless(self.end.1);
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
        }
        Ok(record_bytes(length))
    }

    fn accept(&mut self, header: &RecordHeader, position: Position, value: Value) {
        self.promised = header.ballot;
        index_put(&mut self.index, header.slot, position);
        if header.slot > self.commit {
            self.tail.insert(header.slot, (header.ballot, value));
        }
    }

    /// A commit hint follows the votes it speaks of, so all of them have to be there.
    fn check(&self, place: &Place) -> Result<(), JournalError> {
        let commit = self.commit as usize;
        let chosen = self.index.get(..commit);
        let gap = chosen.and_then(|chosen| chosen.iter().position(|place| *place == NOWHERE));
        let missing = if chosen.is_none() {
            Some(self.index.len())
        } else {
            gap
        };
        match missing {
            None => Ok(()),
            Some(at) => {
                let what = format!("slot {} is committed and not there", at + 1);
                Err(JournalError::corrupt(&place.dir, 0, &what))
            }
        }
    }

    fn finish(self) -> Found {
        let tail = self.tail.into_iter().map(|(slot, (ballot, value))| {
            // A copy, because a slice would keep the whole segment in memory.
            AcceptedEntry {
                slot,
                ballot,
                value: Bytes::copy_from_slice(&value),
            }
        });
        Found {
            recovered: Recovered {
                promised: self.promised,
                commit: self.commit,
                tail: tail.collect(),
                last_seq: self.last_seq,
            },
            index: self.index,
            segment: self.end.0,
            offset: self.end.1 as u64,
            previous: self.previous,
        }
    }
}

/// Decides whether the damage at `offset` is the tear of an unfinished write.
fn judge(
    place: &Place,
    scan: &Scan,
    number: u32,
    bytes: &[u8],
    offset: usize,
    what: &str,
    after: &[u32],
) -> Result<(), JournalError> {
    let lost = IoSeq(scan.last_seq.0 + 1);
    let path = place.path(number);
    if proves_durable(&bytes[offset..], place.header(number).salt(), lost) {
        return Err(JournalError::corrupt(&path, offset as u64, what));
    }
    for next in after {
        // A segment is written to only when the one before is durable to its end.
        let bytes = read(place, *next)?;
        if bytes[HEADER_BYTES.min(bytes.len())..]
            .iter()
            .any(|byte| *byte != 0)
        {
            return Err(JournalError::corrupt(&path, offset as u64, what));
        }
    }
    Ok(())
}

/// Whether any record in `bytes` was written when operation `seq` was durable.
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
fn erase(place: &Place, number: u32, bytes: &[u8], offset: usize) -> Result<(), JournalError> {
    let path = place.path(number);
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(offset, |last| last + 1);
    let zeros = vec![0; end.saturating_sub(offset)];
    let written = place.open(number).and_then(|file| {
        file.write_all_at(&zeros, offset as u64)?;
        file.sync_data()
    });
    written.map_err(|error| JournalError::io(&path, error))
}

fn read(place: &Place, number: u32) -> Result<Bytes, JournalError> {
    let path = place.path(number);
    fs::read(&path)
        .map(Bytes::from)
        .map_err(|error| JournalError::io(&path, error))
}
