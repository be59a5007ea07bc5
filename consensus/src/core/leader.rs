//! Leading: phase 2, flow control towards every peer, the commit, heartbeats.
//!
//! To each peer the leader *streams* slots in order from `next`. A peer's echo of a heartbeat tells
//! what it has; since links are first in first out, whatever was sent before the heartbeat and is
//! not there by the echo is lost, and streaming goes back to it.

use super::{
    Core, Echo, Effects, Fetch, Micros, Msg, Mutation, NodeId, NotReady, Role, Slot,
    VALUE_BYTES_MAX, Value,
};
use std::collections::VecDeque;

/// Bytes asked of the shell at a time for a peer that lags behind the memory window.
const FETCH_BYTES: usize = 1 << 20;

/// Leadership at the promised ballot.
#[derive(Debug)]
pub(super) struct Leading {
    /// Highest slot recovered by phase 1.
    pub horizon: Slot,
    /// Bytes of the slots above the commit.
    pub open_bytes: usize,
    beat: u64,
}

/// A follower's position in the log, as it acknowledges it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledgement {
    pub upto: Slot,
    pub seen: Slot,
    pub barrier: Slot,
}

/// A leader's view of one peer, and of the link to it.
#[derive(Debug)]
pub(super) struct Peer {
    pub id: NodeId,
    pub up: bool,
    /// Slots are sent as they come; otherwise an echo has to tell first where the peer is.
    streaming: bool,
    fetching: bool,
    /// The last slot that it has voted for durably.
    acked: Slot,
    /// The last slot that it holds, whether that is a vote or not.
    held: Slot,
    next: Slot,
    inflight: VecDeque<(Slot, u32)>,
    inflight_bytes: usize,
    commit_sent: Slot,
    heard_at: Micros,
    /// Echoes of heartbeats up to this one are older than the last time streaming went back.
    rewound_beat: u64,
}

impl Peer {
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            up: false,
            streaming: false,
            fetching: false,
            acked: 0,
            held: 0,
            next: 1,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            commit_sent: 0,
            heard_at: 0,
            rewound_beat: 0,
        }
    }

    /// The last slot that it holds, whether that is a vote or not.
    pub fn held(&self) -> Slot {
        self.held
    }

    pub fn unlink(&mut self) {
        self.up = false;
        self.streaming = false;
        self.clear_inflight();
    }

    fn reset(&mut self, next: Slot, now: Micros) {
        self.streaming = self.up;
        self.acked = 0;
        self.held = 0;
        self.next = next;
        self.commit_sent = 0;
        self.heard_at = now;
        self.rewound_beat = 0;
        self.clear_inflight();
    }

    fn clear_inflight(&mut self) {
        self.fetching = false;
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    fn sent(&mut self, slot: Slot, bytes: usize) {
        debug_assert_eq!(slot, self.next);
        self.next = slot + 1;
        self.inflight_bytes += bytes;
        self.inflight.push_back((slot, bytes as u32));
    }

    /// Only a vote ever raises what was voted for: what comes late from before the node lost its
    /// disk was one, and what the node holds now may be none.
    fn acknowledge(&mut self, upto: Slot, votes: bool) {
        self.held = self.held.max(upto);
        if votes {
            self.acked = self.acked.max(upto);
        }
        while let Some((slot, bytes)) = self.inflight.front().copied()
            && slot <= self.held
        {
            self.inflight.pop_front();
            self.inflight_bytes -= bytes as usize;
        }
    }

    fn stream_from(&mut self, next: Slot) {
        self.clear_inflight();
        self.streaming = true;
        self.next = next;
    }
}

impl Core {
    /// Starts to lead at the promised ballot, with the recovered tail already voted for here.
    pub(super) fn lead(&mut self, out: &mut Effects) {
        assert_eq!(
            self.promised.node, self.config.id,
            "leading at another's ballot"
        );
        assert!(matches!(self.role, Role::Follower));
        let open = self.commit + 1..=self.window.last();
        let open_bytes = open
            .filter_map(|slot| self.window.get(slot))
            .map(|e| e.value.len())
            .sum();
        self.role = Role::Leader(Leading {
            horizon: self.window.last(),
            open_bytes,
            beat: 0,
        });
        self.leader = Some(self.config.id);
        let (next, now) = (self.commit + 1, self.now);
        for peer in &mut self.peers {
            peer.reset(next, now);
        }
        self.advance_seen();
        self.advance_durable();
        // The echo of the first heartbeat tells who lacks slots below the tail.
        self.beat_all(out);
        self.pump_all(out);
        self.try_commit();
    }

