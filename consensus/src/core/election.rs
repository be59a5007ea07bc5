//! Elections: probe, then phase 1.
//!
//! A probe changes nothing at its receiver. Only a node that a quorum would vote for raises its
//! ballot, so a node that cannot hear the leader, or comes back after a while, unseats no one.

use super::{AcceptedEntry, Ballot, Core, Effects, Msg, Mutation, NodeId, Role, Send, Slot, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;

/// Probes repeat this often per heartbeat interval: right after a leader's death the others may
/// learn of it some milliseconds later than the prober, and refuse once.
const PROBES_PER_HEARTBEAT: u64 = 5;

/// Phase 1 under way at the promised ballot.
#[derive(Debug)]
pub(super) struct Candidacy {
    promises: u64,
    commit_max: Slot,
    best: BTreeMap<Slot, (Ballot, Value)>,
}

impl Core {
    pub(super) fn start_probe(&mut self, out: &mut Effects) {
        self.nonce += 1;
        self.leader = None;
        self.deadline = self.now + self.election_timeout();
        let granted = self.member_bit(self.config.id);
        self.role = Role::Probing {
            nonce: self.nonce,
            granted,
        };
        self.send_probes(out);
        if self.is_quorum(granted) {
            self.start_candidacy(out);
        }
    }

    /// Gives up the lead, or the way to it, and seeks it no more; or does so again.
    pub(super) fn abstain(&mut self, abstains: bool, out: &mut Effects) {
        self.abstains = abstains;
        if !abstains || matches!(self.role, Role::Follower) {
            return;
        }
        if matches!(self.role, Role::Leader(_)) {
            let ballot = self.promised;
            for peer in &self.peers {
                self.send(peer.id, Msg::Resign { ballot }, out);
            }
        }
        self.step_down();
    }

    /// In the place of an election: somebody else has to start it.
    pub(super) fn wait_for_leader(&mut self) {
        self.leader = None;
        self.deadline = self.now + self.election_timeout();
    }

    pub(super) fn on_resign(&mut self, from: NodeId, ballot: Ballot) {
        if ballot == self.promised && ballot.node == from {
            self.leader = None;
            self.suspect(from);
        }
    }

    /// `id` is gone, or leads no more.
    pub(super) fn suspect(&mut self, id: NodeId) {
        // The node we last promised to is the leader or is becoming it.
        if self.promised.node == id && matches!(self.role, Role::Follower) {
            self.quiet_until = self.now;
            let delay = self.random_between(self.config.suspect_min, self.config.suspect_max);
            self.deadline = self.deadline.min(self.now + delay);
        }
    }

    fn send_probes(&mut self, out: &mut Effects) {
        self.resend_at = self.now + self.config.heartbeat / PROBES_PER_HEARTBEAT;
        let probe = Msg::Probe {
            nonce: self.nonce,
            commit: self.commit,
        };
        self.send_members(&probe, out);
    }

    /// Resends and timeouts of a probing node or candidate.
    pub(super) fn election_tick(&mut self, out: &mut Effects) {
        if self.now >= self.deadline {
            self.start_probe(out);
        } else if self.now >= self.resend_at {
            match self.role {
                Role::Candidate(_) => self.send_prepares(out),
                _ => self.send_probes(out),
            }
        }
    }

    pub(super) fn on_probe(&mut self, from: NodeId, nonce: u64, commit: Slot, out: &mut Effects) {
        let idle = matches!(self.role, Role::Follower | Role::Probing { .. });
        let idle = idle && self.recovery.votes();
        let quiet = self.now >= self.quiet_until;
        // One that lacks slots which are gone from memory here could not learn them from a promise.
        let fit = commit + 1 >= self.window.base();
        let reply = Msg::ProbeReply {
            nonce,
            granted: idle && quiet && fit,
            promised: self.promised,
        };
        self.send(from, reply, out);
    }

    pub(super) fn on_probe_reply(
        &mut self,
        from: NodeId,
        nonce: u64,
        yes: bool,
        promised: Ballot,
        out: &mut Effects,
    ) {
        self.round_max = self.round_max.max(promised.round);
        let bit = self.member_bit(from);
        let Role::Probing {
            nonce: mine,
            granted,
        } = &mut self.role
        else {
            return;
        };
        if !yes || nonce != *mine {
            return;
        }
        *granted |= bit;
        let granted = *granted;
        if self.is_quorum(granted) {
            self.start_candidacy(out);
        }
    }

    fn start_candidacy(&mut self, out: &mut Effects) {
        let heard = self.round_max.max(self.promised.round);
        let round = heard.max(self.recovery.floor()) + 1;
        self.promise(
            Ballot {
                round,
                node: self.config.id,
            },
            out,
        );
        self.deadline = self.now + self.election_timeout();
        self.role = Role::Candidate(Candidacy {
            promises: 0,
            commit_max: 0,
            best: BTreeMap::new(),
        });
        self.send_prepares(out);
    }

    /// Phase 1a leaves when the ballot is durable here: after a crash it must not be used again.
    fn send_prepares(&mut self, out: &mut Effects) {
        self.resend_at = self.now + self.config.heartbeat;
        let early = self.mutated(Mutation::PrepareBeforeFlush);
        let after = if early {
            super::IoSeq(0)
        } else {
            self.promise_seq
        };
        let prepare = Msg::Prepare {
            ballot: self.promised,
            from: self.commit + 1,
        };
        for peer in self.voters() {
            out.sends.push(Send {
                after,
                to: peer.id,
                msg: prepare.clone(),
            });
        }
    }

    pub(super) fn on_prepare(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        first: Slot,
        out: &mut Effects,
    ) {
        if ballot < self.promised {
            self.send(
                from,
                Msg::Reject {
                    promised: self.promised,
                },
                out,
            );
            return;
        }
        let deaf = ballot.node != from || !self.recovery.votes();
        if deaf || first < self.window.base() {
            return;
        }
        if ballot > self.promised {
            self.promise(ballot, out);
        }
        self.quiet_until = self.now + self.config.election_min;
        self.deadline = self.now + self.election_timeout();
        let entries = (first..=self.window.last()).filter_map(|slot| {
            let entry = self.window.get(slot)?;
            Some(AcceptedEntry {
                slot,
                ballot: entry.ballot,
                value: entry.value.clone(),
            })
        });
        let msg = Msg::Promise {
            ballot,
            commit: self.commit,
            entries: entries.collect(),
        };
        // The votes reported may be unflushed too, so wait for all that was written.
        let early = self.mutated(Mutation::PromiseBeforeFlush);
        let after = if early {
            super::IoSeq(0)
        } else {
            self.last_seq
        };
        out.sends.push(Send {
            after,
            to: from,
            msg,
        });
    }

    pub(super) fn on_promise(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        commit: Slot,
        entries: Vec<AcceptedEntry>,
        out: &mut Effects,
    ) {
        let lowest = self.mutated(Mutation::PickLowestBallot);
        let deaf = self.mutated(Mutation::DropTail);
        let bit = self.member_bit(from);
        let promised = self.promised;
        let Role::Candidate(candidacy) = &mut self.role else {
            return;
        };
        if ballot != promised {
            return;
        }
        candidacy.promises |= bit;
        if deaf {
            return self.try_lead(out);
        }
        candidacy.commit_max = candidacy.commit_max.max(commit);
        for entry in entries {
            candidacy.add(entry.slot, entry.ballot, &entry.value, lowest);
        }
        self.try_lead(out);
    }

    /// Leads once a quorum has promised, this node included when its promise is durable.
    pub(super) fn try_lead(&mut self, out: &mut Effects) {
        let own = self.member_bit(self.config.id);
        let own_durable = self.flushed >= self.promise_seq;
        let Role::Candidate(candidacy) = &mut self.role else {
            return;
        };
        if own_durable {
            candidacy.promises |= own;
        }
        let promises = candidacy.promises;
        // Without its own promise it could lead too, but its votes count only after it anyway.
        if !own_durable || !self.is_quorum(promises) {
            return;
        }
        let Role::Candidate(candidacy) = std::mem::replace(&mut self.role, Role::Follower) else {
            return;
        };
        self.recover_tail(candidacy, out);
        self.lead(out);
    }

    /// Proposes under the own ballot all that may have been chosen, and noops where nothing was.
    fn recover_tail(&mut self, mut candidacy: Candidacy, out: &mut Effects) {
        let lowest = self.mutated(Mutation::PickLowestBallot);
        for slot in self.commit + 1..=self.window.last() {
            if let Some(entry) = self.window.get(slot) {
                candidacy.add(slot, entry.ballot, &entry.value.clone(), lowest);
            }
        }
        let highest = candidacy
            .best
            .last_key_value()
            .map_or(self.commit, |(slot, _)| *slot);
        for slot in self.commit + 1..=highest {
            let value = match candidacy.best.remove(&slot) {
                Some((_, value)) => value,
                None => {
                    assert!(
                        slot > candidacy.commit_max,
                        "a chosen slot was not reported"
                    );
                    Value::new()
                }
            };
            self.vote(slot, value, out);
        }
        assert!(
            self.window.last() >= candidacy.commit_max,
            "chosen slots were not reported"
        );
    }
}

impl Candidacy {
    fn add(&mut self, slot: Slot, ballot: Ballot, value: &Value, lowest: bool) {
        match self.best.entry(slot) {
            MapEntry::Vacant(vacant) => {
                vacant.insert((ballot, value.clone()));
            }
            MapEntry::Occupied(mut occupied) => {
                if (ballot > occupied.get().0) != lowest {
                    occupied.insert((ballot, value.clone()));
                }
            }
        }
    }
}
