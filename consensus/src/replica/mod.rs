//! A node's replica of the log: core, journal and transport, driven by the caller's event loop.
//!
//! # Model
//!
//! The caller owns the poll and the thread. [`Replica::handle`] feeds arriving messages to the
//! core, [`Replica::propose`] values; both only gather effects. [`Replica::turn`] ends an
//! iteration: it takes what the journal has made durable, runs timers, hands the gathered
//! operations to the journal's thread as one batch, and then, while that thread writes, sends the
//! gathered messages with one write per link. A caller that has nothing else to do meanwhile can
//! have the turn write to the disk itself ([`Flush::Here`]), after the messages that need not wait
//! for it were sent.
//!
//! # Invariants
//!
//! * A message whose promise is not durable yet is held back; the others overtake it.
//! * [`Replica::read_chosen`] never passes [`Replica::chosen_upto`], and both only grow.
//!
//! Deliberately absent: threads of its own (but the journal's), retries of what a deposed leader
//! had proposed: whether it was chosen is found out by reading the log.

mod config;
mod event;

pub use config::{ConfigError, OpenError, ReplicaConfig};
pub use event::Event;

use crate::core::{
    self, Ballot, Core, Effects, Fetch, Input, IoSeq, Leadership, NodeId, Recovery, Slot,
    VALUE_BYTES_MAX,
};
use crate::journal::{Journal, JournalConfig, JournalError, Wake};
use crate::transport::{self, Transport, TransportConfig, TransportEvent, UpgradedStream};
use bytes::Bytes;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Poll tokens that a replica uses, from the `first_token` given to [`Replica::open`].
pub const TOKENS: usize = transport::TOKENS;

/// The thread that waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// The journal's thread, which then wakes the caller.
    Aside,
    /// The caller: saves waking two threads, but nothing else is done meanwhile.
    Here,
}

/// The reason why a value was not proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead, or has not finished recovery yet.
    #[error("not the leader")]
    NotLeader,
    /// The value is larger than [`VALUE_BYTES_MAX`].
    #[error("a value of {0} bytes is too large")]
    TooLarge(usize),
}

/// The reason why a value was not read.
pub type ReadError = JournalError;

/// The replica of the log on one node.
#[derive(Debug)]
pub struct Replica {
    core: Core,
    journal: Journal,
    transport: Transport,
    effects: Effects,
    /// Sends that wait for their promise to be durable.
    held: VecDeque<core::Send>,
    arrived: Vec<TransportEvent>,
    origin: Instant,
    flushed: IoSeq,
}

impl Replica {
    /// Recovers the log and listens. `wake` is called from another thread when [`Replica::turn`]
    /// has to be called; the sockets are registered with tokens from `first_token` up to, but not
    /// including, `first_token + TOKENS`.
    pub fn open(
        config: ReplicaConfig,
        registry: &mio::Registry,
        first_token: usize,
        wake: Wake,
    ) -> Result<Self, OpenError> {
        config.check()?;
        let origin = Instant::now();
        let learns = config.learns();
        let core_config = core_config(&config);
        let journal_config = JournalConfig {
            dir: config.dir,
            cluster: config.cluster,
            node: config.id,
            segment_bytes: config.segment_bytes,
        };
        let (journal, durable) = Journal::open(journal_config, wake)?;
        match durable.recovery.map(|it| it == Recovery::Learner) {
            Some(true) if !learns => return Err(ConfigError::LogOfLearner.into()),
            Some(false) if learns => return Err(ConfigError::LogOfMember.into()),
            _ => {}
        }
        let flushed = durable.last_seq;
        let mut members = config.members.iter();
        let own = members.find(|(member, _)| *member == config.id).copied();
        let transport_config = TransportConfig {
            cluster: config.cluster,
            id: config.id,
            members: config.members,
        };
        let transport = Transport::open(transport_config, registry, first_token, origin);
        let transport = transport.map_err(|source| match own {
            Some((_, address)) => OpenError::Listen { address, source },
            None => OpenError::Poll(source),
        })?;
        Ok(Self {
            core: Core::new(core_config, durable, 0),
            journal,
            transport,
            effects: Effects::default(),
            held: VecDeque::new(),
            arrived: Vec::new(),
            origin,
            flushed,
        })
    }

    /// Returns true if an event with this token is to be given to [`Replica::handle`].
    pub fn owns(&self, token: mio::Token) -> bool {
        self.transport.owns(token)
    }

    /// Reacts to readiness of one of the replica's sockets. [`Replica::turn`] has to follow.
    pub fn handle(&mut self, event: &mio::event::Event, now: Instant, out: &mut Vec<Event>) {
        self.transport.handle(event, now, &mut self.arrived);
        self.take_arrived(now, out);
        self.report_leadership(out);
    }