    pub(super) fn append(&mut self, value: Value, out: &mut Effects) -> Result<Slot, NotReady> {
        assert!(
            value.len() <= VALUE_BYTES_MAX,
            "a value of {} bytes",
            value.len()
        );
        if !self.is_ready() {
            return Err(NotReady);
        }
        let slot = self.window.last() + 1;
        if let Role::Leader(leading) = &mut self.role {
            leading.open_bytes += value.len();
        }
        self.vote(slot, value, out);
        self.advance_seen();
        self.pump_all(out);
        if self.mutated(Mutation::CountSelfBeforeFlush) {
            self.try_commit();
        }
        Ok(slot)
    }

    pub(super) fn leader_tick(&mut self, out: &mut Effects) {
        if self.now >= self.resend_at {
            if !self.hears_quorum() && !self.mutated(Mutation::NoQuorumCheck) {
                // Followers that still hear us would wait for ever for a leader that cannot commit.
                self.step_down();
                return;
            }
            self.beat_all(out);
        }
        self.announce_commit(out);
    }

    fn hears_quorum(&self) -> bool {
        let oldest = self.now.saturating_sub(self.config.election_max);
        let heard = match self.mutated(Mutation::HearLearners) {
            true => &self.peers,
            false => self.voters(),
        };
        let heard = heard.iter().filter(|peer| peer.heard_at >= oldest).count();
        heard + 1 >= self.quorum
    }

    fn beat_all(&mut self, out: &mut Effects) {
        self.resend_at = self.now + self.config.heartbeat;
        for index in 0..self.peers.len() {
            self.beat(index, out);
        }
    }

    /// Sends one heartbeat to one peer.
    pub(super) fn beat(&mut self, index: usize, out: &mut Effects) {
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        leading.beat += 1;
        let peer = &mut self.peers[index];
        let next = if peer.streaming { peer.next } else { 0 };
        peer.commit_sent = self.commit;
        let (ballot, commit, beat) = (self.promised, self.commit, leading.beat);
        let to = peer.id;
        self.send(
            to,
            Msg::Heartbeat {
                ballot,
                commit,
                next,
                beat,
            },
            out,
        );
    }

    fn announce_commit(&mut self, out: &mut Effects) {
        for index in 0..self.peers.len() {
            let peer = &mut self.peers[index];
            if peer.streaming && peer.commit_sent < self.commit {
                peer.commit_sent = self.commit;
                let to = peer.id;
                let msg = Msg::Commit {
                    ballot: self.promised,
                    commit: self.commit,
                };
                self.send(to, msg, out);
            }
        }
    }

    pub(super) fn on_accepted(
        &mut self,
        from: NodeId,
        ballot: super::Ballot,
        ack: Acknowledgement,
        echo: Option<Echo>,
        out: &mut Effects,
    ) {
        if ballot != self.promised && !self.mutated(Mutation::CountOldBallotAcks) {
            return;
        }
        let (now, last) = (self.now, self.window.last());
        let Some(index) = self.peer_index(from) else {
            return;
        };
        let Role::Leader(leading) = &self.role else {
            return;
        };
        let beat = leading.beat;
        let (upto, seen) = (ack.upto.min(last), ack.seen.min(last));
        let votes = ack.barrier == 0 || self.mutated(Mutation::CountNonVoters);
        let votes = match self.is_member(from) {
            true => votes,
            false => self.mutated(Mutation::CountLearners),
        };
        let hears = votes || self.mutated(Mutation::HearLearners) && !self.is_member(from);
        let peer = &mut self.peers[index];
        if hears {
            peer.heard_at = now;
        }
        peer.acknowledge(upto, votes);
        if let Some(echo) = echo {
            let lost = seen + 1 < echo.next && echo.beat > peer.rewound_beat;
            if !peer.streaming || (lost && !self.config_lacks_retransmission()) {
                let peer = &mut self.peers[index];
                peer.rewound_beat = beat;
                if !votes {
                    // What it had before it lost its disk is out of date.
                    peer.held = upto;
                }
                peer.stream_from(seen.max(peer.held) + 1);
            }
        }
        self.skip_seen(index, seen);
        self.try_commit();
        self.fill_upto(ack.barrier, out);
        self.pump(index, out);
    }

