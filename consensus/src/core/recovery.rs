//! Disk-loss recovery: how a member that has lost its disk gets its vote back.
//!
//! A node whose log is empty does not know whether it is new or has lost what it promised and voted
//! for. Until it knows it does not vote: it promises nothing, grants no probe, and what it
//! acknowledges helps the leader's flow control and no quorum. It asks *all* other members what
//! they have promised and how far they have voted:
//!
//! * All others are as empty: nobody has promised or voted for anything, so the cluster is new, and
//!   it votes.
//! * Otherwise it promises the highest ballot that anybody has promised, and votes when every
//!   slot that anybody has voted in is known to be chosen.
//!
//! # Why that is enough
//!
//! Let W be the node, and everything said of others what they said after W lost its disk.
//!
//! * *Promises.* If W had promised ballot b, then to the candidate of b, who made b durable before
//!   it asked; so somebody tells W of b, or of more, and W promises that again. It does not help to
//!   ask just a quorum: the candidate might not be in it, and W's old promise may still be under
//!   way to it.
//! * *Votes.* If W had voted in slot s, then the leader at that time had proposed s before, and
//!   tells of s, unless it has crashed before its own vote was durable; then that ballot has no
//!   leader any more, and nobody counts its votes.
//! * *Own ballots.* Those W used before and nobody heard of must not be used again. Its next ones
//!   begin 2³² rounds above all it has heard of.
//! * *Several losses.* The arguments hold as long as each quorum has a member that has lost
//!   nothing; if so many have that this is not so, they all wait, and a person has to decide.
//!
//! The state of recovery is the first operation of the journal, so that a restart changes nothing.

use super::{
    Ballot, Core, DurableState, Effects, JournalOp, Micros, Msg, Mutation, NodeId, Recovery, Slot,
};
use std::collections::BTreeMap;

/// Rounds that a node leaves out after the loss of its disk.
const ROUNDS_LEFT_OUT: u64 = 1 << 32;

/// The answer of another member.
#[derive(Clone, Copy, Debug)]
struct Answer {
    promised: Ballot,
    last: Slot,
    /// The member has lost its disk too.
    lost: bool,
}

/// The inquiry of a member that has lost its disk.
#[derive(Debug)]
pub(super) struct Inquiry {
    /// Tells answers from those to an earlier process of this node.
    nonce: u64,
    ask_at: Micros,
    answers: BTreeMap<NodeId, Answer>,
    /// The state of recovery is not in the journal yet.
    unwritten: bool,
}

impl Inquiry {
    pub fn new(nonce: u64, now: Micros) -> Self {
        Self {
            nonce,
            ask_at: now,
            answers: BTreeMap::new(),
            unwritten: false,
        }
    }
}

/// The state of recovery that a node starts with.
pub(super) fn initial_recovery(recovered: &DurableState, new_cluster: bool) -> Recovery {
    let nothing = recovered.promised == Ballot::default()
        && recovered.commit == 0
        && recovered.tail.is_empty();
    match recovered.recovery {
        Some(recovery) => recovery,
        None if nothing && !new_cluster => Recovery::Lost,
        None => Recovery::Voter { floor: 0 },
    }
}

impl Core {
    /// The state of recovery of this node.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// The members that have answered a node which has lost its disk and asks all of them.
    pub fn answers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.inquiry.answers.keys().copied()
    }

    /// Notes whether the journal holds the state of recovery, which is its first operation.
    pub(super) fn note_recovery(&mut self, recovered: Option<Recovery>) {
        self.inquiry.unwritten = recovered.is_none();
    }

    pub(super) fn write_initial_recovery(&mut self, out: &mut Effects) {
        if std::mem::take(&mut self.inquiry.unwritten) {
            self.set_recovery(self.recovery, out);
        }
    }

    fn set_recovery(&mut self, recovery: Recovery, out: &mut Effects) {
        self.recovery = recovery;
        let seq = self.write(JournalOp::Recovery(recovery), out);
        // No vote leaves before the state that permits it is durable.
        self.promise_seq = self.promise_seq.max(seq);
        self.ack_due = true;
    }

    /// The time at which the others are asked again.
    pub(super) fn ask_deadline(&self) -> Option<Micros> {
        (self.recovery == Recovery::Lost).then_some(self.inquiry.ask_at)
    }

    /// Asks at once: another member is reachable again.
    pub(super) fn inquiry_at_once(&mut self, out: &mut Effects) {
        self.inquiry.ask_at = self.now;
        self.ask(out);
    }

    pub(super) fn ask(&mut self, out: &mut Effects) {
        if self.recovery != Recovery::Lost || self.now < self.inquiry.ask_at {
            return;
        }
        self.inquiry.ask_at = self.now + self.config.heartbeat;
        let nonce = self.inquiry.nonce;
        self.send_members(&Msg::Ask { nonce }, out);
        // A single member has nobody to wait for.
        self.conclude_recovery(out);
    }

    pub(super) fn on_ask(&mut self, from: NodeId, nonce: u64, out: &mut Effects) {
        let last = match self.recovery {
            Recovery::CatchingUp { upto, .. } => upto.max(self.window.last()),
            _ => self.window.last(),
        };
        let answer = Msg::Answer {
            nonce,
            promised: self.promised,
            last,
            lost: !self.recovery.votes(),
        };
        self.send(from, answer, out);
    }

    pub(super) fn on_answer(
        &mut self,
        from: NodeId,
        nonce: u64,
        promised: Ballot,
        last: Slot,
        lost: bool,
        out: &mut Effects,
    ) {
        if self.recovery != Recovery::Lost || nonce != self.inquiry.nonce {
            return;
        }
        let answer = self.inquiry.answers.entry(from).or_insert(Answer {
            promised,
            last,
            lost,
        });
        answer.promised = answer.promised.max(promised);
        answer.last = answer.last.max(last);
        // An answer from before that member lost its disk counts.
        answer.lost &= lost;
        self.conclude_recovery(out);
    }

    /// Decides the state of recovery when all others have answered.
    fn conclude_recovery(&mut self, out: &mut Effects) {
        let hasty = self.mutated(Mutation::AskQuorumOnly);
        let enough = if hasty {
            self.quorum - 1
        } else {
            self.voters().len()
        };
        let answers = &self.inquiry.answers;
        if answers.len() < enough {
            return;
        }
        let promised = answers.values().map(|it| it.promised).max();
        let promised = promised.unwrap_or_default();
        let last = answers.values().map(|it| it.last).max().unwrap_or_default();
        if (promised, last) == (Ballot::default(), 0) {
            return self.set_recovery(Recovery::Voter { floor: 0 }, out);
        }
        let lost = 1 + answers.values().filter(|it| it.lost).count();
        if lost >= self.quorum {
            return;
        }
        if promised > self.promised {
            self.promise(promised, out);
        }
        self.round_max = self.round_max.max(promised.round);
        let floor = self.round_max + ROUNDS_LEFT_OUT;
        let upto = match self.mutated(Mutation::ForgetBarrier) {
            true => 0,
            false => last,
        };
        self.set_recovery(Recovery::CatchingUp { upto, floor }, out);
    }

    /// Votes again once everything that it might have voted on is known to be chosen.
    pub(super) fn vote_when_caught_up(&mut self, out: &mut Effects) {
        if let Recovery::CatchingUp { upto, floor } = self.recovery
            && self.commit >= upto
        {
            self.set_recovery(Recovery::Voter { floor }, out);
        }
    }
}
