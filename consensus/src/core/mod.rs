//! The protocol: Multi-Paxos as a deterministic state machine.
//!
//! [`Core::step`] takes the time and one [`Input`] and appends to [`Effects`]; nothing else goes in
//! or out, so the simulator owns time, disk, network and randomness, and one seed gives one run.
//!
//! # Model
//!
//! Processes crash and restart with any prefix of their journal that contains all that was flushed;
//! messages are lost, repeated and reordered at will. Nothing lies, and no disk rots unnoticed (the
//! journal's checksums see to that).
//!
//! # Ordering of effects
//!
//! The journal is one stream of operations numbered by [`IoSeq`]; what is durable is a prefix of
//! it. A message that *promises* something names in `after` the operation it depends on. A leader's
//! phase 2a messages depend on nothing and travel while the leader writes; the leader counts its
//! own vote only when it is flushed.
//!
//! # Invariants
//!
//! * `durable_upto <= seen_upto` and `commit <= window.last()`.
//! * The promised ballot never falls, nor does the commit.
//! * Every slot up to `commit` has the chosen value as its newest vote here: the commit moves over
//!   a slot only if the vote for it was cast at the ballot promised at that moment. The exception
//!   is what a checkpoint covers ([`Input::Installed`]).
//! * A leader proposes new values only above all that phase 1 reported, and all that is unchosen in
//!   there it proposes again under its own ballot.
//!
//! * A node that may have lost votes or promises sends none until it knows what they were.
//!
//! Modules: [`types`] (messages, inputs, effects), `election` (probe, phase 1), `leader` (phase 2,
//! flow control), `follower` (voting), `recovery` (a member that lost its disk), `learners` (nodes
//! that are no members),
//! `window` (the log in memory).

mod config;
mod election;
mod follower;
mod leader;
mod learners;
mod log;
mod mutation;
mod recovery;
#[cfg(test)]
mod tests;
pub mod types;
mod window;

pub use self::config::{Config, DurableState, LEARNERS_FROM, LEARNERS_MAX, MEMBERS_MAX};
pub use self::types::{
    AcceptedEntry, Ballot, Echo, Effects, Fetch, Input, IoSeq, JournalOp, Leadership, Micros, Msg,
    NodeId, Recovery, Send, Slot, Value,
};

use self::election::Candidacy;
use self::leader::{Acknowledgement, Leading, Peer};
pub(crate) use self::mutation::Mutation;
use self::recovery::{Inquiry, initial_recovery};
use self::window::{Entry, Window};

/// Largest value that may be proposed, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// The node does not lead, or has not recovered the tail of the log yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReady;

#[derive(Debug)]
enum Role {
    Follower,
    Probing { nonce: u64, granted: u64 },
    Candidate(Candidacy),
    Leader(Leading),
}

/// The protocol as one node runs it.
#[derive(Debug)]
pub struct Core {
    config: Config,
    quorum: usize,
    rng: fastrand::Rng,
    now: Micros,

    last_seq: IoSeq,
    flushed: IoSeq,
    promised: Ballot,
    promise_seq: IoSeq,
    /// Highest round heard of, promised or not.
    round_max: u64,

    window: Window,
    commit: Slot,
    /// Commit of the leader, which may be ahead of the votes that arrived here.
    commit_known: Slot,
    /// Contiguous slots that are chosen, or voted for at the promised ballot.
    seen_upto: Slot,
    /// The part of `seen_upto` that is flushed.
    durable_upto: Slot,

    hinted: Slot,
    hint_due: Micros,
    wrote_since_tick: bool,
    ack_due: bool,

    role: Role,
    peers: Vec<Peer>,
    leader: Option<NodeId>,
    /// No probe is granted before this time: a leader or a candidate was heard.
    quiet_until: Micros,
    deadline: Micros,
    resend_at: Micros,
    nonce: u64,
    /// This node must not lead: see [`Input::Abstain`].
    abstains: bool,
    recovery: Recovery,
    inquiry: Inquiry,
    reported: Leadership,
}

