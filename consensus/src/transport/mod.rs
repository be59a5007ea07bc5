//! Links between the nodes: framed TCP on the caller's `mio::Poll`.
//!
//! # Model
//!
//! Between two nodes there is one connection; the one with the lower id dials. Both sides say hello
//! with cluster, node and protocol version, and whoever does not belong is told why and refused. On
//! a link, frames arrive in the order sent or the link breaks; what was under way when it broke is
//! lost, and the core sends it again.
//!
//! Everything happens in the caller's thread: [`Transport::handle`] on readiness,
//! [`Transport::tick`] for timers, [`Transport::flush`] once per iteration to write the gathered
//! frames.
//!
//! A process that dies closes its sockets, which shows here at once. A machine that vanishes does
//! not: idle links carry pings, and one that stays silent is taken down.
//!
//! A connection need not become a link. A client of the same cluster and version, not necessarily a
//! member, can ask for a connection for a protocol of its own ([`open_stream`]), which then leaves
//! this transport and its thread ([`Transport::take_upgraded_streams`]).
//!
//! A learner dials all members, and no one dials it; a member learns of it by its hello. A machine
//! that does not know the cluster yet asks for it ([`join()`]), and its connection leaves the
//! transport likewise.
//!
//! Deliberately absent: threads, encryption, authentication beyond the cluster's id, message
//! meaning.

mod connection;
mod error;
mod first_frame;
#[cfg(test)]
mod fuzz_tests;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
#[cfg(test)]
mod golden_tests;
mod handoff;
mod join;
mod message;
mod neighbors;
mod outbox;
mod wire;

pub use error::Refusal;
pub use handoff::{UpgradedStream, open_stream};
pub use join::{JoinError, join, receive_joiner};
pub use wire::{BODY_BYTES_MAX, FrameError, VERSION};

use crate::core::{Msg, NodeId};
use bytes::Bytes;
use connection::{Connection, State};
use message::Head;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use neighbors::Neighbors;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;
use wire::{Hello, Kind};

/// Tokens used: one for the listener, the others for connections.
pub const TOKENS: usize = 128;

/// Consensus messages beyond this many unsent bytes are dropped.
const MESSAGE_BACKLOG_MAX: usize = 64 << 20;
/// Application frames beyond this many unsent bytes are refused.
const APP_BACKLOG_MAX: usize = 32 << 20;
const READ_BYTES: usize = 256 << 10;

/// Settings of a [`Transport`].
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Cluster; others are refused.
    pub cluster: u128,
    /// This node.
    pub id: NodeId,
    /// All members with their addresses; this node listens on its own, if it is one.
    pub members: Vec<(NodeId, SocketAddr)>,
}

/// An event on the links.
#[derive(Debug)]
pub enum TransportEvent {
    /// The link to this node works.
    Up(NodeId),
    /// The link to this node is gone.
    Down(NodeId),
    /// A consensus message arrived.
    Message(NodeId, Msg),
    /// An application frame arrived.
    App(NodeId, Bytes),
    /// A connection was refused, by this side or the other.
    Refused(String),
}

/// The links of one node.
pub struct Transport {
    config: TransportConfig,
    registry: Registry,
    first_token: usize,
    /// A learner has none.
    listener: Option<TcpListener>,
    connections: Vec<Option<Connection>>,
    neighbors: Neighbors,
    upgraded: Vec<UpgradedStream>,
    joiners: Vec<std::net::TcpStream>,
    scratch: Vec<u8>,
    head: Head,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("neighbors", &self.neighbors)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// Opens the transport: listens on this node's address, if it is a member.
    ///
    /// # Errors
    /// The address cannot be listened on, or the poll refuses the socket.
    pub fn open(
        config: TransportConfig,
        registry: &Registry,
        first_token: usize,
        now: Instant,
    ) -> io::Result<Self> {
        let own = config.members.iter().find(|(id, _)| *id == config.id);
        let mut listener = own.map(|own| TcpListener::bind(own.1)).transpose()?;
        let registry = registry.try_clone()?;
        if let Some(listener) = &mut listener {
            registry.register(listener, Token(first_token), Interest::READABLE)?;
        }
        Ok(Self {
            neighbors: Neighbors::new(&config, now),
            joiners: Vec::new(),
            config,
            registry,
            first_token,
            listener,
            connections: (1..TOKENS).map(|_| None).collect(),
            upgraded: Vec::new(),
            scratch: vec![0; READ_BYTES],
            head: Head::new(),
        })
    }

