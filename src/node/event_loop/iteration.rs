//! One turn of the reactor after the poll's events were taken in.
//!
//! The order matters for latency: what is chosen goes to the server first, so that it works while
//! the node goes on; what clients have said is proposed before consensus does its own turn, which
//! sends it and hands it to the journal in the same go.

use crate::clients::connection_table::{Conns, Progress};
use crate::clients::frontend::{Frontend, Published};
use crate::error::NodeError;
use crate::event_loop::node::{Leadership, Node};
use crate::ordering::operator_signals::Ordered;
use crate::ordering::proposer::View;
use crate::peers::frames::PeerFrame;
use crate::proxy::server::ProxyServer;
use crate::server::feeder::Log;
use crate::server::lifecycle::ServerNews;
use crate::server::output::{ServerClock, Sink};
use crate::server::process::ServerHost;
use crate::server::syscall_filter::CaughtSite;
use brolga_consensus::{Event as ReplicaEvent, Flush, NodeId, Replica};
use brolga_os::sys;
use brolga_tape::ConnId;
use brolga_tape::entry::{Entry, Event};
use brolga_tape::record::Record;
use bytes::Bytes;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

impl Log for Replica {
    fn chosen_upto(&self) -> u64 {
        Replica::chosen_upto(self)
    }

    fn read_chosen(
        &mut self,
        from: u64,
        max_bytes: usize,
        out: &mut Vec<(u64, Bytes)>,
    ) -> Result<(), String> {
        Replica::read_chosen(self, from, max_bytes, out).map_err(|error| error.to_string())
    }
}

impl<H: ServerHost> Node<H> {
    pub(crate) fn turn(&mut self, now: Instant) -> Result<(), NodeError> {
        self.take_replica_events(now);
        self.drain_output(now)?;
        self.advance_checkpoint(now)?;
        self.consider_checkpoint(now);
        self.note_stall();
        self.observe_and_feed(now)?;
        self.compare(now)?;
        self.go_live_when_caught_up()?;
        self.dial();
        self.frontend.tick(now);
        self.frontend.serve_touched();
        self.pump(now);
        self.propose(now);
        let flush = self.who_flushes();
        self.replica.turn(now, flush, &mut self.replica_events);
        self.take_replica_events(now);
        self.observe_and_feed(now)?;
        self.report_proxies(now);
        self.proxies.flush();
        self.hash_log.tick(now);
        Ok(())
    }

    // ---- consensus ----

    /// The node waits for the disk itself when nobody waits for the node meanwhile: the server has
    /// nothing to do, so no answer can come, or nobody here would get it. What clients say has to wait
    /// for the entry that is being written anyway.
    fn who_flushes(&self) -> Flush {
        let last = self.feeder.last_entry();
        let rests = |clock: ServerClock| clock.idle && clock.slot == last;
        let serves = self.frontend.client_count() > 0
            || self.frontend.outgoing_count() > 0
            || self.proxies.attached().next().is_some()
            || !self.frontend.datagram_addresses().is_empty();
        match self.output.clock().is_some_and(rests) || !serves {
            true => Flush::Here,
            false => Flush::Aside,
        }
    }

    fn take_replica_events(&mut self, now: Instant) {
        let mut events = std::mem::take(&mut self.replica_events);
        for event in events.drain(..) {
            match event {
                ReplicaEvent::Leader { ballot, leader, .. } => {
                    self.leader_changed(Leadership { ballot, leader }, now);
                }
                ReplicaEvent::PeerUp(peer) => self.peer_up(peer),
                ReplicaEvent::PeerDown(peer) => self.peer_down(peer, now),
                ReplicaEvent::App { from, bytes } => self.peer_frame(from, &bytes, now),
                ReplicaEvent::Refused { message } => {
                    tracing::warn!("{message}");
                    self.life.refused = Some(message);
                }
                ReplicaEvent::Damaged { message } => tracing::error!("{message}"),
                ReplicaEvent::Behind { first } => self.checkpoints.lacks(first),
                ReplicaEvent::Truncated { first } => {
                    self.hash_log.forget(first);
                    tracing::info!(first, "the log begins at this slot now");
                }
            }
        }
        // Keeps its memory for the next turn; nothing was added meanwhile.
        self.replica_events = events;
    }

