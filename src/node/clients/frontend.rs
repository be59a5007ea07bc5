//! The frontend: owns the clients' TCP connections and the ports for their datagrams, turns what
//! they send into events for the leader, and gives them the output of a replica.
//!
//! A frontend knows nothing of consensus. Events that are to be ordered gather in its [`Outbox`];
//! what is committed and what the server answers is told to it, by the node it lives in or over a
//! connection to one.

use crate::clients::connection::{Connection, ConnectionInfo, DATA_BYTES_MAX, Origin};
use crate::clients::connection_table::Progress;
use crate::clients::datagrams::{DatagramCounts, Datagrams, OutboundDatagram};
use crate::clients::id_map::IdMap;
use crate::clients::listeners::{Listeners, PublishError, Published};
use crate::clients::outbox::{Events, Outbox};
use crate::clients::unix_sockets::UnixSockets;
use brolga_os::sys;
use brolga_tape::ConnId;
use brolga_tape::entry::Event;
use brolga_tape::record::{Record, Transport};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// After running out of descriptors, clients are accepted again this much later.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Poll tokens of a frontend: from `listeners` and `datagrams`, one for each port; from `clients`
/// up, all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens {
    /// The first of 65536 for listening sockets.
    pub listeners: usize,
    /// The first of 65536 for ports that take datagrams, and then some for what the server sends
    /// unasked.
    pub datagrams: usize,
    /// The first for clients.
    pub clients: usize,
}

/// A frontend: the sockets of clients.
#[derive(Debug)]
pub(crate) struct Frontend {
    id: u64,
    node: u64,
    tokens: Tokens,
    registry: Registry,
    listeners: Listeners,
    datagrams: Datagrams,
    accept_retry: Option<Instant>,
    /// By poll token; `free` holds the empty places.
    clients: Vec<Option<Connection>>,
    free: Vec<u32>,
    by_conn: IdMap<ConnId, u32>,
    last_counter: u64,
    /// Clients with output to flush, input to go on with, or an end to see to.
    touched: Vec<u32>,
    outbox: Outbox,
    up_committed: bool,
    /// Counts everything that was committed, to see whether anything moves.
    progress: u64,
    /// Sends close notifications; see [`Frontend::notify_closes`].
    notifies_closes: bool,
    buffer: Vec<u8>,
}

impl Frontend {
    /// A frontend without clients, for node `node`.
    pub(crate) fn new(
        id: u64,
        node: u64,
        publish: IpAddr,
        registry: [Registry; 4],
        tokens: Tokens,
    ) -> Self {
        let [registry, for_listeners, one, two] = registry;
        let mut frontend = Self {
            id,
            node,
            tokens,
            registry,
            listeners: Listeners::new(publish, for_listeners, tokens.listeners),
            datagrams: Datagrams::new(publish, [one, two], tokens.datagrams),
            accept_retry: None,
            clients: Vec::new(),
            free: Vec::new(),
            by_conn: IdMap::default(),
            last_counter: 0,
            touched: Vec::new(),
            outbox: Outbox::default(),
            up_committed: false,
            progress: 0,
            notifies_closes: false,
            buffer: vec![0; DATA_BYTES_MAX],
        };
        frontend.say_up();
        frontend
    }

    /// UNIX sockets of the server are published as well.
    pub(crate) fn publish_unix(&mut self, sockets: UnixSockets) {
        self.listeners.publish_unix(sockets);
    }

    /// The identity under which the log knows it.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Events on their way to the leader.
    pub(crate) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Clients connected here.
    pub(crate) fn client_count(&self) -> usize {
        self.clients.len() - self.free.len() - self.outgoing_count()
    }

    /// Connections that the server has opened and this frontend has.
    pub(crate) fn outgoing_count(&self) -> usize {
        let all = self.clients.iter().flatten();
        all.filter(|client| client.conn().is_outgoing()).count()
    }

