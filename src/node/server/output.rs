//! The output of the server: drains the output ring, keeps the running output hash, and
//! remembers both hashes of each slot so that replicas can be compared at any recent slot.
//!
//! Every replica hashes the same record bytes in the same order, so equal hashes at a slot mean
//! equal outputs from the start up to that slot.

use crate::server::hashes::{History, SlotHashes};
use crate::server::recent_outputs::RecentOutputs;
use brolga_tape::entry::EntryError;
use brolga_tape::record::{Record, decode};
use std::collections::VecDeque;
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The server's state after the last `Done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerClock {
    /// The slot.
    pub slot: u64,
    /// The server cannot run until another entry comes.
    pub idle: bool,
    /// Virtual time of the earliest timer, or `NO_DEADLINE`.
    pub deadline_ns: u64,
    /// The time at which the node saw it.
    pub at: Instant,
}

/// Receives what the server does to connections and ports.
pub(crate) trait Sink {
    /// Takes a record other than `Done`, and its encoding.
    fn record(&mut self, record: &Record<'_>, encoded: &[u8]);
    /// All records before were of this slot or earlier ones.
    fn done(&mut self, slot: u64);
    /// Returns true when anything leaves the node because of the record.
    fn concerns(&self, _record: &Record<'_>) -> bool {
        true
    }
}

/// Batches of output of which it is remembered when they came.
const BATCHES_MAX: usize = 512;

/// The output side of one run of the server, plus the history over all runs.
#[derive(Debug, Default)]
pub(crate) struct Output {
    hash: u64,
    clock: Option<ServerClock>,
    last: SlotHashes,
    history: History,
    divergence: Option<SlotHashes>,
    recent: RecentOutputs,
    /// The server has said that it ends.
    ended: bool,
    /// The last slot of each batch, and when it came.
    batches: VecDeque<(u64, Instant)>,
    /// Slots that nobody has asked for yet.
    fresh: Vec<SlotHashes>,
}

impl Output {
    /// The output of a server that has not started.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A fresh server starts from slot 1 again; what is known of the slots is kept to compare.
    pub(crate) fn restart(&mut self) {
        self.hash = 0;
        self.clock = None;
        self.last = SlotHashes::default();
        self.recent.restart();
        self.ended = false;
        self.batches.clear();
        self.fresh.clear();
    }

    /// A server goes on after `applied`, idle, until a timer is due at `deadline_ns`. `hashes`:
    /// those of slots before.
    pub(crate) fn resume(
        &mut self,
        applied: SlotHashes,
        deadline_ns: u64,
        hashes: &[SlotHashes],
        now: Instant,
    ) {
        self.restart();
        for one in hashes.iter().chain([&applied]) {
            let before = self.history.put(*one);
            self.divergence = self.divergence.or(before);
        }
        self.hash = applied.output_hash;
        self.last = applied;
        self.clock = Some(ServerClock {
            slot: applied.slot,
            idle: true,
            deadline_ns,
            at: now,
        });
    }

    /// Forgets all hashes: the server was faulty, and nothing is to be compared with it.
    pub(crate) fn forget(&mut self) {
        self.history = History::default();
        self.divergence = None;
    }

    /// Takes all records in `bytes`; returns how many bytes they took.
    ///
    /// # Errors
    /// The bytes are not records: the writer is broken.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        now: Instant,
        sink: &mut impl Sink,
    ) -> Result<usize, EntryError> {
        let mut at = 0;
        while at < bytes.len() {
            let (record, used) = decode(&bytes[at..])?;
            let encoded = &bytes[at..at + used];
            if matches!(record, Record::Step { .. }) {
                // Replicas that are traced agree with those that are not.
                at += used;
                continue;
            }
            if !record.is_about_watching() {
                self.hash = xxh3_64_with_seed(encoded, self.hash);
                self.recent.push(encoded, self.hash);
            }
            at += used;
            match record {
                Record::Done {
                    slot,
                    schedule_hash,
                    deadline_ns,
                    idle,
                    ..
                } => {
                    self.done(slot, schedule_hash);
                    sink.done(slot);
                    self.clock = Some(ServerClock {
                        slot,
                        idle,
                        deadline_ns,
                        at: now,
                    });
                }
                other => {
                    self.ended |= matches!(other, Record::Exit { .. } | Record::Fault { .. });
                    sink.record(&other, encoded);
                }
            }
        }
        self.note_batch(now);
        Ok(at)
    }

    /// The last slot that has had its time, with its hashes; slot 0 before the first.
    pub(crate) fn applied(&self) -> SlotHashes {
        self.last
    }

    /// The server's state after that slot.
    pub(crate) fn clock(&self) -> Option<ServerClock> {
        self.clock
    }

    /// The hashes of recent slots.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// The hashes of all slots since the last call.
    pub(crate) fn drain_fresh(&mut self) -> impl Iterator<Item = SlotHashes> {
        self.fresh.drain(..)
    }