    fn leader_changed(&mut self, leadership: Leadership, now: Instant) {
        if self.leadership == leadership {
            return;
        }
        tracing::info!(leader = leadership.leader, ballot = %leadership.ballot, "leadership");
        let led = self.leadership.leader == Some(self.id);
        self.leadership = leadership;
        // Whatever was queued under an earlier ballot is sent again by its frontend.
        if led || leadership.leader != Some(self.id) {
            self.proposer.clear();
        } else {
            // Nobody has told this node who lives: the time of all starts now.
            self.proxies.forget_who_lives();
            self.count_lost_learners(now);
            for since in self.absent.values_mut() {
                *since = now;
            }
        }
        if leadership.leader != Some(self.id) {
            self.operator.leader_changed(leadership.leader);
        }
        self.token_ballot_changed();
        self.alive_at = None;
        self.upstream.lost();
    }

    fn peer_up(&mut self, peer: NodeId) {
        self.life.refused = None;
        self.introduce(peer);
        self.monitor.peer_up(peer);
        self.transfer.link(peer, true);
        self.tell_of_checkpoint(Some(peer));
        self.absent.remove(&peer);
        self.tell_activity(peer);
        if self.leadership.leader == Some(peer) {
            self.upstream.lost();
        }
    }

    fn peer_down(&mut self, peer: NodeId, now: Instant) {
        self.company.lost(peer);
        self.monitor.peer_down(peer);
        self.transfer.link(peer, false);
        self.checkpoints.peer_down(peer);
        self.absent.entry(peer).or_insert(now);
        self.learners.lost(peer);
        if self.leadership.leader == Some(peer) {
            self.upstream.lost();
        }
    }

    fn peer_frame(&mut self, from: NodeId, bytes: &[u8], now: Instant) {
        match PeerFrame::decode(bytes) {
            Some(PeerFrame::Forward(count, events)) => {
                if self.leadership.leader == Some(self.id) {
                    self.proposer.push(count, events);
                } else {
                    PeerFrame::NotLeader.encode(&mut self.frame);
                    // When the link is down by now, its other end sends again anyway.
                    let _ = self.replica.send_app(from, &self.frame);
                }
            }
            Some(PeerFrame::NotLeader) => {
                if self.leadership.leader == Some(from) {
                    self.upstream.hold(now);
                }
            }
            Some(PeerFrame::Alive(numbers)) => self.proxies_live(numbers, now),
            Some(PeerFrame::Checkpoint(slot)) => self.told_of_checkpoint(from, slot, now),
            Some(PeerFrame::Fetching(slot)) => self.told_of_fetch(from, slot, now),
            Some(PeerFrame::CheckpointToken(message, ballot)) => {
                self.token_message(from, (message, ballot), now);
            }
            Some(PeerFrame::Compare(message)) => self.divergence_message(from, message, now),
            Some(PeerFrame::Introduce(message)) => self.hear_introduction(from, message),
            None => tracing::warn!(
                from,
                "a frame of an unknown kind: is that node of another version?"
            ),
        }
    }

    /// Sends what frontends want ordered on its way.
    fn pump(&mut self, now: Instant) {
        let (progress, frontend) = (self.frontend.progress(), &self.frontend);
        self.upstream
            .check(now, progress, || frontend.has_outstanding());
        let leader = self.leadership.leader;
        let leader = leader.filter(|node| !self.absent.contains_key(node));
        let Some(leader) = leader.filter(|_| !self.upstream.is_held(now)) else {
            if !self.frontend.outbox().is_empty() || !self.requests.is_empty() {
                // Frontends keep what is not committed; it all goes when there is a way.
                self.drop_queued();
                self.upstream.needs_resend();
            }
            return;
        };
        if self.upstream.take_resend() {
            self.frontend.resend(now);
            self.proxies.ask_again();
        }
        let mut sent = true;
        while let Some(chunk) = self.frontend.outbox().pop() {
            sent = sent && self.send_up(leader, chunk.event_count(), chunk.encoded_events(), now);
        }
        for wish in std::mem::take(&mut self.requests) {
            sent = sent && self.send_up(leader, wish.count, &wish.events, now);
        }
        if !sent {
            self.upstream.hold(now);
        }
    }