    /// Ends an iteration of the event loop; to be called once in each, after everything else.
    pub fn turn(&mut self, now: Instant, flush: Flush, out: &mut Vec<Event>) {
        self.take_flushed(now);
        self.transport.tick(now, &mut self.arrived);
        self.take_arrived(now, out);
        self.step(now, Input::Tick);
        self.serve_fetches(now, out);
        self.report_truncation(out);
        match flush {
            // The journal first: its thread writes while this one sends.
            Flush::Aside => self.journal.append(&mut self.effects.journal),
            Flush::Here => self.flush_here(now),
        }
        self.send_gathered();
        self.transport.flush(now, &mut self.arrived);
        self.take_arrived(now, out);
        self.report_leadership(out);
    }

    /// Sends what need not wait, makes everything durable, and gathers what has waited for that.
    fn flush_here(&mut self, now: Instant) {
        let waits = |(_, op): &(IoSeq, core::JournalOp)| op.needs_flush();
        if !self.effects.journal.iter().any(waits) {
            self.journal.append(&mut self.effects.journal);
            return;
        }
        self.send_gathered();
        self.transport.flush(now, &mut self.arrived);
        if !self.journal.append_here(&mut self.effects.journal) {
            self.journal.append(&mut self.effects.journal);
        }
        self.take_flushed(now);
        self.step(now, Input::Tick);
        self.journal.append(&mut self.effects.journal);
    }

    fn take_flushed(&mut self, now: Instant) {
        let durable = self.journal.durable();
        if durable > self.flushed {
            self.flushed = durable;
            self.step(now, Input::Flushed(durable));
        }
    }

    /// The time at which [`Replica::turn`] is due at the latest, if nothing happens before.
    pub fn next_wakeup(&self) -> Instant {
        if !self.effects.is_empty() {
            return self.origin;
        }
        let core = self.origin + Duration::from_micros(self.core.next_deadline());
        self.transport
            .next_deadline()
            .map_or(core, |transport| core.min(transport))
    }

    /// Returns true if this node leads, is ready, and its window of open slots has room.
    pub fn can_propose(&self) -> bool {
        self.core.window_open()
    }

    /// Slots proposed by this node as leader and not chosen yet.
    pub fn inflight(&self) -> usize {
        self.core.inflight()
    }