impl Core {
    /// A follower with the contents of its journal.
    ///
    /// # Panics
    /// The settings contradict each other or the journal.
    pub fn new(config: Config, durable: DurableState, now: Micros) -> Self {
        config.check();
        let (learns, members) = (config.learns(), config.members.len());
        let hasty = config.new_cluster || members == 1;
        let recovery = match learns {
            true => Recovery::Learner,
            false => initial_recovery(&durable, hasty),
        };
        let mut core = Self::at_rest(config, &durable, recovery, now);
        core.inquiry = Inquiry::new(core.random_between(1, u64::MAX - 1), now);
        core.note_recovery(durable.recovery);
        if core.mutated(Mutation::VoteAfterWipe) && !learns {
            core.recovery = Recovery::Voter { floor: 0 };
        }
        if core.mutated(Mutation::MinorityQuorum) {
            core.quorum = (members / 2).max(1);
        }
        core.load(durable.tail);
        if !core.peers.is_empty() {
            core.deadline = now + core.election_timeout();
        }
        core.advance_seen();
        core.advance_durable();
        core
    }

    /// A follower that has heard nothing yet, without the votes above the commit.
    fn at_rest(config: Config, durable: &DurableState, recovery: Recovery, now: Micros) -> Self {
        let others = config.members.iter().filter(|id| **id != config.id);
        let (promised, commit) = (durable.promised, durable.commit);
        Self {
            quorum: config.members.len() / 2 + 1,
            rng: fastrand::Rng::with_seed(config.seed ^ durable.last_seq.0.rotate_left(32)),
            now,
            last_seq: durable.last_seq,
            flushed: durable.last_seq,
            promised,
            promise_seq: durable.last_seq,
            round_max: promised.round.max(recovery.floor()),
            window: Window::new(commit + 1),
            commit,
            commit_known: commit,
            seen_upto: commit,
            durable_upto: commit,
            hinted: commit,
            hint_due: now,
            wrote_since_tick: false,
            ack_due: false,
            role: Role::Follower,
            peers: others.map(|id| Peer::new(*id)).collect(),
            leader: None,
            quiet_until: now,
            deadline: now,
            resend_at: now,
            nonce: 0,
            abstains: false,
            recovery,
            inquiry: Inquiry::new(0, now),
            reported: Leadership {
                ballot: promised,
                leader: None,
                ready: false,
            },
            config,
        }
    }

    /// Puts the votes of the journal into the window.
    fn load(&mut self, tail: Vec<AcceptedEntry>) {
        for entry in tail {
            let AcceptedEntry {
                slot,
                ballot,
                value,
            } = entry;
            assert!(slot > self.commit, "the tail starts above the commit");
            assert!(ballot <= self.promised, "a vote implies the promise");
            let seq = IoSeq(0);
            self.window.insert(slot, Entry { ballot, seq, value });
        }
    }

    /// Takes one input at `now`; `now` never falls.
    pub fn step(&mut self, now: Micros, input: Input, out: &mut Effects) {
        self.now = self.now.max(now);
        self.write_initial_recovery(out);
        match input {
            Input::Recv { from, msg } => self.receive(from, msg, out),
            Input::Propose(value) => {
                let _ = self.append(value, out);
            }
            Input::Flushed(seq) => self.on_flushed(seq, out),
            Input::Fetched { to, from, values } => self.on_fetched(to, from, values, out),
            Input::Gone { to, first } => self.on_gone(to, first, out),
            Input::Installed(slot) => self.on_installed(slot, out),
            Input::PeerDown(id) => self.on_peer_down(id),
            Input::PeerUp(id) => self.on_peer_up(id, out),
            Input::Abstain(abstains) => self.abstain(abstains, out),
            Input::Tick => self.on_tick(out),
        }
        self.finish(out);
    }