    fn drop_queued(&mut self) {
        self.frontend.outbox().clear();
        self.requests.clear();
    }

    /// Sends events to the leader; false when the way is blocked, and nothing may follow them.
    fn send_up(&mut self, leader: NodeId, count: u32, events: &[u8], now: Instant) -> bool {
        if leader == self.id {
            self.proposer.push(count, events);
            return true;
        }
        PeerFrame::Forward(count, events).encode(&mut self.frame);
        let sent = self.replica.send_app(leader, &self.frame);
        if sent {
            self.upstream.sent(now);
        }
        sent
    }

    // ---- proposing ----

    pub(crate) fn view(&self, now: Instant) -> View {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        View {
            now,
            wall_ns: u64::try_from(wall.as_nanos())
                .unwrap_or(u64::MAX)
                .saturating_add_signed(1_000_000 * self.config.clock_skew_ms),
            may_propose: self.replica.can_propose(),
            inflight: self.replica.inflight(),
            caught_up: self.feeder.seen() == self.replica.chosen_upto(),
            last_slot: self.feeder.last_entry(),
            server: self.output.clock(),
        }
    }

    fn propose(&mut self, now: Instant) {
        self.give_up_the_absent(now);
        self.propose_signals(now);
        while let Some(entry) = self.proposer.poll(&self.view(now)) {
            if let Err(error) = self.replica.propose(Bytes::from(entry)) {
                tracing::debug!(%error, "not proposed");
                // Deposed in this very turn: the frontends send again when they hear of it.
                self.upstream.lost();
                return;
            }
        }
    }

    /// Somebody wants the server to get a signal.
    pub(crate) fn signal(&mut self, signal: u32, reply: oneshot::Sender<Ordered>) {
        self.operator.wish(signal, reply);
        let leader = self.leadership.leader;
        if leader != Some(self.id) {
            self.operator.leader_changed(leader);
        }
    }

    fn propose_signals(&mut self, now: Instant) {
        let view = self.view(now);
        // The first entry starts the server.
        if !view.may_propose || view.last_slot == 0 {
            return;
        }
        let Self {
            operator,
            proposer,
            replica,
            ..
        } = self;
        operator.propose(|signal| {
            let entry = proposer.entry_for(&Event::Signal { signal }, &view);
            replica.propose(Bytes::from(entry)).ok()
        });
    }

    // ---- the server ----

    /// The leader makes the connections that the server wants and nobody has answered. A server that
    /// was started again must first have told which of them it has closed.
    fn dial(&mut self) {
        let caught_up = self.feeder.seen() == self.replica.chosen_upto();
        if !self.replica.can_propose() || !caught_up {
            return;
        }
        let repeated = *self
            .life
            .repeated_at
            .get_or_insert(self.feeder.last_entry());
        if self.output.applied().slot < repeated {
            return;
        }
        for (conn, address) in self.conns.unanswered() {
            self.frontend.dial(conn, address);
        }
    }

    fn observe_and_feed(&mut self, now: Instant) -> Result<(), NodeError> {
        if self.checkpoints.is_missing() {
            // What the log says of connections means nothing without what it said before.
            return Ok(());
        }
        let Self {
            feeder,
            replica,
            conns,
            frontend,
            proxies,
            proposer,
            operator,
            checkpoints,
            ..
        } = self;
        let mut given_up = false;
        let mut signals = Vec::new();
        feeder.observe(replica, |slot, bytes| {
            checkpoints.logged(bytes.len());
            let mut committed = Committed {
                conns,
                frontend,
                proxies,
                given_up: false,
                signals: &mut signals,
            };
            if let Some(time_ns) = committed.entry(slot, bytes) {
                proposer.observe_time(time_ns, now);
            }
            given_up |= committed.given_up;
        })?;
        operator.seen(feeder.seen(), &signals);
        if given_up {
            self.start_frontend_over()?;
        }
        if let Some(tape) = &mut self.tape {
            self.feeder.feed(&mut self.replica, tape, now)?;
        }
        Ok(())
    }

