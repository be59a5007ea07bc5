//! A disk that keeps what was flushed, and of the rest whatever prefix it likes.

use super::draw::Draw;
use crate::core::{AcceptedEntry, Ballot, DurableState, IoSeq, JournalOp, Recovery, Slot, Value};
use fastrand::Rng;
use std::collections::BTreeMap;

/// What a prefix of the operations adds up to.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub promised: Ballot,
    pub commit: Slot,
    pub votes: BTreeMap<Slot, (Ballot, Value)>,
    pub seq: IoSeq,
    pub recovery: Option<Recovery>,
    /// Slots up to this one are not in the log any more, or need not be what was chosen.
    pub gone: Slot,
}

impl State {
    fn truncate(&mut self, upto: Slot) {
        self.votes = self.votes.split_off(&(upto + 1));
        self.gone = self.gone.max(upto);
    }

    pub fn is_voter(&self) -> bool {
        self.recovery.is_some_and(|recovery| recovery.votes())
    }

    fn apply(&mut self, seq: IoSeq, op: &JournalOp) {
        assert_eq!(seq.0, self.seq.0 + 1, "operations have no gaps");
        self.seq = seq;
        match op {
            JournalOp::Promise(ballot) => self.promised = *ballot,
            JournalOp::Accept {
                ballot,
                slot,
                value,
            } => {
                self.promised = self.promised.max(*ballot);
                self.votes.insert(*slot, (*ballot, value.clone()));
            }
            JournalOp::Commit(slot) => self.commit = self.commit.max(*slot),
            JournalOp::Recovery(recovery) => self.recovery = Some(*recovery),
            JournalOp::Install(slot) => {
                self.commit = self.commit.max(*slot);
                self.truncate(*slot);
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Disk {
    /// All that was written.
    pub written: State,
    /// All that survives for sure.
    pub durable: State,
    unflushed: Vec<(IoSeq, JournalOp)>,
    /// Slot of the newest checkpoint, which is beside the log.
    pub checkpoint: Slot,
}

impl Disk {
    pub fn write(&mut self, seq: IoSeq, op: JournalOp) {
        self.written.apply(seq, &op);
        self.unflushed.push((seq, op));
    }

    /// Drops the log up to a slot that a checkpoint covers.
    pub fn truncate(&mut self, upto: Slot) {
        self.written.truncate(upto);
        self.durable.truncate(upto);
    }

    pub fn dirty(&self) -> bool {
        !self.unflushed.is_empty()
    }

    /// Makes all up to `seq` durable, and gives the operations that this adds.
    pub fn flush(&mut self, seq: IoSeq) -> Vec<JournalOp> {
        let count = self
            .unflushed
            .iter()
            .take_while(|(at, _)| *at <= seq)
            .count();
        let ops = self.unflushed.drain(..count).map(|(at, op)| {
            self.durable.apply(at, &op);
            op
        });
        ops.collect()
    }

    /// Loses what is not flushed, or a part of it. Gives the operations that turned out durable,
    /// and how many were lost.
    pub fn crash(&mut self, rng: &mut Rng) -> (Vec<JournalOp>, usize) {
        let unflushed = self.unflushed.len() as u64;
        let kept = match rng.between(0, 3) {
            0 => unflushed,
            1 => rng.between(0, unflushed),
            _ => 0,
        };
        let survived = self.flush(IoSeq(self.durable.seq.0 + kept));
        let lost = self.unflushed.len();
        self.unflushed.clear();
        self.written = self.durable.clone();
        (survived, lost)
    }

    pub fn recover(&self) -> DurableState {
        let State {
            promised,
            commit,
            votes,
            seq,
            recovery,
            ..
        } = &self.durable;
        let tail = votes
            .range(commit + 1..)
            .map(|(slot, (ballot, value))| AcceptedEntry {
                slot: *slot,
                ballot: *ballot,
                value: value.clone(),
            });
        DurableState {
            promised: *promised,
            commit: *commit,
            tail: tail.collect(),
            last_seq: *seq,
            recovery: *recovery,
        }
    }
}