    /// Proposes a value and tells its slot. Flow control is the caller's: see
    /// [`Core::window_open`].
    pub fn propose(
        &mut self,
        now: Micros,
        value: Value,
        out: &mut Effects,
    ) -> Result<Slot, NotReady> {
        self.now = self.now.max(now);
        let slot = self.append(value, out)?;
        self.finish(out);
        Ok(slot)
    }

    /// The time at which [`Input::Tick`] is due at the latest.
    pub fn next_deadline(&self) -> Micros {
        let role = match &self.role {
            Role::Follower => self.deadline,
            Role::Probing { .. } | Role::Candidate(_) => self.deadline.min(self.resend_at),
            Role::Leader(_) => self.resend_at,
        };
        let role = self.ask_deadline().map_or(role, |ask| role.min(ask));
        if self.commit > self.hinted {
            role.min(self.hint_due)
        } else {
            role
        }
    }

    /// The contiguous chosen prefix known here.
    pub fn commit(&self) -> Slot {
        self.commit
    }

    /// Commit of the leader as far as it has told, at least [`Core::commit`].
    pub fn told_commit(&self) -> Slot {
        self.commit_known
    }

    /// Highest slot this node has voted in or knows to be chosen.
    pub fn last_slot(&self) -> Slot {
        self.window.last()
    }

    /// The leadership, as far as it is known here.
    pub fn leadership(&self) -> Leadership {
        Leadership {
            ballot: self.promised,
            leader: self.leader,
            ready: self.is_ready(),
        }
    }

    /// Returns true if this node leads and all that it recovered is chosen.
    pub fn is_ready(&self) -> bool {
        matches!(&self.role, Role::Leader(leading) if self.commit >= leading.horizon)
    }

    /// Slots proposed by this leader and not chosen yet.
    pub fn inflight(&self) -> usize {
        match self.role {
            Role::Leader(_) => (self.window.last() - self.commit) as usize,
            _ => 0,
        }
    }

    /// Returns true if this node is a ready leader and should propose more now.
    pub fn window_open(&self) -> bool {
        let Role::Leader(leading) = &self.role else {
            return false;
        };
        self.commit >= leading.horizon
            && self.inflight() < self.config.window_slots
            && leading.open_bytes < self.config.window_bytes
    }

    /// First slot whose value may still be in memory.
    pub fn memory_from(&self) -> Slot {
        self.window.base()
    }

    /// Value of a chosen slot, if it is still in memory.
    pub fn chosen(&self, slot: Slot) -> Option<&Value> {
        if slot > self.commit {
            return None;
        }
        self.window.get(slot).map(|entry| &entry.value)
    }

    fn receive(&mut self, from: NodeId, msg: Msg, out: &mut Effects) {
        if self.peer_index(from).is_none() || !self.heeds(from, &msg) {
            return;
        }
        match msg {
            Msg::Probe { nonce, commit } => self.on_probe(from, nonce, commit, out),
            Msg::ProbeReply {
                nonce,
                granted,
                promised,
            } => {
                self.on_probe_reply(from, nonce, granted, promised, out);
            }
            Msg::Prepare {
                ballot,
                from: first,
            } => self.on_prepare(from, ballot, first, out),
            Msg::Promise {
                ballot,
                commit,
                entries,
            } => {
                self.on_promise(from, ballot, commit, entries, out);
            }
            Msg::Accept {
                ballot,
                slot,
                commit,
                value,
            } => {
                self.on_accept(from, ballot, slot, commit, value, out);
            }
            Msg::Accepted {
                ballot,
                upto,
                seen,
                barrier,
                echo,
            } => {
                let ack = Acknowledgement {
                    upto,
                    seen,
                    barrier,
                };
                self.on_accepted(from, ballot, ack, echo, out);
            }
            Msg::Ask { nonce } => self.on_ask(from, nonce, out),
            Msg::Answer {
                nonce,
                promised,
                last,
                lost,
            } => self.on_answer(from, nonce, promised, last, lost, out),
            Msg::Heartbeat {
                ballot,
                commit,
                next,
                beat,
            } => {
                self.on_heartbeat(from, ballot, commit, Echo { beat, next }, out);
            }
            Msg::Commit { ballot, commit } => self.on_commit(from, ballot, commit, out),
            Msg::Behind { ballot, first } => self.on_behind(from, ballot, first, out),
            Msg::Resign { ballot } => self.on_resign(from, ballot),
            Msg::Reject { promised } => self.on_reject(promised),
        }
    }