    /// The addresses that clients can connect to.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.addresses()
    }

    /// The addresses that clients can send datagrams to.
    pub(crate) fn datagram_addresses(&self) -> Vec<SocketAddr> {
        self.datagrams.addresses()
    }

    /// Counts of datagrams here.
    pub(crate) fn datagram_counts(&self) -> DatagramCounts {
        self.datagrams.counts()
    }

    /// Counts up whenever something of this frontend's is committed.
    pub(crate) fn progress(&self) -> u64 {
        self.progress
    }

    /// Returns true while something that was sent to the leader is not committed.
    pub(crate) fn has_outstanding(&self) -> bool {
        !self.up_committed
            || self.datagrams.is_outstanding()
            || self
                .clients
                .iter()
                .flatten()
                .any(Connection::is_outstanding)
    }

    /// The time at which [`Frontend::tick`] is to be called although nothing has happened.
    pub(crate) fn wakeup(&self) -> Option<Instant> {
        self.accept_retry
    }

    // ---- clients ----

    /// Returns true when the poll token belongs to this frontend.
    pub(crate) fn owns(&self, token: Token) -> bool {
        token.0 >= self.tokens.clients
            || self.listeners.port_of(token).is_some()
            || self.datagrams.owns(token)
    }

    /// Handles an event of the poll at one of the sockets.
    pub(crate) fn handle(&mut self, event: &mio::event::Event, now: Instant) {
        if let Some(index) = event.token().0.checked_sub(self.tokens.clients) {
            self.client_ready(index, event);
        } else if let Some(port) = self.listeners.port_of(event.token()) {
            self.accept(port, now);
        } else {
            self.datagrams.ready(event.token());
        }
    }

    /// Reads datagrams, and tries again what has failed for lack of descriptors.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.datagrams.receive(self.id, now, &mut self.outbox);
        if self.accept_retry.is_some_and(|at| at <= now) {
            self.accept_retry = None;
            for port in self.listeners.open_ports() {
                self.accept(port, now);
            }
        }
    }

    fn client_ready(&mut self, index: usize, event: &mio::event::Event) {
        let Some(Some(client)) = self.clients.get_mut(index) else {
            return;
        };
        let hangup = event.is_read_closed();
        client.ready(event.is_readable() || hangup, event.is_writable(), hangup);
        if client.is_dialling() {
            client.dialled(&mut self.outbox);
            return;
        }
        if event.is_error() {
            client.abort(&mut self.outbox);
        }
        self.serve(index as u32);
    }

    fn accept(&mut self, port: u16, now: Instant) {
        loop {
            match self.listeners.accept(port) {
                Ok(Some(accepted)) => {
                    self.last_counter += 1;
                    let conn = ConnId {
                        frontend: self.id,
                        counter: self.last_counter,
                    };
                    let origin = Origin::Accepted {
                        listener: accepted.listener,
                        peer: accepted.peer,
                        local: accepted.local,
                    };
                    self.add(ConnectionInfo { conn, origin }, accepted.stream);
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, port, "cannot accept clients for now");
                    self.accept_retry = Some(now + ACCEPT_RETRY);
                    return;
                }
            }
        }
    }

    fn add(&mut self, identity: ConnectionInfo, stream: TcpStream) {
        let index = self.free_index();
        // Without it small answers wait for the client's acknowledgements; losing it is only slow.
        let _ = stream.set_nodelay(true);
        // A byte out of band is a byte like any other; if that fails, it is lost.
        let _ = sys::deliver_urgent_in_line(&stream);
        match self.watch(stream, index) {
            Ok(stream) => self.insert(index, identity, Some(stream)),
            Err(error) => {
                tracing::warn!(%error, "cannot watch a client's socket");
                self.free.push(index);
            }
        }
    }

    fn free_index(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() as u32 - 1
        })
    }

    fn watch(&self, mut stream: TcpStream, index: u32) -> io::Result<TcpStream> {
        let token = Token(self.tokens.clients + index as usize);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut stream, token, interest)?;
        Ok(stream)
    }

    fn insert(&mut self, index: u32, identity: ConnectionInfo, stream: Option<TcpStream>) {
        let client = Connection::new(identity, stream, &mut self.outbox);
        self.by_conn.insert(identity.conn, index);
        self.clients[index as usize] = Some(client);
    }

    /// Makes a connection that the server wants, unless that is being done.
    pub(crate) fn dial(&mut self, conn: ConnId, address: SocketAddr) {
        if self.by_conn.contains_key(&conn) {
            return;
        }
        let index = self.free_index();
        let origin = Origin::Dialled {
            owner: self.id,
            answer: None,
        };
        let stream = TcpStream::connect(address).and_then(|stream| self.watch(stream, index));
        let (stream, failure) = match stream {
            Ok(stream) => (Some(stream), None),
            Err(error) => (None, Some(error)),
        };
        if let Some(stream) = &stream {
            // As for clients.
            let _ = stream.set_nodelay(true);
            let _ = sys::deliver_urgent_in_line(stream);
        }
        self.insert(index, ConnectionInfo { conn, origin }, stream);
        if let (Some(error), Some(client)) = (failure, &mut self.clients[index as usize]) {
            client.answered(Err(sys::errno_of(&error)), &mut self.outbox);
        }
    }

    /// A connection that the server wanted was answered by `owner`; one of this frontend's own that
    /// comes too late is dropped.
    pub(crate) fn answered(&mut self, conn: ConnId, owner: u64) {
        if owner == self.id {
            return;
        }
        self.touch(conn, |client| {
            client.server_closed(true);
            true
        });
    }

    /// Reads and writes what is possible, and forgets the client when it is finished.
    fn serve(&mut self, index: u32) {
        let Some(Some(client)) = self.clients.get_mut(index as usize) else {
            return;
        };
        client.receive(&mut self.buffer, &mut self.outbox);
        client.flush(&mut self.outbox);
        if client.is_finished() {
            if self.notifies_closes {
                client.notify_closed(&mut self.outbox);
            }
            self.by_conn.remove(&client.conn());
            self.clients[index as usize] = None;
            self.free.push(index);
        }
    }

    /// Serves every client that records or commits have touched: once per batch, so that the
    /// answers to a pipelining client leave in one write.
    pub(crate) fn serve_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for index in touched.drain(..) {
            self.serve(index);
        }
        self.touched = touched;
    }

    fn find(&mut self, conn: ConnId) -> Option<(u32, &mut Connection)> {
        let index = *self.by_conn.get(&conn)?;
        let client = self.clients.get_mut(index as usize)?.as_mut()?;
        Some((index, client))
    }

    // ---- what is committed ----

    /// An event of this frontend is committed.
    pub(crate) fn committed(&mut self, conn: ConnId, progress: Progress) {
        self.progress += 1;
        match progress {
            Progress::Up => {
                self.up_committed = true;
                return;
            }
            Progress::Heard(number) => return self.datagrams.committed(number),
            _ => {}
        }
        let Some((index, client)) = self.find(conn) else {
            return;
        };
        match progress {
            Progress::Opened => {
                client.committed_open();
                if conn.is_outgoing() {
                    self.touched.push(index);
                }
            }
            Progress::Input(next) => client.committed_input(next),
            Progress::Credited(upto) => client.committed_credit(upto),
            Progress::Ended(how) => {
                client.committed_end(how);
                self.touched.push(index);
            }
            Progress::Nothing | Progress::Up | Progress::Gone | Progress::Heard(_) => {}
        }
    }

    /// The log has given this frontend up, because it was away for too long: nothing that its
    /// clients send has an effect any more. It starts over under a new identity.
    pub(crate) fn start_over(&mut self, id: u64) {
        self.drop_clients();
        self.outbox.clear();
        self.datagrams.start_over();
        self.id = id;
        self.last_counter = 0;
        self.up_committed = false;
        self.say_up();
    }

    /// Disconnects every client that the server has not taken leave of.
    pub(crate) fn drop_clients(&mut self) {
        for index in 0..self.clients.len() as u32 {
            if let Some(Some(client)) = self.clients.get_mut(index as usize)
                && !client.is_closed_by_server()
            {
                client.server_closed(true);
                self.touched.push(index);
            }
        }
        self.serve_touched();
    }

    /// Sends a close notification for each connection that is done: nodes keep the output for a
    /// stand-alone frontend until then.
    pub(crate) fn notify_closes(&mut self) {
        self.notifies_closes = true;
    }

    /// Changes the node that it is the frontend of; a stand-alone frontend is its own.
    pub(crate) fn belongs_to(&mut self, node: u64) {
        self.node = node;
        self.outbox.clear();
        self.say_up();
    }

    /// The connections, each with the position of the next output byte that it wants.
    pub(crate) fn positions(&self) -> Vec<(u64, u64)> {
        let position = |client: &Connection| (client.conn().counter, client.output_next());
        self.clients.iter().flatten().map(position).collect()
    }

    fn say_up(&mut self) {
        self.outbox.event(&Event::FrontendUp {
            node: self.node,
            frontend: self.id,
        });
    }

    /// Says everything again that is not committed, instead of what waits to be sent.
    pub(crate) fn resend(&mut self, now: Instant) {
        self.outbox.clear();
        if !self.up_committed {
            self.say_up();
        }
        // An open only counts when its counter is above all earlier ones, so the order matters.
        let mut clients: Vec<&Connection> = self.clients.iter().flatten().collect();
        clients.sort_unstable_by_key(|client| client.conn().counter);
        for client in clients {
            client.resend(&mut self.outbox);
        }
        self.datagrams.resend(self.id, now, &mut self.outbox);
    }

    // ---- what the server does ----

    /// Opens the ports for clients.
    ///
    /// # Errors
    /// A port can't be opened.
    pub(crate) fn start_serving(&mut self) -> Result<(), PublishError> {
        self.listeners.start_serving()?;
        self.datagrams.start_serving()
    }

    /// The server listens.
    ///
    /// # Errors
    /// The port can't be opened.
    pub(crate) fn listen(&mut self, port: Published) -> Result<(), PublishError> {
        match port.transport {
            Transport::Stream => self.listeners.listen(port),
            Transport::Datagram => self.datagrams.listen(port),
        }
    }

    /// The server has exactly these listeners.
    ///
    /// # Errors
    /// A port can't be opened.
    pub(crate) fn listen_exactly(&mut self, ports: &[Published]) -> Result<(), PublishError> {
        for known in self.known() {
            if ports.iter().all(|port| port.listener != known.listener) {
                self.unlisten(known.listener);
            }
        }
        ports.iter().try_for_each(|port| self.listen(*port))
    }

    /// The server's listeners; `None` while clients may not connect yet.
    pub(crate) fn known_listeners(&self) -> Option<Vec<Published>> {
        self.listeners.is_serving().then(|| self.known())
    }

    /// The server's listeners, open for clients or not.
    pub(crate) fn known(&self) -> Vec<Published> {
        let streams = self.listeners.known().into_iter();
        streams.chain(self.datagrams.known()).collect()
    }

    /// The server no longer listens.
    pub(crate) fn unlisten(&mut self, listener: u32) {
        self.listeners.unlisten(listener);
        self.datagrams.unlisten(listener);
    }

    /// The server is gone for good.
    pub(crate) fn server_gone(&mut self) {
        self.listeners.close_all();
        self.datagrams.close_all();
        self.drop_clients();
    }

    /// Every replica has dropped so many datagrams from the log.
    pub(crate) fn server_lost(&mut self, total: u64) {
        self.datagrams.server_lost(total);
    }

    /// A datagram for somebody that no frontend has heard; `leads`: it is for this node to send it.
    pub(crate) fn unsolicited(&mut self, record: &Record<'_>, leads: bool) {
        if let Some(datagram) = datagram(record) {
            self.datagrams.unsolicited(&datagram, leads);
        }
    }

    /// Serves nobody until [`Frontend::start_serving`]; ports that the server opens meanwhile are
    /// noted. Output that was not delivered yet is dropped.
    pub(crate) fn retire(&mut self) {
        self.listeners.retire();
        self.datagrams.retire();
        for index in 0..self.clients.len() as u32 {
            if let Some(Some(client)) = self.clients.get_mut(index as usize) {
                client.abort(&mut self.outbox);
                client.server_closed(true);
                self.touched.push(index);
            }
        }
        self.serve_touched();
    }

    /// Handles a record about a connection of this frontend, or a datagram for it.
    pub(crate) fn record(&mut self, record: &Record<'_>) {
        match *record {
            Record::Data {
                conn,
                offset,
                bytes,
            } => self.output(conn, offset, bytes),
            Record::Consumed { conn, upto } => {
                self.touch(conn, |client| client.consumed(upto));
            }
            Record::Fin { conn, .. } => self.touch(conn, |client| {
                client.server_fin();
                true
            }),
            Record::Closed { conn, reset, .. } => self.touch(conn, |client| {
                client.server_closed(reset);
                true
            }),
            Record::Datagram { .. } => {
                if let Some(datagram) = datagram(record) {
                    self.datagrams.answer(&datagram);
                }
            }
            _ => {}
        }
    }

    fn touch(&mut self, conn: ConnId, change: impl FnOnce(&mut Connection) -> bool) {
        let Some((index, client)) = self.find(conn) else {
            return;
        };
        if change(client) {
            self.touched.push(index);
        }
    }

    fn output(&mut self, conn: ConnId, offset: u64, bytes: &[u8]) {
        let Some((index, client)) = self.find(conn) else {
            return;
        };
        match client.output(offset, bytes) {
            Ok(true) => self.touched.push(index),
            Ok(false) => {}
            Err(gap) => {
                // Nothing but a bug in the server's side of the tape leads here. Going on would
                // hand the client a stream with a hole in it.
                tracing::error!(%gap, ?conn, "a client is disconnected");
                let index = index as usize;
                if let Some(Some(client)) = self.clients.get_mut(index) {
                    client.abort(&mut self.outbox);
                }
            }
        }
    }
}

fn datagram<'a>(record: &Record<'a>) -> Option<OutboundDatagram<'a>> {
    match *record {
        Record::Datagram {
            number,
            local,
            peer,
            bytes,
            ..
        } => Some(OutboundDatagram {
            number,
            local,
            peer,
            bytes,
        }),
        _ => None,
    }
}
