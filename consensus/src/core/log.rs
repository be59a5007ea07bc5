//! The node's own log: votes and promises are written, and the positions of the log move forward.

use super::types::{Ballot, Effects, IoSeq, JournalOp, Slot, Value};
use super::window::Entry;
use super::{Core, Role};

impl Core {
    /// Notes the commit in the journal, riding on a flush that happens anyway if there is one.
    pub(super) fn write_hint(&mut self, out: &mut Effects) {
        let wrote = std::mem::take(&mut self.wrote_since_tick);
        if self.commit > self.hinted && (wrote || self.now >= self.hint_due) {
            self.hinted = self.commit;
            self.write(JournalOp::Commit(self.commit), out);
            self.wrote_since_tick = false;
        }
    }

    pub(super) fn evict(&mut self) {
        let settled = self.commit.min(self.durable_upto);
        while self.window.base() <= settled
            && (self.window.len() > self.config.retain_slots
                || self.window.bytes() > self.config.retain_bytes)
        {
            self.window.pop_front();
        }
    }

    pub(super) fn write(&mut self, op: JournalOp, out: &mut Effects) -> IoSeq {
        self.last_seq.0 += 1;
        self.wrote_since_tick = true;
        out.journal.push((self.last_seq, op));
        self.last_seq
    }

    /// Votes for a value at the promised ballot.
    pub(super) fn vote(&mut self, slot: Slot, value: Value, out: &mut Effects) {
        self.vote_at(self.promised, slot, value, out);
    }

    pub(super) fn vote_at(&mut self, ballot: Ballot, slot: Slot, value: Value, out: &mut Effects) {
        let seq = self.write(
            JournalOp::Accept {
                ballot,
                slot,
                value: value.clone(),
            },
            out,
        );
        self.window.insert(slot, Entry { ballot, seq, value });
    }

    /// Raises the promise and gives up any role under the former one.
    pub(super) fn promise(&mut self, ballot: Ballot, out: &mut Effects) {
        assert!(ballot > self.promised, "a promise never falls");
        self.promised = ballot;
        self.round_max = self.round_max.max(ballot.round);
        self.promise_seq = self.write(JournalOp::Promise(ballot), out);
        self.seen_upto = self.commit;
        self.durable_upto = self.durable_upto.min(self.commit);
        self.leader = None;
        self.role = Role::Follower;
    }

    pub(super) fn advance_seen(&mut self) {
        while self.seen_upto < self.window.last() {
            let slot = self.seen_upto + 1;
            let here = self
                .window
                .get(slot)
                .is_some_and(|entry| entry.ballot == self.promised);
            if !here && slot > self.commit {
                break;
            }
            self.seen_upto = slot;
        }
    }

    pub(super) fn advance_durable(&mut self) {
        let before = self.durable_upto;
        while self.durable_upto < self.seen_upto {
            let slot = self.durable_upto + 1;
            let flushed = self
                .window
                .get(slot)
                .is_none_or(|entry| entry.seq <= self.flushed);
            if !flushed {
                break;
            }
            self.durable_upto = slot;
        }
        self.ack_due |= self.durable_upto > before;
    }

    pub(super) fn set_commit(&mut self, commit: Slot) {
        assert!(commit >= self.commit, "the commit never falls");
        if self.commit == self.hinted {
            self.hint_due = self.now + self.config.heartbeat;
        }
        if let Role::Leader(leading) = &mut self.role {
            let chosen = self.commit + 1..=commit;
            let bytes = chosen
                .filter_map(|slot| self.window.get(slot))
                .map(|e| e.value.len());
            leading.open_bytes -= bytes.sum::<usize>();
        }
        self.commit = commit;
        self.commit_known = self.commit_known.max(commit);
    }
}