    /// A slot that somebody has voted in at some time and that is beyond the log has to be chosen
    /// before a node that has lost its disk votes again. In a quiet cluster nobody would ever
    /// propose there.
    fn fill_upto(&mut self, barrier: Slot, out: &mut Effects) {
        if barrier == Slot::MAX {
            return;
        }
        while self.window.last() < barrier && self.window_open() {
            if self.append(Value::new(), out).is_err() {
                return;
            }
        }
    }

    /// Skips slots that the peer has already.
    fn skip_seen(&mut self, index: usize, seen: Slot) {
        let peer = &mut self.peers[index];
        if peer.next <= seen {
            peer.next = seen + 1;
        }
    }

    fn config_lacks_retransmission(&self) -> bool {
        self.mutated(Mutation::NoRetransmission)
    }

    /// Moves the commit to what a quorum holds durably under this ballot.
    pub(super) fn try_commit(&mut self) {
        if !matches!(self.role, Role::Leader(_)) {
            return;
        }
        let early = self.mutated(Mutation::CountSelfBeforeFlush);
        let own = if early {
            self.seen_upto
        } else {
            self.durable_upto
        };
        let mut positions = [0; super::MEMBERS_MAX + super::LEARNERS_MAX];
        positions[0] = own;
        let counted = self.counted();
        for (position, peer) in positions[1..].iter_mut().zip(counted) {
            *position = peer.acked;
        }
        let positions = &mut positions[..=counted.len()];
        positions.sort_unstable();
        let held = positions[positions.len() - self.quorum];
        if held > self.commit {
            self.set_commit(held);
        }
    }

    fn pump_all(&mut self, out: &mut Effects) {
        for index in 0..self.peers.len() {
            self.pump(index, out);
        }
    }

    /// Sends a peer what it lacks, as far as its window allows.
    fn pump(&mut self, index: usize, out: &mut Effects) {
        let last = self.window.last();
        let peer = &mut self.peers[index];
        while peer.streaming
            && !peer.fetching
            && peer.next <= last
            && peer.inflight_bytes < self.config.peer_bytes
            && peer.inflight.len() < self.config.window_slots
        {
            let slot = peer.next;
            let Some(entry) = self.window.get(slot) else {
                assert!(slot < self.window.base(), "a leader's log has no holes");
                peer.fetching = true;
                let upto = self.window.base() - 1;
                let max_bytes = FETCH_BYTES;
                out.fetches.push(Fetch {
                    to: peer.id,
                    from: slot,
                    upto,
                    max_bytes,
                });
                return;
            };
            let value = entry.value.clone();
            peer.sent(slot, value.len());
            peer.commit_sent = self.commit;
            let msg = Msg::Accept {
                ballot: self.promised,
                slot,
                commit: self.commit,
                value,
            };
            out.sends.push(super::Send {
                after: super::IoSeq(0),
                to: peer.id,
                msg,
            });
        }
    }

    /// The log does not go back to what a peer needs. It gets a checkpoint from somebody, and its
    /// next echo tells where to go on.
    pub(super) fn on_gone(&mut self, to: NodeId, first: Slot, out: &mut Effects) {
        let leads = matches!(self.role, Role::Leader(_));
        let Some(index) = self.peer_index(to).filter(|_| leads) else {
            return;
        };
        let peer = &mut self.peers[index];
        if !std::mem::take(&mut peer.fetching) {
            return;
        }
        if peer.next >= first {
            return self.pump(index, out);
        }
        peer.streaming = false;
        if self.mutated(Mutation::InstallUnsaid) {
            return;
        }
        let ballot = self.promised;
        self.send(to, Msg::Behind { ballot, first }, out);
    }

    pub(super) fn on_fetched(
        &mut self,
        to: NodeId,
        from: Slot,
        values: Vec<Value>,
        out: &mut Effects,
    ) {
        let Some(index) = self.peer_index(to) else {
            return;
        };
        let peer = &mut self.peers[index];
        if !std::mem::take(&mut peer.fetching) || !matches!(self.role, Role::Leader(_)) {
            return;
        }
        if peer.next == from && peer.streaming {
            assert!(!values.is_empty(), "a fetch yields at least one value");
            peer.commit_sent = self.commit;
            for value in values {
                let slot = peer.next;
                assert!(slot <= self.commit, "only chosen slots leave the window");
                peer.sent(slot, value.len());
                let msg = Msg::Accept {
                    ballot: self.promised,
                    slot,
                    commit: self.commit,
                    value,
                };
                out.sends.push(super::Send {
                    after: super::IoSeq(0),
                    to,
                    msg,
                });
            }
        }
        self.pump(index, out);
    }
}