    fn start_frontend_over(&mut self) -> Result<(), NodeError> {
        tracing::warn!("this node was away for too long: its clients are disconnected");
        let id = sys::random_u64().map_err(NodeError::doing("cannot get random bytes"))?;
        self.frontend.start_over(id);
        Ok(())
    }

    /// Takes everything the server has answered.
    pub(crate) fn drain_output(&mut self, now: Instant) -> Result<(), NodeError> {
        if self.checkpoints.is_dumping() {
            return Ok(());
        }
        let Self {
            tape: Some(tape),
            output,
            frontend,
            proxies,
            conns,
            life,
            monitor,
            leadership,
            id,
            hash_log,
            trace_file,
            ..
        } = self
        else {
            return Ok(());
        };
        let bytes = tape.tape().output();
        if bytes.is_empty() {
            return Ok(());
        }
        let own = frontend.id();
        let mut records = Records {
            own,
            frontend,
            proxies,
            conns,
            news: &mut life.news,
            leads: leadership.leader == Some(*id),
        };
        let used = output
            .take(bytes, now, &mut monitor.output_commit.before(&mut records))
            .map_err(NodeError::Tape)?;
        if let Some(file) = trace_file {
            file.append(&bytes[..used]);
        }
        tape.release_output(used);
        for hashes in output.drain_fresh() {
            hash_log.note(&hashes, now);
        }
        if let Some(clock) = output.clock() {
            self.proposer.observe_server(&clock);
        }
        self.take_server_news()
    }

    /// The server has ended. True when it did so by itself: what it said after its last slot counts as
    /// its answer to the next one, so that replicas can agree on that too.
    pub(crate) fn end_output(&mut self) -> bool {
        let Some(slot) = self.output.end() else {
            return false;
        };
        let Self {
            frontend,
            proxies,
            conns,
            life,
            monitor,
            leadership,
            id,
            ..
        } = self;
        let mut records = Records {
            own: frontend.id(),
            frontend,
            proxies,
            conns,
            news: &mut life.news,
            leads: leadership.leader == Some(*id),
        };
        monitor.output_commit.before(&mut records).done(slot);
        true
    }

    /// Gives output up to slot `limit`, as far as it was held back, to those it concerns.
    pub(crate) fn release_output(&mut self, limit: u64) {
        let Self {
            frontend,
            proxies,
            conns,
            life,
            monitor,
            leadership,
            id,
            ..
        } = self;
        let own = frontend.id();
        let mut records = Records {
            own,
            frontend,
            proxies,
            conns,
            news: &mut life.news,
            leads: leadership.leader == Some(*id),
        };
        monitor.output_commit.set_limit(limit, &mut records);
    }
}

/// Tells everybody concerned what a chosen entry says.
struct Committed<'a> {
    conns: &'a mut Conns,
    frontend: &'a mut Frontend,
    proxies: &'a mut ProxyServer,
    /// The node's own frontend was given up.
    given_up: bool,
    /// Operators' signals, with their slots.
    signals: &'a mut Vec<(u64, u32)>,
}

impl Committed<'_> {
    /// Looks at one entry; its time, if it is one.
    fn entry(&mut self, slot: u64, bytes: &[u8]) -> Option<u64> {
        let Ok(entry) = Entry::parse(bytes) else {
            tracing::error!(slot, "an entry of the log is not one");
            return None;
        };
        for event in entry.events() {
            match event {
                Ok(Event::Signal { signal }) => self.signals.push((slot, signal)),
                Ok(event) => self.event(&event),
                Err(error) => tracing::error!(slot, %error, "an event of the log is broken"),
            }
        }
        Some(entry.time_ns)
    }

    fn event(&mut self, event: &Event<'_>) {
        let (owner, conn) = owner(event, self.conns);
        let progress = self.conns.apply(event);
        if matches!(event, Event::Connected { .. }) && progress == Progress::Opened {
            self.frontend.answered(conn, owner);
        }
        if owner != self.frontend.id() {
            self.proxies.committed(owner, conn.counter, event, progress);
        } else if progress != Progress::Nothing {
            self.given_up |= progress == Progress::Gone;
            self.frontend.committed(conn, progress);
        }
    }
}

