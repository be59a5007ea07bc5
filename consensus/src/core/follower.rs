//! Voting: what an acceptor does with a leader's messages.

use super::{
    Ballot, Core, Echo, Effects, IoSeq, JournalOp, Msg, Mutation, NodeId, Role, Send, Slot, Value,
};

impl Core {
    /// Follows `from` at `ballot`, and returns true, if it leads there.
    fn follow(&mut self, from: NodeId, ballot: Ballot, out: &mut Effects) -> bool {
        if ballot.node != from {
            return false;
        }
        if ballot < self.promised {
            self.send(
                from,
                Msg::Reject {
                    promised: self.promised,
                },
                out,
            );
            return false;
        }
        if ballot > self.promised {
            self.promise(ballot, out);
        }
        assert!(
            ballot.node != self.config.id,
            "someone else leads at this node's ballot"
        );
        self.role = Role::Follower;
        self.leader = Some(from);
        self.quiet_until = self.now + self.config.election_min;
        self.deadline = self.now + self.election_timeout();
        true
    }

    pub(super) fn on_accept(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        slot: Slot,
        commit: Slot,
        value: Value,
        out: &mut Effects,
    ) {
        let forget = self.mutated(Mutation::ForgetPromise) && ballot < self.promised;
        if !forget && !self.follow(from, ballot, out) {
            return;
        }
        // Far ahead of a gap: the gap is filled first, and this is sent again after it.
        let reach = self.seen_upto + 4 * self.config.window_slots as u64;
        let wanted = slot > self.commit && slot <= reach;
        if !(wanted && self.consider(ballot, slot, value, out)) {
            // No flush will follow that answers it; a new vote is answered when it is durable.
            self.ack_due = true;
        }
        self.advance_seen();
        self.learn_commit(commit);
    }

    /// Votes unless that was done already at this ballot.
    fn consider(&mut self, ballot: Ballot, slot: Slot, value: Value, out: &mut Effects) -> bool {
        if let Some(entry) = self.window.get(slot)
            && entry.ballot == ballot
        {
            assert!(
                entry.value == value || self.config_is_mutated(),
                "two values for slot {slot} at ballot {ballot}"
            );
            return false;
        }
        self.vote_at(ballot, slot, value, out);
        true
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        commit: Slot,
        echo: Echo,
        out: &mut Effects,
    ) {
        if !self.follow(from, ballot, out) {
            return;
        }
        self.learn_commit(commit);
        self.send_accepted(from, Some(echo), out);
    }

    pub(super) fn on_commit(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        commit: Slot,
        out: &mut Effects,
    ) {
        if self.follow(from, ballot, out) {
            self.learn_commit(commit);
        }
    }

    /// The leader cannot send what is missing here.
    pub(super) fn on_behind(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        first: Slot,
        out: &mut Effects,
    ) {
        if self.follow(from, ballot, out) && first > self.commit + 1 {
            out.behind = Some(first);
        }
    }

    /// A checkpoint stands in for the log up to `slot`.
    pub(super) fn on_installed(&mut self, slot: Slot, out: &mut Effects) {
        if slot <= self.commit {
            return;
        }
        if !matches!(self.role, Role::Follower) {
            self.step_down();
        }
        self.window.skip_to(slot + 1);
        self.set_commit(slot);
        self.hinted = self.hinted.max(slot);
        self.seen_upto = self.seen_upto.max(slot);
        self.durable_upto = self.durable_upto.max(slot);
        let seq = self.write(JournalOp::Install(slot), out);
        // That these slots are here is said only when it is so for good.
        self.promise_seq = self.promise_seq.max(seq);
        self.ack_due = true;
        self.advance_seen();
        self.advance_durable();
    }

    pub(super) fn on_reject(&mut self, promised: Ballot) {
        self.round_max = self.round_max.max(promised.round);
        let outdated = promised > self.promised;
        if outdated && matches!(self.role, Role::Leader(_) | Role::Candidate(_)) {
            self.step_down();
        }
    }

    pub(super) fn step_down(&mut self) {
        self.role = Role::Follower;
        self.leader = None;
        self.quiet_until = self.now;
        self.deadline = self.now + self.election_timeout();
    }

    /// Moves the commit over slots voted for at the promised ballot. That ballot is at least the
    /// one whose leader said they are chosen, so the vote is for the chosen value.
    fn learn_commit(&mut self, commit: Slot) {
        self.commit_known = self.commit_known.max(commit);
        let any = self.mutated(Mutation::CommitAnyBallot);
        let mut upto = self.commit;
        while upto < self.commit_known {
            let next = self.window.get(upto + 1);
            if !next.is_some_and(|entry| any || entry.ballot == self.promised) {
                break;
            }
            upto += 1;
        }
        if upto > self.commit {
            self.set_commit(upto);
            self.advance_seen();
            self.advance_durable();
        }
    }

    /// Tells the leader once per turn what has become durable.
    pub(super) fn send_ack(&mut self, out: &mut Effects) {
        if !std::mem::take(&mut self.ack_due) {
            return;
        }
        if let (Some(leader), Role::Follower) = (self.leader, &self.role) {
            self.send_accepted(leader, None, out);
        }
    }

    fn send_accepted(&mut self, to: NodeId, echo: Option<Echo>, out: &mut Effects) {
        let mut upto = self.durable_upto;
        let mut after = self.promise_seq;
        if self.mutated(Mutation::AckBeforeFlush) {
            upto = self.seen_upto;
            after = IoSeq(0);
        }
        let msg = Msg::Accepted {
            ballot: self.promised,
            upto,
            seen: self.seen_upto,
            barrier: self.recovery.barrier(),
            echo,
        };
        out.sends.push(Send { after, to, msg });
    }

    fn config_is_mutated(&self) -> bool {
        #[cfg(test)]
        return self.config.mutation.is_some();
        #[cfg(not(test))]
        false
    }
}
