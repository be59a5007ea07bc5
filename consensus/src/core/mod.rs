//! The protocol: Multi-Paxos as a deterministic state machine.
//!
//! [`Core::step`] takes the time and one [`Input`] and appends to [`Effects`]; nothing else goes in
//! or out, so the simulator owns time, disk, network and chance, and one seed gives one run.
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
//! * Every slot up to `commit` has the chosen value as its newest vote here: the commit moves over a
//!   slot only if the vote for it was cast at the ballot promised at that moment.
//!   The exception is what a checkpoint covers ([`Input::Installed`]).
//! * A leader proposes new values only above all that phase 1 reported, and all that is unchosen in
//!   there it proposes again under its own ballot.
//!
//! * A node that may have lost votes or promises sends none until it knows what they were.
//!
//! Modules: [`types`] (messages, inputs, effects), `election` (probe, phase 1), `leader` (phase 2,
//! flow control), `follower` (voting), `recovery` (a member that lost its disk), `learners` (nodes that are no members),
//! `window` (the log in memory).

mod election;
mod follower;
mod leader;
mod learners;
mod mutation;
mod recovery;
#[cfg(test)]
mod tests;
pub mod types;
mod window;

pub use self::learners::{LEARNERS_FROM, LEARNERS_MAX};
pub use self::recovery::Recovery;
pub use self::types::{
    AcceptedEntry, Ballot, Echo, Effects, Fetch, Input, IoSeq, JournalOp, Leadership, Micros, Msg,
    NodeId, Send, Slot, Value,
};

use self::election::Candidacy;
use self::leader::{Acknowledgement, Leading, Peer};
pub(crate) use self::mutation::Mutation;
use self::recovery::{Inquiry, initial_recovery};
use self::window::{Entry, Window};

/// Most members of a cluster: sets of them are kept as bits of one word.
pub const MEMBERS_MAX: usize = 64;

/// Largest value that may be proposed, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Settings of a [`Core`]. All times are in microseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node: one of `members`, or a learner, whose id is [`LEARNERS_FROM`] or greater.
    pub id: NodeId,
    /// All voting nodes.
    pub members: Vec<NodeId>,
    /// Time between two heartbeats of a leader.
    pub heartbeat: Micros,
    /// Shortest silence of a leader that starts an election.
    pub election_min: Micros,
    /// Longest silence of a leader before an election.
    pub election_max: Micros,
    /// Shortest delay to an election when the leader's process is known to be gone.
    pub suspect_min: Micros,
    /// Longest delay to an election when the leader's process is known to be gone.
    pub suspect_max: Micros,
    /// Slots a leader keeps open, and slots in flight to one peer.
    pub window_slots: usize,
    /// Bytes a leader keeps open.
    pub window_bytes: usize,
    /// Bytes in flight to one peer.
    pub peer_bytes: usize,
    /// Slots kept in memory after they are chosen.
    pub retain_slots: usize,
    /// Bytes kept in memory after they are chosen.
    pub retain_bytes: usize,
    /// Seed of the election timeouts; another one at every start.
    pub seed: u64,
    /// An empty log is that of a new cluster, not one that was lost. Otherwise the node asks all others.
    pub new_cluster: bool,
    /// A deliberate bug, to measure the simulator.
    #[cfg(test)]
    pub(crate) mutation: Option<Mutation>,
}

impl Config {
    /// Defaults for `id` among `members`.
    pub fn new(id: NodeId, members: &[NodeId]) -> Self {
        Self {
            id,
            members: members.to_vec(),
            heartbeat: 50_000,
            election_min: 250_000,
            election_max: 500_000,
            suspect_min: 5_000,
            suspect_max: 20_000,
            window_slots: 8192,
            window_bytes: 16 << 20,
            peer_bytes: 8 << 20,
            retain_slots: 16_384,
            retain_bytes: 16 << 20,
            seed: id,
            new_cluster: false,
            #[cfg(test)]
            mutation: None,
        }
    }
}

/// What the journal knew when the node started.
#[derive(Clone, Debug, Default)]
pub struct DurableState {
    /// Highest ballot promised or voted at.
    pub promised: Ballot,
    /// Highest commit hint.
    pub commit: Slot,
    /// Newest vote for each slot above `commit`, in slot order.
    pub tail: Vec<AcceptedEntry>,
    /// Last operation in the journal.
    pub last_seq: IoSeq,
    /// The last recovery noted; a journal of an earlier version has none.
    pub recovery: Option<Recovery>,
}

/// Why a value was not proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReady;

#[derive(Debug)]
enum Role {
    Follower,
    Probing { nonce: u64, granted: u64 },
    Candidate(Candidacy),
    Leader(Leading),
}

/// One node's share of the protocol.
#[derive(Debug)]
pub struct Core {
    config: Config,
    quorum: usize,
    random: u64,
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
    /// It does not want to lead.
    abstains: bool,
    recovery: Recovery,
    inquiry: Inquiry,
    reported: Leadership,
}

