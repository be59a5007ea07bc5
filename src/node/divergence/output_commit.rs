//! Output commit: output is held back from clients until enough replicas have computed the same
//! (`vote`), or while it is not settled which replica is right.
//!
//! Records are held in order and as the server encoded them, in batches that end with a
//! slot; agreement comes slot by slot.

use crate::server::output::Sink;
use brolga_tape::record::{Record, decode};
use std::collections::VecDeque;

/// Records up to the end of a slot.
#[derive(Debug)]
struct Batch {
    slot: u64,
    bytes: Vec<u8>,
}

/// Output on its way to clients, held back as far as it is not confirmed.
#[derive(Debug)]
pub struct OutputCommit {
    /// Slots up to this one may pass.
    limit: u64,
    held: VecDeque<Batch>,
    /// Of the slot under way.
    open: Vec<u8>,
}

impl OutputCommit {
    /// Lets everything pass, or nothing yet.
    pub fn new(is_open: bool) -> Self {
        Self {
            limit: if is_open { u64::MAX } else { 0 },
            held: VecDeque::new(),
            open: Vec::new(),
        }
    }

    /// Drops what is held: a fresh server says everything again.
    pub fn restart(&mut self) {
        self.held.clear();
        self.open.clear();
    }

    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        let held = self.held.iter().map(|batch| batch.bytes.len());
        held.sum::<usize>() + self.open.len()
    }

    /// From now on slots up to `limit` may pass; the ones that are held already go to `sink`.
    pub fn set_limit(&mut self, limit: u64, sink: &mut impl Sink) {
        self.limit = limit;
        while self.held.front().is_some_and(|batch| batch.slot <= limit)
            && let Some(batch) = self.held.pop_front()
        {
            pour(&batch.bytes, sink);
            sink.done(batch.slot);
        }
        if limit == u64::MAX {
            pour(&std::mem::take(&mut self.open), sink);
        }
    }

    /// A sink in front of `sink`.
    pub fn before<'a, S: Sink>(&'a mut self, sink: &'a mut S) -> Committing<'a, S> {
        Committing { commit: self, sink }
    }

    fn is_open(&self) -> bool {
        self.limit == u64::MAX
    }
}

fn pour(mut bytes: &[u8], sink: &mut impl Sink) {
    while let Ok((record, used)) = decode(bytes) {
        let (encoded, rest) = bytes.split_at(used);
        sink.record(&record, encoded);
        bytes = rest;
    }
}

/// See [`OutputCommit::before`].
#[derive(Debug)]
pub struct Committing<'a, S> {
    commit: &'a mut OutputCommit,
    sink: &'a mut S,
}

impl<S: Sink> Sink for Committing<'_, S> {
    fn record(&mut self, record: &Record<'_>, encoded: &[u8]) {
        if self.commit.is_open() {
            self.sink.record(record, encoded);
        } else if self.sink.concerns(record) {
            self.commit.open.extend_from_slice(encoded);
        } else {
            self.sink.record(record, encoded);
        }
    }

    fn done(&mut self, slot: u64) {
        let commit = &mut *self.commit;
        if commit.is_open() {
            return self.sink.done(slot);
        }
        if commit.open.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut commit.open);
        if slot <= commit.limit && commit.held.is_empty() {
            // The others were faster.
            pour(&bytes, self.sink);
            return self.sink.done(slot);
        }
        commit.held.push_back(Batch { slot, bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_tape::ConnId;
    use brolga_tape::record::encode;

    #[derive(Default)]
    struct Seen(Vec<u64>);

    impl Sink for Seen {
        fn record(&mut self, record: &Record<'_>, _: &[u8]) {
            let Record::Consumed { upto, .. } = record else {
                panic!("only these were put in");
            };
            self.0.push(*upto);
        }

        fn done(&mut self, _: u64) {}
    }

    /// Two records for each slot: its number times ten, and one more.
    fn slot(commit: &mut OutputCommit, seen: &mut Seen, slot: u64, ends: bool) {
        for upto in [slot * 10, slot * 10 + 1] {
            let conn = ConnId::default();
            let record = Record::Consumed { conn, upto };
            let mut bytes = Vec::new();
            encode(&record, |piece| bytes.extend_from_slice(piece));
            commit.before(seen).record(&record, &bytes);
        }
        if ends {
            commit.before(seen).done(slot);
        }
    }

    #[test]
    fn without_a_limit_everything_passes_at_once() {
        let (mut commit, mut seen) = (OutputCommit::new(true), Seen::default());
        slot(&mut commit, &mut seen, 1, false);
        assert_eq!(seen.0, [10, 11]);
        assert_eq!(commit.held_bytes(), 0);
    }

    #[test]
    fn slots_pass_in_order_when_they_may() {
        let (mut commit, mut seen) = (OutputCommit::new(false), Seen::default());
        slot(&mut commit, &mut seen, 1, true);
        slot(&mut commit, &mut seen, 2, true);
        assert_eq!(seen.0, [0; 0]);
        commit.set_limit(1, &mut seen);
        assert_eq!(seen.0, [10, 11]);
        commit.set_limit(3, &mut seen);
        slot(&mut commit, &mut seen, 3, true);
        assert_eq!(seen.0, [10, 11, 20, 21, 30, 31]);
        slot(&mut commit, &mut seen, 4, false);
        assert_eq!(seen.0.len(), 6, "a slot under way is not agreed on");
        commit.set_limit(u64::MAX, &mut seen);
        assert_eq!(seen.0[6..], [40, 41]);
    }

    #[test]
    fn a_limit_that_is_lowered_keeps_the_order() {
        let (mut commit, mut seen) = (OutputCommit::new(true), Seen::default());
        slot(&mut commit, &mut seen, 1, true);
        commit.set_limit(1, &mut seen);
        slot(&mut commit, &mut seen, 2, true);
        slot(&mut commit, &mut seen, 3, true);
        assert_eq!(seen.0, [10, 11]);
        commit.restart();
        commit.set_limit(u64::MAX, &mut seen);
        assert_eq!(seen.0, [10, 11]);
    }
}