    /// The address listened on.
    ///
    /// # Errors
    /// This node is a learner, which listens on none.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.listener {
            Some(listener) => listener.local_addr(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Returns true if a token is one of this transport's.
    pub fn owns(&self, token: Token) -> bool {
        (self.first_token..self.first_token + TOKENS).contains(&token.0)
    }

    /// The other nodes, and whether the link to each works.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, bool)> {
        self.neighbors.iter().map(|it| (it.id, it.up))
    }

    /// Reacts to readiness of one of this transport's sockets.
    pub fn handle(&mut self, event: &Event, now: Instant, out: &mut Vec<TransportEvent>) {
        assert!(self.owns(event.token()), "an event of someone else");
        if event.token().0 == self.first_token {
            self.accept(now);
            return;
        }
        let at = event.token().0 - self.first_token - 1;
        if self.connections[at].is_none() {
            return; // Closed earlier in this iteration.
        }
        if event.is_writable() || event.is_error() || event.is_write_closed() {
            self.writable(at, now, out);
        }
        if event.is_readable() || event.is_read_closed() {
            self.readable(at, now, out);
        }
    }

    /// Sends a consensus message. Returns false if the link is down or congested; the message is
    /// dropped.
    pub fn send(&mut self, to: NodeId, msg: &Msg) -> bool {
        let link = self.neighbors.link(to);
        let Some(connection) = link.and_then(|at| self.connections[at].as_mut()) else {
            return false;
        };
        if connection.out.bytes() > MESSAGE_BACKLOG_MAX {
            return false;
        }
        let value = message::encode(msg, &mut self.head);
        connection.out.push(Kind::Message, self.head.bytes(), value);
        true
    }

    /// Sends an application frame. Returns false if the link is down or congested.
    pub fn send_app(&mut self, to: NodeId, bytes: &[u8]) -> bool {
        let link = self.neighbors.link(to);
        let Some(connection) = link.and_then(|at| self.connections[at].as_mut()) else {
            return false;
        };
        if connection.out.bytes() > APP_BACKLOG_MAX || bytes.len() >= BODY_BYTES_MAX {
            return false;
        }
        connection.out.push(Kind::App, bytes, None);
        true
    }

    /// Writes the gathered frames.
    pub fn flush(&mut self, now: Instant, out: &mut Vec<TransportEvent>) {
        for at in 0..self.connections.len() {
            let connection = self.connections[at].as_ref();
            if connection.is_some_and(|it| it.out.bytes() > 0) {
                self.write(at, now, out);
            }
        }
    }