impl Core {
    /// A follower with what the journal knew.
    pub fn new(config: Config, recovered: DurableState, now: Micros) -> Self {
        let members = config.members.len();
        assert!(
            (1..=MEMBERS_MAX).contains(&members),
            "1 to {MEMBERS_MAX} members"
        );
        assert!(
            config.members.contains(&config.id) || config.id >= LEARNERS_FROM,
            "a node is one of the members, or has the id of a learner"
        );
        assert!(config.election_min <= config.election_max);
        assert!(config.suspect_min <= config.suspect_max);
        let peers = config
            .members
            .iter()
            .filter(|id| **id != config.id)
            .map(|id| Peer::new(*id));
        let alone = config.members.len() == 1;
        let hasty = config.new_cluster || alone;
        let learner = !config.members.contains(&config.id);
        let recovery = match learner {
            true => Recovery::Learner,
            false => initial_recovery(&recovered, hasty),
        };
        let mut core = Self {
            quorum: members / 2 + 1,
            random: config.seed ^ 0x9e37_79b9_7f4a_7c15 ^ recovered.last_seq.0.rotate_left(32),
            now,
            last_seq: recovered.last_seq,
            flushed: recovered.last_seq,
            promised: recovered.promised,
            promise_seq: recovered.last_seq,
            round_max: recovered.promised.round.max(recovery.floor()),
            window: Window::new(recovered.commit + 1),
            commit: recovered.commit,
            commit_known: recovered.commit,
            seen_upto: recovered.commit,
            durable_upto: recovered.commit,
            hinted: recovered.commit,
            hint_due: now,
            wrote_since_tick: false,
            ack_due: false,
            role: Role::Follower,
            peers: peers.collect(),
            leader: None,
            quiet_until: now,
            deadline: now,
            resend_at: now,
            nonce: 0,
            abstains: false,
            recovery,
            inquiry: Inquiry::new(0, now),
            reported: Leadership {
                ballot: recovered.promised,
                leader: None,
                ready: false,
            },
            config,
        };
        core.inquiry = Inquiry::new(core.random_between(1, u64::MAX - 1), now);
        core.note_recovery(recovered.recovery);
        if core.mutated(Mutation::VoteAfterWipe) && !learner {
            core.recovery = Recovery::Voter { floor: 0 };
        }
        if core.mutated(Mutation::MinorityQuorum) {
            core.quorum = (members / 2).max(1);
        }
        for AcceptedEntry {
            slot,
            ballot,
            value,
        } in recovered.tail
        {
            assert!(slot > core.commit, "the tail starts above the commit");
            assert!(ballot <= core.promised, "a vote implies the promise");
            core.window.insert(
                slot,
                Entry {
                    ballot,
                    seq: IoSeq(0),
                    value,
                },
            );
        }
        if !core.peers.is_empty() {
            core.deadline = now + core.election_timeout();
        }
        core.advance_seen();
        core.advance_durable();
        core
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

    /// Proposes a value and tells its slot. Flow control is the caller's: see [`Core::window_open`].
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

    /// When [`Input::Tick`] is due at the latest.
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

    /// Who leads, as far as known here.
    pub fn leadership(&self) -> Leadership {
        Leadership {
            ballot: self.promised,
            leader: self.leader,
            ready: self.is_ready(),
        }
    }

    /// Whether this node leads and all it recovered is chosen.
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

    /// Whether a ready leader should propose more now.
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

    /// Notes the commit in the journal, riding on a flush that happens anyway if there is one.
    fn write_hint(&mut self, out: &mut Effects) {
        let wrote = std::mem::take(&mut self.wrote_since_tick);
        if self.commit > self.hinted && (wrote || self.now >= self.hint_due) {
            self.hinted = self.commit;
            self.write(JournalOp::Commit(self.commit), out);
            self.wrote_since_tick = false;
        }
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

    fn evict(&mut self) {
        let settled = self.commit.min(self.durable_upto);
        while self.window.base() <= settled
            && (self.window.len() > self.config.retain_slots
                || self.window.bytes() > self.config.retain_bytes)
        {
            self.window.pop_front();
        }
    }

    fn write(&mut self, op: JournalOp, out: &mut Effects) -> IoSeq {
        self.last_seq.0 += 1;
        self.wrote_since_tick = true;
        out.journal.push((self.last_seq, op));
        self.last_seq
    }

    /// Sends what depends on nothing unflushed.
    fn send(&self, to: NodeId, msg: Msg, out: &mut Effects) {
        out.sends.push(Send {
            after: IoSeq(0),
            to,
            msg,
        });
    }

    /// Votes for a value at the promised ballot.
    fn vote(&mut self, slot: Slot, value: Value, out: &mut Effects) {
        self.vote_at(self.promised, slot, value, out);
    }

    fn vote_at(&mut self, ballot: Ballot, slot: Slot, value: Value, out: &mut Effects) {
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
    fn promise(&mut self, ballot: Ballot, out: &mut Effects) {
        assert!(ballot > self.promised, "a promise never falls");
        self.promised = ballot;
        self.round_max = self.round_max.max(ballot.round);
        self.promise_seq = self.write(JournalOp::Promise(ballot), out);
        self.seen_upto = self.commit;
        self.durable_upto = self.durable_upto.min(self.commit);
        self.leader = None;
        self.role = Role::Follower;
    }

    fn advance_seen(&mut self) {
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

    fn advance_durable(&mut self) {
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

    fn set_commit(&mut self, commit: Slot) {
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

    /// splitmix64.
    fn random_between(&mut self, low: u64, high: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (word ^ (word >> 31)) % (high - low + 1)
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
