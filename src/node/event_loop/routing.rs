//! Routing: events of the log and records of the server reach the frontend or the stand-alone
//! frontend that they are about.

use crate::clients::Clients;
use crate::clients::connection_table::{ConnectionTable, Progress};
use crate::clients::frontend::Frontend;
use crate::divergence::output_commit::OutputCommit;
use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::proxy::server::ProxyServer;
use crate::server::lifecycle::{Lifecycle, ServerEvent};
use crate::server::output::Sink;
use crate::server::process::ServerHost;
use brolga_os::sys;
use brolga_tape::ConnId;
use brolga_tape::entry::{Entry, Event};
use brolga_tape::record::Record;
use std::time::Instant;

impl<H: ServerHost> Node<H> {
    /// Takes in chosen entries, and feeds them to the server.
    pub(super) fn observe_and_feed(&mut self, now: Instant) -> Result<(), NodeError> {
        if self.checkpoints.is_missing() {
            // What the log says of connections means nothing without what it said before.
            return Ok(());
        }
        let Self {
            links,
            server,
            clients,
            proxies,
            ordering,
            checkpoints,
            ..
        } = self;
        let mut expired = false;
        let mut signals = Vec::new();
        server.feeder.observe(&mut links.replica, |slot, bytes| {
            checkpoints.logged(bytes.len());
            let mut committed = Committed {
                conns: &mut clients.conns,
                frontend: &mut clients.frontend,
                proxies: &mut proxies.server,
                expired: false,
                signals: &mut signals,
            };
            if let Some(time_ns) = committed.entry(slot, bytes) {
                ordering.proposer.observe_time(time_ns, now);
            }
            expired |= committed.expired;
        })?;
        ordering.signals.seen(server.feeder.seen(), &signals);
        if expired {
            tracing::warn!("this node had no contact for too long: its clients are disconnected");
            self.restart_frontend()?;
        }
        if let Some(tape) = &mut self.server.tape {
            let log = &mut self.links.replica;
            self.server.feeder.feed(log, tape, now)?;
        }
        Ok(())
    }

    /// Disconnects all clients; the frontend goes on under another identity.
    pub(super) fn restart_frontend(&mut self) -> Result<(), NodeError> {
        let id = sys::random_u64().map_err(NodeError::doing("cannot get random bytes"))?;
        self.clients.frontend.start_over(id);
        Ok(())
    }

    /// Takes everything the server has answered.
    pub(super) fn drain_output(&mut self, now: Instant) -> Result<(), NodeError> {
        if self.checkpoints.is_dumping() {
            return Ok(());
        }
        let Self {
            links,
            server,
            clients,
            proxies,
            monitor,
            hash_log,
            ordering,
            ..
        } = self;
        let Some(tape) = &mut server.tape else {
            return Ok(());
        };
        let bytes = tape.tape().output();
        if bytes.is_empty() {
            return Ok(());
        }
        let lifecycle = &mut server.lifecycle;
        let mut records = Records::new(clients, &mut proxies.server, lifecycle, links.leads());
        let used = server
            .output
            .take(bytes, now, &mut monitor.output_commit.before(&mut records))
            .map_err(NodeError::Tape)?;
        if let Some(file) = &mut server.trace_file {
            file.append(&bytes[..used]);
        }
        tape.release_output(used);
        for hashes in server.output.drain_fresh() {
            hash_log.note(&hashes, now);
        }
        if let Some(clock) = server.output.clock() {
            ordering.proposer.observe_server(&clock);
        }
        self.take_server_events()
    }

    /// The server has ended. True when it did so by itself: what it said after its last slot counts
    /// as its answer to the next one, so that replicas can agree on that too.
    pub(super) fn end_output(&mut self) -> bool {
        let Some(slot) = self.server.output.end() else {
            return false;
        };
        let (mut records, commit) = self.records();
        commit.before(&mut records).done(slot);
        true
    }

    /// Releases output up to slot `limit`, as far as it was held back, to those it concerns.
    pub(super) fn release_output(&mut self, limit: u64) {
        let (mut records, commit) = self.records();
        commit.set_limit(limit, &mut records);
    }

    /// The receiver of records, and the output commit before it.
    fn records(&mut self) -> (Records<'_>, &mut OutputCommit) {
        let leads = self.links.leads();
        let (clients, proxies) = (&mut self.clients, &mut self.proxies.server);
        let records = Records::new(clients, proxies, &mut self.server.lifecycle, leads);
        (records, &mut self.monitor.output_commit)
    }
}

/// Receives the events of chosen entries.
struct Committed<'a> {
    conns: &'a mut ConnectionTable,
    frontend: &'a mut Frontend,
    proxies: &'a mut ProxyServer,
    /// The node's own frontend has expired.
    expired: bool,
    /// Signals of operators, with their slots.
    signals: &'a mut Vec<(u64, u32)>,
}

impl Committed<'_> {
    /// Looks at one entry; its time, if it is one.
    fn entry(&mut self, slot: u64, bytes: &[u8]) -> Option<u64> {
        let Ok(entry) = Entry::parse(bytes) else {
            tracing::error!(slot, "malformed log entry");
            return None;
        };
        for event in entry.events() {
            match event {
                Ok(Event::Signal { signal }) => self.signals.push((slot, signal)),
                Ok(event) => self.event(&event),
                Err(error) => tracing::error!(slot, %error, "malformed event in a log entry"),
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
            self.expired |= progress == Progress::Gone;
            self.frontend.committed(conn, progress);
        }
    }
}

/// The frontend that an event is about, and the connection.
fn owner(event: &Event<'_>, conns: &ConnectionTable) -> (u64, ConnId) {
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

/// Receives the records of the server.
struct Records<'a> {
    /// The identity of the node's own frontend.
    own: u64,
    frontend: &'a mut Frontend,
    proxies: &'a mut ProxyServer,
    conns: &'a mut ConnectionTable,
    events: &'a mut Vec<ServerEvent>,
    /// This node leads, as far as it knows.
    leads: bool,
}

impl<'a> Records<'a> {
    fn new(
        clients: &'a mut Clients,
        proxies: &'a mut ProxyServer,
        lifecycle: &'a mut Lifecycle,
        leads: bool,
    ) -> Self {
        Self {
            own: clients.frontend.id(),
            frontend: &mut clients.frontend,
            proxies,
            conns: &mut clients.conns,
            events: &mut lifecycle.events,
            leads,
        }
    }

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
        self.events.extend(ServerEvent::of_record(record));
        match *record {
            Record::Data { conn, .. }
            | Record::Consumed { conn, .. }
            | Record::Fin { conn, .. } => self.of_connection(conn, record),
            Record::Closed { conn, .. } => {
                self.of_connection(conn, record);
                self.conns.closed_by_server(conn);
            }
            Record::Connect { conn, address } => self.conns.asked_by_server(conn, address),
            Record::Listen { .. } | Record::Unlisten { .. } => self.proxies.ports_changed(record),
            Record::Datagram { frontend: 0, .. } => self.frontend.unsolicited(record, self.leads),
            Record::Datagram { frontend, .. } if frontend == self.own => {
                self.frontend.record(record);
            }
            Record::Datagram { frontend, .. } => self.proxies.datagram(frontend, record),
            Record::Lost { total } => self.frontend.server_lost(total),
            Record::Exit { .. }
            | Record::Fault { .. }
            | Record::SyscallFilter { .. }
            | Record::Caught { .. }
            | Record::Done { .. }
            | Record::Step { .. } => {}
        }
    }
}