    /// Dials, pings, and takes silent links down.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<TransportEvent>) {
        for index in 0..self.neighbors.len() {
            let dial_at = self.neighbors.at(index).dial_at();
            if dial_at.is_some_and(|at| now >= at) {
                self.dial(index, now);
            }
        }
        for at in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[at] else {
                continue;
            };
            match connection.is_dead(now) {
                true => self.close(at, now, out),
                false => connection.ping(now),
            }
        }
    }

    /// The time at which [`Transport::tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let dials = self.neighbors.iter().filter_map(|it| it.dial_at());
        let connections = self.connections.iter().flatten();
        dials.chain(connections.map(Connection::deadline)).min()
    }

    /// Connections handed off since the last call. To be asked after [`Transport::handle`].
    pub fn take_upgraded_streams(&mut self) -> Vec<UpgradedStream> {
        std::mem::take(&mut self.upgraded)
    }

    /// Connections of joiners since the last call; the caller describes the cluster to them. To be
    /// asked after [`Transport::handle`].
    pub fn take_joiners(&mut self) -> Vec<std::net::TcpStream> {
        std::mem::take(&mut self.joiners)
    }

    fn accept(&mut self, now: Instant) {
        while let Some(listener) = &self.listener {
            match listener.accept() {
                Ok((socket, _)) => {
                    // Without a free token it is closed by being dropped, and dialed again later.
                    let _ = self.add(socket, State::Greeting, None, now);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn add(
        &mut self,
        mut socket: TcpStream,
        state: State,
        peer: Option<NodeId>,
        now: Instant,
    ) -> Option<usize> {
        let at = self.connections.iter().position(Option::is_none)?;
        // A refused option costs latency, not the link.
        let _ = socket.set_nodelay(true);
        let token = Token(self.first_token + 1 + at);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut socket, token, both).ok()?;
        self.connections[at] = Some(Connection::new(socket, state, peer, now));
        Some(at)
    }

    fn dial(&mut self, index: usize, now: Instant) {
        let neighbor = self.neighbors.at(index);
        let (id, address) = (neighbor.id, neighbor.address);
        let socket = address.and_then(|address| TcpStream::connect(address).ok());
        let added = socket.and_then(|socket| self.add(socket, State::Connecting, Some(id), now));
        let neighbor = self.neighbors.at(index);
        neighbor.connection = added;
        neighbor.delay(now);
    }

    fn writable(&mut self, at: usize, now: Instant, out: &mut Vec<TransportEvent>) {
        let Some(connection) = &mut self.connections[at] else {
            return;
        };
        let peer = connection.peer;
        match connection.finish_connect() {
            Err(_) => return self.close(at, now, out),
            Ok(false) => {}
            Ok(true) => {
                if let Some(to) = peer {
                    self.say_hello(at, to);
                }
            }
        }
        self.write(at, now, out);
    }

    fn say_hello(&mut self, at: usize, to: NodeId) {
        let TransportConfig { cluster, id, .. } = self.config;
        let hello = Hello {
            version: VERSION,
            cluster,
            from: id,
            to,
        };
        if let Some(connection) = &mut self.connections[at] {
            connection.out.push(Kind::Hello, &hello.encode(), None);
        }
    }

    fn write(&mut self, at: usize, now: Instant, out: &mut Vec<TransportEvent>) {
        let Some(connection) = &mut self.connections[at] else {
            return;
        };
        if connection.write(now).is_err() {
            self.close(at, now, out);
        }
    }

    fn readable(&mut self, at: usize, now: Instant, out: &mut Vec<TransportEvent>) {
        loop {
            let Some(connection) = &mut self.connections[at] else {
                return;
            };
            match connection.read(&mut self.scratch, now) {
                Ok(0) => return self.close(at, now, out),
                Ok(_) => {
                    if let Err(why) = self.take_frames(at, now, out) {
                        return self.refuse(at, &why.to_string(), now, out);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(at, now, out),
            }
        }
    }

    fn take_frames(
        &mut self,
        at: usize,
        now: Instant,
        out: &mut Vec<TransportEvent>,
    ) -> Result<(), Refusal> {
        while let Some(connection) = &mut self.connections[at] {
            let Some((kind, body)) = connection.next_frame()? else {
                break;
            };
            match (kind, connection.state, connection.peer) {
                (Kind::Hello, State::Greeting, _) => self.greet(at, body, now, out)?,
                (Kind::Upgrade, State::Greeting, None) => self.hand_off(at, body)?,
                (Kind::Join, State::Greeting, None) => return self.accept_joiner(at, body),
                (Kind::Refuse, _, _) => {
                    let why = String::from_utf8_lossy(&body).into_owned();
                    self.refused(at, &why, now, out);
                }
                (Kind::Message, State::Up, Some(from)) => {
                    let msg = message::decode(body).ok_or(Refusal::Message)?;
                    out.push(TransportEvent::Message(from, msg));
                }
                (Kind::App, State::Up, Some(from)) => out.push(TransportEvent::App(from, body)),
                (Kind::Ping, State::Up, _) => {}
                _ => return Err(Refusal::OutOfOrder(kind.name())),
            }
        }
        Ok(())
    }

    /// Checks the other side's hello; answers it on an accepted connection.
    fn greet(
        &mut self,
        at: usize,
        body: Bytes,
        now: Instant,
        out: &mut Vec<TransportEvent>,
    ) -> Result<(), Refusal> {
        let hello = Hello::decode(body).ok_or(Refusal::NotANode)?;
        let dialed = self.connections[at].as_ref().and_then(|it| it.peer);
        self.neighbors.check(&hello, dialed)?;
        if dialed.is_none() {
            self.neighbors.add_learner(hello.from);
            self.say_hello(at, hello.from);
            let neighbor = self.neighbors.get(hello.from);
            if let Some(old) = neighbor.and_then(|it| it.connection) {
                // The other side gave the old one up, even if that did not show here.
                self.close(old, now, out);
            }
        }
        if let Some(connection) = &mut self.connections[at] {
            connection.state = State::Up;
            connection.peer = Some(hello.from);
        }
        if let Some(neighbor) = self.neighbors.get(hello.from) {
            neighbor.link_up(at);
            out.push(TransportEvent::Up(hello.from));
        }
        Ok(())
    }

    /// Takes a connection off the poll and out of the transport. Only if no bytes follow the
    /// request.
    fn detach(&mut self, at: usize) -> Result<TcpStream, Refusal> {
        let connection = self.connections[at].take_if(|it| !it.has_input());
        let mut socket = connection.ok_or(Refusal::Impatient)?.socket;
        // Its token has no connection any more, so an event that comes all the same is ignored.
        let _ = self.registry.deregister(&mut socket);
        Ok(socket)
    }

    fn hand_off(&mut self, at: usize, body: Bytes) -> Result<(), Refusal> {
        let hello = Hello::decode(body).ok_or(Refusal::NotANode)?;
        self.neighbors.check_cluster(&hello)?;
        let socket = self.detach(at)?.into();
        let TransportConfig { cluster, id, .. } = self.config;
        let stream = UpgradedStream::greet(socket, cluster, id, hello.from);
        self.upgraded.extend(stream);
        Ok(())
    }

    fn accept_joiner(&mut self, at: usize, body: Bytes) -> Result<(), Refusal> {
        join::check_request(body)?;
        self.neighbors.check_room()?;
        let mut socket = self.detach(at)?;
        // A joiner that is gone need not be answered.
        let _ = join::accept(&mut socket);
        let socket = std::net::TcpStream::from(socket);
        if socket.set_nonblocking(false).is_ok() {
            self.joiners.push(socket);
        }
        Ok(())
    }

    /// Tells the other side why, and closes.
    fn refuse(&mut self, at: usize, why: &str, now: Instant, out: &mut Vec<TransportEvent>) {
        if let Some(connection) = &mut self.connections[at] {
            connection.out.push(Kind::Refuse, why.as_bytes(), None);
            // Best effort: a side that cannot be written to learns nothing.
            let _ = connection.out.flush(&mut connection.socket);
        }
        self.refused(at, why, now, out);
    }

    fn refused(&mut self, at: usize, why: &str, now: Instant, out: &mut Vec<TransportEvent>) {
        let Some(connection) = &self.connections[at] else {
            return;
        };
        let why = match connection.socket.peer_addr() {
            Ok(address) => format!("connection with {address} refused: {why}"),
            Err(_) => format!("connection refused: {why}"),
        };
        let peer = connection.peer;
        self.close(at, now, out);
        if let Some(neighbor) = peer.and_then(|peer| self.neighbors.get(peer)) {
            neighbor.refused(now);
        }
        out.push(TransportEvent::Refused(why));
    }

    fn close(&mut self, at: usize, now: Instant, out: &mut Vec<TransportEvent>) {
        let Some(mut connection) = self.connections[at].take() else {
            return;
        };
        // Closing the descriptor, which follows, takes it off the poll too.
        let _ = self.registry.deregister(&mut connection.socket);
        if let Some(peer) = connection.peer {
            self.neighbors.closed(peer, at, now, out);
        }
    }
}
