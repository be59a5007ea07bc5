//! The last records of the server, slot by slot, so that a divergence can be located.
//!
//! Each record leaves a *mark*: the output hash just after it. Two replicas that agree on the slot
//! before find the first record in which they differ by comparing marks alone. The bytes of recent
//! records are kept beside, so that the divergence can be shown.

use brolga_tape::record::RECORD_HEADER_BYTES;
use std::collections::VecDeque;

/// Marks that are kept.
const MARKS_MAX: usize = 32 * 1024;
/// Bytes of records that are kept, a power of two.
const BYTES_MAX: usize = 1 << 20;
/// Of one record, no more than this is kept.
const RECORD_BYTES_MAX: usize = 64 * 1024;

/// The mark of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    slot: u64,
    hash: u64,
    /// Position of its bytes, counted from the first record on.
    at: u64,
    kept: usize,
}

/// The last records of the server, and the output hash after each.
#[derive(Debug, Default)]
pub(crate) struct RecentOutputs {
    marks: VecDeque<Mark>,
    /// Marks at the end that belong to the slot under way.
    open: usize,
    bytes: Vec<u8>,
    written: u64,
}

impl RecentOutputs {
    /// A fresh server begins from slot 1 again.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Adds a record and the output hash after it.
    pub(crate) fn push(&mut self, record: &[u8], hash: u64) {
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
            self.open = self.open.min(MARKS_MAX - 1);
        }
        let kept = record.len().min(RECORD_BYTES_MAX);
        let at = self.written;
        self.keep(&record[..kept]);
        let mark = Mark {
            slot: 0,
            hash,
            at,
            kept,
        };
        self.marks.push_back(mark);
        self.open += 1;
    }

    /// The records since the last call were those of `slot`.
    pub(crate) fn done(&mut self, slot: u64) {
        for mark in self.marks.iter_mut().rev().take(self.open) {
            mark.slot = slot;
        }
        self.open = 0;
    }

    fn keep(&mut self, record: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; BYTES_MAX];
        }
        let at = self.written as usize % BYTES_MAX;
        let before_end = record.len().min(BYTES_MAX - at);
        let (first, rest) = record.split_at(before_end);
        self.bytes[at..at + before_end].copy_from_slice(first);
        self.bytes[..rest.len()].copy_from_slice(rest);
        self.written += record.len() as u64;
    }

    fn of_slot(&self, slot: u64) -> impl Iterator<Item = &Mark> {
        let closed = self.marks.len() - self.open;
        let closed = self.marks.range(..closed);
        // They are in the order of slots, and the newest are asked for.
        let newer = closed.clone().rev().take_while(|mark| mark.slot > slot);
        let upto = closed.len() - newer.count();
        let before = self.marks.range(..upto).rev();
        let count = before.take_while(|mark| mark.slot == slot).count();
        self.marks.range(upto - count..upto)
    }

    /// The output hash after each record of `slot`, of the first `most`; empty when they are
    /// forgotten.
    pub(crate) fn hashes(&self, slot: u64, most: usize) -> Vec<u64> {
        self.of_slot(slot)
            .map(|mark| mark.hash)
            .take(most)
            .collect()
    }

    /// The record of `slot` with number `index`, cut short when it was long; `None` when there is
    /// none or its bytes are forgotten.
    pub(crate) fn record(&self, slot: u64, index: usize) -> Option<Vec<u8>> {
        let mark = self.of_slot(slot).nth(index)?;
        if self.written - mark.at > BYTES_MAX as u64 {
            return None;
        }
        let at = mark.at as usize % BYTES_MAX;
        let before_end = mark.kept.min(BYTES_MAX - at);
        let mut record = self.bytes[at..at + before_end].to_vec();
        record.extend_from_slice(&self.bytes[..mark.kept - before_end]);
        shorten_payload(&mut record);
        Some(record)
    }
}

/// Makes the length in a record that was cut short say how much is left of it.
fn shorten_payload(record: &mut [u8]) {
    let Some(left) = record.len().checked_sub(RECORD_HEADER_BYTES) else {
        return;
    };
    let said = u32::from_le_bytes([record[4], record[5], record[6], record[7]]);
    if said as usize > left {
        record[4..8].copy_from_slice(&(left as u32).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_tape::ConnId;
    use brolga_tape::record::{Record, decode, encode};

    fn data(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let record = Record::Data {
            conn: ConnId::default(),
            offset: 0,
            bytes,
        };
        encode(&record, |piece| out.extend_from_slice(piece));
        out
    }

    #[test]
    fn the_records_of_a_slot_are_found() {
        let mut recent = RecentOutputs::default();
        for slot in 1..=100_u64 {
            recent.push(&data(&slot.to_le_bytes()), slot * 10);
            recent.push(&data(&[7; 4000]), slot * 10 + 1);
            recent.done(slot);
        }
        recent.push(&data(b"under way"), 9);
        assert_eq!(recent.hashes(99, 10), [990, 991]);
        assert_eq!(recent.hashes(99, 1), [990]);
        assert_eq!(recent.hashes(101, 10), [0; 0]);
        let record = recent.record(100, 0).unwrap();
        assert_eq!(record, data(&100_u64.to_le_bytes()));
        assert_eq!(recent.record(100, 2), None);
    }

    #[test]
    fn old_and_long_records_are_cut_and_forgotten() {
        let mut recent = RecentOutputs::default();
        for slot in 1..=30 {
            recent.push(&data(&[slot as u8; 100_000]), slot);
            recent.done(slot);
        }
        assert_eq!(recent.record(1, 0), None);
        let record = recent.record(30, 0).unwrap();
        let (Record::Data { bytes, .. }, used) = decode(&record).unwrap() else {
            panic!("it was data");
        };
        assert_eq!((used, bytes[0]), (RECORD_BYTES_MAX, 30));
        for _ in 0..=MARKS_MAX {
            recent.push(&data(b""), 0);
        }
        recent.done(31);
        assert_eq!(recent.hashes(30, 9), [0; 0]);
        assert_eq!(recent.hashes(31, usize::MAX).len(), MARKS_MAX);
    }
}