    /// The last records.
    pub(crate) fn recent(&self) -> &RecentOutputs {
        &self.recent
    }

    /// Takes the last records away.
    pub(crate) fn take_recent(&mut self) -> RecentOutputs {
        std::mem::take(&mut self.recent)
    }

    /// Returns the time at which the answer to `slot` was seen, if that is not long ago.
    pub(crate) fn seen_at(&self, slot: u64) -> Option<Instant> {
        let after = self.batches.partition_point(|(last, _)| *last < slot);
        let older_is_known = after > 0 || self.batches.len() < BATCHES_MAX;
        let batch = self.batches.get(after).filter(|_| older_is_known)?;
        Some(batch.1)
    }

    /// Ends the output. If the server has said so itself, what came after the last slot makes one
    /// more, whose number is returned.
    pub(crate) fn end(&mut self) -> Option<u64> {
        if !std::mem::take(&mut self.ended) {
            return None;
        }
        let slot = self.last.slot + 1;
        self.done(slot, self.last.schedule_hash);
        Some(slot)
    }

    fn note_batch(&mut self, now: Instant) {
        let slot = self.last.slot;
        if self.batches.back().is_some_and(|(last, _)| *last == slot) {
            return;
        }
        if self.batches.len() == BATCHES_MAX {
            self.batches.pop_front();
        }
        self.batches.push_back((slot, now));
    }

    /// The hashes at `slot`, if they are still known.
    pub(crate) fn hashes_at(&self, slot: u64) -> Option<SlotHashes> {
        self.history.at(slot)
    }

    /// The first slot at which this server did something else than the one before it did.
    pub(crate) fn divergence(&self) -> Option<SlotHashes> {
        self.divergence
    }

    fn done(&mut self, slot: u64, schedule_hash: u64) {
        self.last = SlotHashes {
            slot,
            output_hash: self.hash,
            schedule_hash,
        };
        self.recent.done(slot);
        self.fresh.push(self.last);
        let before = self.history.put(self.last);
        self.divergence = self.divergence.or(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::hashes::HISTORY_SLOTS;
    use brolga_tape::ConnId;
    use brolga_tape::record::{NO_DEADLINE, encode};

    #[derive(Default)]
    struct Count(usize);

    impl Sink for Count {
        fn record(&mut self, _: &Record<'_>, _: &[u8]) {
            self.0 += 1;
        }

        fn done(&mut self, _: u64) {}
    }

    fn bytes(records: &[Record<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records {
            encode(record, |piece| out.extend_from_slice(piece));
        }
        out
    }

    fn data(text: &'static [u8]) -> Record<'static> {
        Record::Data {
            conn: ConnId::default(),
            offset: 0,
            bytes: text,
        }
    }

    fn done(slot: u64) -> Record<'static> {
        Record::Done {
            slot,
            schedule_hash: slot * 3,
            deadline_ns: NO_DEADLINE,
            clock: 0,
            idle: true,
            operation: 0,
        }
    }

    fn feed(output: &mut Output, bytes: &[u8]) -> usize {
        let mut count = Count::default();
        let used = output.take(bytes, Instant::now(), &mut count).unwrap();
        assert_eq!(used, bytes.len());
        count.0
    }

    #[test]
    fn the_hash_depends_on_the_records_and_not_on_how_they_are_cut() {
        let (first, second) = (
            bytes(&[data(b"one"), done(1)]),
            bytes(&[data(b"two"), done(2)]),
        );
        let mut cut = Output::new();
        assert_eq!(feed(&mut cut, &first), 1);
        assert_eq!(feed(&mut cut, &second), 1);
        let mut whole = Output::new();
        assert_eq!(feed(&mut whole, &[first, second].concat()), 2);
        assert_eq!(cut.applied(), whole.applied());
        assert_eq!(cut.hashes_at(1), whole.hashes_at(1));
        assert_ne!(
            cut.hashes_at(1).unwrap().output_hash,
            cut.applied().output_hash
        );
        assert_eq!(cut.hashes_at(3), None);
    }

    #[test]
    fn a_replay_that_differs_is_noticed() {
        let mut output = Output::new();
        feed(&mut output, &bytes(&[data(b"one"), done(1)]));
        output.restart();
        feed(&mut output, &bytes(&[data(b"one"), done(1)]));
        assert_eq!(output.divergence(), None);
        output.restart();
        feed(&mut output, &bytes(&[data(b"ONE"), done(1)]));
        assert_eq!(output.divergence().unwrap().slot, 1);
    }

    #[test]
    fn old_slots_leave_the_history() {
        let mut output = Output::new();
        feed(&mut output, &bytes(&[done(1)]));
        feed(&mut output, &bytes(&[done(1 + HISTORY_SLOTS as u64)]));
        assert_eq!(output.hashes_at(1), None);
        assert!(output.hashes_at(1 + HISTORY_SLOTS as u64).is_some());
    }
}