    fn on_flushed(&mut self, seq: IoSeq, out: &mut Effects) {
        assert!(seq <= self.last_seq, "flushed what was never written");
        self.flushed = self.flushed.max(seq);
        self.advance_durable();
        match self.role {
            Role::Candidate(_) => self.try_lead(out),
            Role::Leader(_) => self.try_commit(),
            _ => {}
        }
    }

    fn on_peer_down(&mut self, id: NodeId) {
        let Some(index) = self.peer_index(id) else {
            return;
        };
        self.peers[index].unlink();
        self.suspect(id);
    }

    fn on_peer_up(&mut self, id: NodeId, out: &mut Effects) {
        if self.peer_index(id).is_none() && !self.add_learner(id) {
            return;
        }
        let Some(index) = self.peer_index(id) else {
            return;
        };
        self.peers[index].unlink();
        self.peers[index].up = true;
        if self.recovery == Recovery::Lost {
            self.inquiry_at_once(out);
        }
        if matches!(self.role, Role::Leader(_)) {
            // The echo tells how far the peer is, and streaming starts from there.
            self.beat(index, out);
        }
    }

    fn on_tick(&mut self, out: &mut Effects) {
        match self.role {
            Role::Leader(_) => self.leader_tick(out),
            Role::Candidate(_) | Role::Probing { .. } => self.election_tick(out),
            Role::Follower if self.now >= self.deadline && !self.may_lead() => {
                self.wait_for_leader();
            }
            Role::Follower if self.now >= self.deadline => self.start_probe(out),
            Role::Follower => {}
        }
        self.ask(out);
        self.send_ack(out);
        self.write_hint(out);
    }

    fn may_lead(&self) -> bool {
        !self.abstains && self.recovery.votes()
    }

    /// Common end of every step.
    fn finish(&mut self, out: &mut Effects) {
        self.vote_when_caught_up(out);
        self.evict();
        let leadership = self.leadership();
        if leadership != self.reported {
            self.reported = leadership;
            out.leadership = Some(leadership);
        }
        debug_assert!(self.durable_upto <= self.seen_upto);
        assert!(
            self.commit <= self.window.last(),
            "the commit ran past the log"
        );
    }

    /// Sends what depends on nothing unflushed.
    fn send(&self, to: NodeId, msg: Msg, out: &mut Effects) {
        out.sends.push(Send {
            after: IoSeq(0),
            to,
            msg,
        });
    }

    fn peer_index(&self, id: NodeId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.id == id)
    }

    fn member_bit(&self, id: NodeId) -> u64 {
        let index = self.config.members.iter().position(|member| *member == id);
        index.map_or(0, |index| 1 << index)
    }

    fn is_quorum(&self, set: u64) -> bool {
        set.count_ones() as usize >= self.quorum
    }

    fn election_timeout(&mut self) -> Micros {
        self.random_between(self.config.election_min, self.config.election_max)
    }

    /// A number from `low` up to and including `high`.
    fn random_between(&mut self, low: u64, high: u64) -> u64 {
        self.rng.u64(low..=high)
    }

    #[cfg(test)]
    fn mutated(&self, which: Mutation) -> bool {
        self.config.mutation == Some(which)
    }

    #[cfg(not(test))]
    #[inline(always)]
    fn mutated(&self, _which: Mutation) -> bool {
        false
    }
}