/// The frontend that an event is about, and the connection.
fn owner(event: &Event<'_>, conns: &Conns) -> (u64, ConnId) {
    match *event {
        Event::Connected { conn, owner, .. } => (owner, conn),
        Event::Open { conn, .. }
        | Event::Data { conn, .. }
        | Event::Close { conn, .. }
        | Event::Credit { conn, .. } => (conns.owner(conn), conn),
        Event::Datagram { frontend, .. }
        | Event::FrontendUp { frontend, .. }
        | Event::FrontendGone { frontend } => {
            let counter = 0;
            (frontend, ConnId { frontend, counter })
        }
        Event::Signal { .. } => (0, ConnId::default()),
    }
}

/// Hands records to those they concern.
struct Records<'a> {
    own: u64,
    frontend: &'a mut Frontend,
    proxies: &'a mut ProxyServer,
    conns: &'a mut Conns,
    news: &'a mut Vec<ServerNews>,
    /// This node leads, as far as it knows.
    leads: bool,
}

impl Records<'_> {
    fn of_connection(&mut self, conn: ConnId, record: &Record<'_>) {
        if conn.frontend == self.own || conn.is_outgoing() {
            self.frontend.record(record);
        } else {
            self.proxies.record(conn, record, self.conns);
        }
    }
}

impl Sink for Records<'_> {
    fn concerns(&self, record: &Record<'_>) -> bool {
        match *record {
            Record::Data { conn, .. }
            | Record::Consumed { conn, .. }
            | Record::Fin { conn, .. }
            | Record::Closed { conn, .. } => {
                conn.frontend == self.own
                    || conn.is_outgoing()
                    || self.proxies.retains_for(conn.frontend, self.conns)
            }
            _ => true,
        }
    }

    fn done(&mut self, _: u64) {}

    fn record(&mut self, record: &Record<'_>, _: &[u8]) {
        match *record {
            Record::Data { conn, .. }
            | Record::Consumed { conn, .. }
            | Record::Fin { conn, .. } => self.of_connection(conn, record),
            Record::Closed { conn, .. } => {
                self.of_connection(conn, record);
                self.conns.closed_by_server(conn);
            }
            Record::Connect { conn, address } => self.conns.asked_by_server(conn, address),
            Record::Listen {
                listener,
                address,
                transport,
                chosen,
            } => {
                self.proxies.ports_changed(record);
                self.news.push(ServerNews::Listen(Published {
                    listener,
                    address,
                    transport,
                    chosen,
                }));
            }
            Record::Unlisten { listener } => {
                self.proxies.ports_changed(record);
                self.news.push(ServerNews::Unlisten(listener));
            }
            Record::Datagram { frontend: 0, .. } => self.frontend.unasked(record, self.leads),
            Record::Datagram { frontend, .. } if frontend == self.own => {
                self.frontend.record(record);
            }
            Record::Datagram { frontend, .. } => self.proxies.datagram(frontend, record),
            Record::Lost { total } => self.frontend.server_lost(total),
            Record::Exit { status } => self.news.push(ServerNews::Exit(status)),
            Record::Fault { message } => {
                let message = String::from_utf8_lossy(message).into_owned();
                self.news.push(ServerNews::Fault(message));
            }
            Record::Backstop { errno } => self.news.push(ServerNews::Backstop(errno)),
            Record::Caught {
                number,
                count,
                offset,
                object,
            } => self.news.push(ServerNews::Caught(CaughtSite {
                object: String::from_utf8_lossy(object).into_owned(),
                offset,
                number,
                count,
            })),
            Record::Done { .. } | Record::Step { .. } => {}
        }
    }
}