    /// Proposes a value and tells its slot. The window is not enforced here: a caller that goes on
    /// while [`Replica::can_propose`] says no only makes its own queue longer.
    pub fn propose(&mut self, value: Bytes) -> Result<Slot, ProposeError> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(ProposeError::TooLarge(value.len()));
        }
        let now = micros(self.origin.elapsed());
        self.core
            .propose(now, value, &mut self.effects)
            .map_err(|_| ProposeError::NotLeader)
    }

    /// From now on this node does not lead, and hands over if it does; or it may lead again. It
    /// votes and learns all the same.
    pub fn abstain(&mut self, now: Instant, abstains: bool) {
        self.step(now, Input::Abstain(abstains));
    }

    /// The leader, if one is known.
    pub fn leader(&self) -> Option<NodeId> {
        self.core.leadership().leader
    }

    /// Highest ballot promised here.
    pub fn ballot(&self) -> Ballot {
        self.core.leadership().ballot
    }

    /// Returns true if this node leads and may propose.
    pub fn is_ready(&self) -> bool {
        self.core.is_ready()
    }

    /// The state of recovery of this node, which decides whether its votes count.
    pub fn recovery(&self) -> Recovery {
        self.core.recovery()
    }

    /// While it is [`Recovery::Lost`]: the nodes that have answered. All others have to.
    pub fn answers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.core.answers()
    }

    /// End of the contiguous chosen prefix known here; 0 if nothing is chosen.
    pub fn chosen_upto(&self) -> Slot {
        self.core.commit()
    }

    /// The slot up to which the leader has said that all are chosen; not all of them need be here.
    pub fn told_chosen_upto(&self) -> Slot {
        self.core.told_commit()
    }

    /// Reads values of consecutive chosen slots, starting with `from`, until `max_bytes` are
    /// reached (at least one is read if there is one). A noop is read as an empty value.
    pub fn read_chosen(
        &mut self,
        from: Slot,
        max_bytes: usize,
        out: &mut Vec<(Slot, Bytes)>,
    ) -> Result<(), ReadError> {
        let mut bytes = 0;
        for slot in from.max(1)..=self.core.commit() {
            let value = match self.core.chosen(slot) {
                Some(value) => value.clone(),
                None => self.journal.read(slot)?,
            };
            bytes += value.len();
            out.push((slot, value));
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(())
    }

    /// Sends an application frame to another node. `false` if the link is down, or choked. Frames
    /// on one link arrive in order; when the link breaks, those under way are lost.
    pub fn send_app(&mut self, to: NodeId, bytes: &[u8]) -> bool {
        self.transport.send_app(to, bytes)
    }

    /// Connections to this node's address that are not for consensus ([`transport::open_stream`]),
    /// and the caller's from now on. To be asked after [`Replica::handle`].
    pub fn take_upgraded_streams(&mut self) -> Vec<UpgradedStream> {
        self.transport.take_upgraded_streams()
    }

    /// Connections of those who want to know the cluster ([`transport::join()`]). To be asked after
    /// [`Replica::handle`].
    pub fn take_joiners(&mut self) -> Vec<std::net::TcpStream> {
        self.transport.take_joiners()
    }

    /// Learners with a link to this node, and the slot up to which each has the log, as far as is
    /// known here: 0 unless this node leads.
    pub fn learners(&self) -> impl Iterator<Item = (NodeId, Slot)> + '_ {
        self.core.learners()
    }

    /// The other members and the learners that have a link, and whether the link to each works.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, bool)> {
        self.transport.peers()
    }

    /// The address this node listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.transport.local_addr()
    }

    /// The first slot whose value is in the log here; those before were dropped behind a
    /// checkpoint.
    pub fn first_slot(&self) -> Slot {
        self.journal.first()
    }

    /// A checkpoint that contains everything up to `slot` is durable here: the log goes on after
    /// it. Nothing happens if that much is known already.
    pub fn install(&mut self, now: Instant, slot: Slot) {
        self.step(now, Input::Installed(slot));
    }

    /// Drops what it can of the log up to `upto`, in whole segments and in the background. The
    /// caller has made sure that a checkpoint of `upto` or later is durable and verified here and
    /// at enough other nodes; nothing beyond what is known to be chosen is ever dropped. False if
    /// there was nothing to drop.
    pub fn truncate(&mut self, upto: Slot) -> bool {
        self.journal.truncate(upto.min(self.core.commit()))
    }

    /// Flushes the log and closes the links.
    pub fn close(mut self) {
        self.journal.append(&mut self.effects.journal);
        self.journal.close();
    }

    fn step(&mut self, now: Instant, input: Input) {
        let now = micros(now.saturating_duration_since(self.origin));
        self.core.step(now, input, &mut self.effects);
    }

    fn take_arrived(&mut self, now: Instant, out: &mut Vec<Event>) {
        let mut arrived = std::mem::take(&mut self.arrived);
        for event in arrived.drain(..) {
            match event {
                TransportEvent::Message(from, msg) => self.step(now, Input::Recv { from, msg }),
                TransportEvent::App(from, bytes) => out.push(Event::App { from, bytes }),
                TransportEvent::Up(id) => {
                    self.step(now, Input::PeerUp(id));
                    out.push(Event::PeerUp(id));
                }
                TransportEvent::Down(id) => {
                    self.step(now, Input::PeerDown(id));
                    out.push(Event::PeerDown(id));
                }
                TransportEvent::Refused(message) => out.push(Event::Refused { message }),
            }
        }
        self.arrived = arrived;
    }

    /// Reads what lagging peers need. A part of a turn, so the amount per peer is bounded by the
    /// core's flow control.
    fn serve_fetches(&mut self, now: Instant, out: &mut Vec<Event>) {
        while let Some(fetch) = self.effects.fetches.pop() {
            match self.read_for(fetch) {
                Ok(values) => {
                    let Fetch { to, from, .. } = fetch;
                    self.step(now, Input::Fetched { to, from, values });
                }
                Err(JournalError::Gone { first, .. }) => {
                    let to = fetch.to;
                    self.step(now, Input::Gone { to, first });
                }
                Err(error) => out.push(Event::Damaged {
                    message: error.to_string(),
                }),
            }
        }
    }

    fn report_truncation(&mut self, out: &mut Vec<Event>) {
        match self.journal.truncated() {
            None => {}
            Some(Ok(())) => out.push(Event::Truncated {
                first: self.journal.first(),
            }),
            Some(Err(error)) => out.push(Event::Damaged {
                message: format!("the log cannot be shortened: {error}"),
            }),
        }
    }

    fn read_for(&mut self, fetch: Fetch) -> Result<Vec<Bytes>, JournalError> {
        let mut values = Vec::new();
        let mut bytes = 0;
        for slot in fetch.from..=fetch.upto {
            let value = self.journal.read(slot)?;
            bytes += value.len().max(1);
            values.push(value);
            if bytes >= fetch.max_bytes {
                break;
            }
        }
        Ok(values)
    }

    fn send_gathered(&mut self) {
        while let Some(send) = self.held.front()
            && send.after <= self.flushed
        {
            self.transport.send(send.to, &send.msg);
            self.held.pop_front();
        }
        for send in self.effects.sends.drain(..) {
            if send.after <= self.flushed {
                // A link that is down or choked loses it, which the protocol has to cope with
                // anyway.
                self.transport.send(send.to, &send.msg);
            } else {
                self.held.push_back(send);
            }
        }
    }

    fn report_leadership(&mut self, out: &mut Vec<Event>) {
        if let Some(first) = self.effects.behind.take() {
            out.push(Event::Behind { first });
        }
        if let Some(Leadership {
            ballot,
            leader,
            ready,
        }) = self.effects.leadership.take()
        {
            out.push(Event::Leader {
                ballot,
                leader,
                ready,
            });
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn core_config(config: &ReplicaConfig) -> core::Config {
    let members: Vec<_> = config.members.iter().map(|(id, _)| *id).collect();
    core::Config {
        heartbeat: micros(config.heartbeat),
        election_min: micros(config.election_timeout_min),
        election_max: micros(config.election_timeout_max),
        seed: RandomState::new().hash_one(config.id),
        new_cluster: config.new_cluster,
        ..core::Config::new(config.id, &members)
    }
}
