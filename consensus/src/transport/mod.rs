//! Links between the nodes: framed TCP on the caller's `mio::Poll`.
//!
//! # Model
//!
//! Between two nodes there is one connection; the one with the lower id dials. Both sides say hello
//! with cluster, node and protocol version, and whoever does not belong is told why and refused. On a
//! link, frames arrive in the order sent or the link breaks; what was under way when it broke is
//! lost, and the core sends it again.
//!
//! Everything happens in the caller's thread: [`Transport::handle`] on readiness,
//! [`Transport::tick`] for timers, [`Transport::flush`] once per turn to write what has gathered.
//!
//! A process that dies closes its sockets, which shows here at once. A machine that vanishes does
//! not: idle links carry pings, and one that stays silent is taken down.
//!
//! A connection need not become a link: who says [`visit`] instead of hello, of the same cluster and
//! version but not necessarily a member, gets it for a protocol of its own, and it leaves this
//! transport and its thread ([`Transport::take_visitors`]).
//!
//! A learner dials all members, and no one dials it; a member learns of it by its hello. Who does not know
//! the cluster yet says [`join()`] instead, and its connection leaves this transport and its thread.
//!
//! Deliberately absent: threads, encryption, authentication beyond the cluster's id, message meaning.

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod golden_tests;
mod join;
mod outbox;
mod visit;
mod wire;

pub use join::{JoinError, join, receive_newcomer};
pub use visit::{Visitor, visit};
pub use wire::{BODY_BYTES_MAX, VERSION};

use crate::core::{LEARNERS_FROM, LEARNERS_MAX, Msg, NodeId};
use bytes::{Bytes, BytesMut};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use outbox::Outbox;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use wire::{Head, Hello, Kind};

/// Tokens used: one for the listener, the others for connections.
pub const TOKENS: usize = 128;

/// Consensus messages beyond this many unsent bytes are dropped.
const MESSAGE_BACKLOG_MAX: usize = 64 << 20;
/// Application frames beyond this many unsent bytes are refused.
const APP_BACKLOG_MAX: usize = 32 << 20;
const READ_BYTES: usize = 256 << 10;
const PING_AFTER: Duration = Duration::from_millis(500);
const DEAD_AFTER: Duration = Duration::from_secs(3);
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_millis(200);
const BACKOFF_REFUSED: Duration = Duration::from_secs(1);

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

/// What happened on the links.
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

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Dialed and not connected yet.
    Connecting,
    /// The other side has not said hello yet.
    Greeting,
    Up,
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    state: State,
    /// Known from the start on a dialed connection, after hello on an accepted one.
    peer: Option<NodeId>,
    input: BytesMut,
    out: Outbox,
    heard_at: Instant,
    wrote_at: Instant,
}

#[derive(Debug)]
struct Neighbor {
    id: NodeId,
    /// A learner's is not known, nor needed.
    address: Option<SocketAddr>,
    /// Connection that is up, or the one being dialed.
    connection: Option<usize>,
    up: bool,
    /// When to dial next; `None` if the other side dials.
    dial_at: Option<Instant>,
    backoff: Duration,
}

/// All links of one node.
pub struct Transport {
    config: TransportConfig,
    registry: Registry,
    first_token: usize,
    /// A learner has none.
    listener: Option<TcpListener>,
    connections: Vec<Option<Connection>>,
    neighbors: Vec<Neighbor>,
    visitors: Vec<Visitor>,
    newcomers: Vec<std::net::TcpStream>,
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
    /// Listens on this node's address, if it is a member.
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
        let others = config.members.iter().filter(|(id, _)| *id != config.id);
        let neighbors = others.map(|(id, address)| Neighbor {
            address: Some(*address),
            dial_at: (config.id < *id || own.is_none()).then_some(now),
            ..Neighbor::new(*id)
        });
        Ok(Self {
            neighbors: neighbors.collect(),
            newcomers: Vec::new(),
            config,
            registry,
            first_token,
            listener,
            connections: (1..TOKENS).map(|_| None).collect(),
            visitors: Vec::new(),
            scratch: vec![0; READ_BYTES],
            head: Head::new(),
        })
    }

    /// Address listened on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.listener {
            Some(listener) => listener.local_addr(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Whether a token is one of this transport's.
    pub fn owns(&self, token: Token) -> bool {
        (self.first_token..self.first_token + TOKENS).contains(&token.0)
    }

    /// The other nodes, and whether the link to each works.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, bool)> {
        self.neighbors
            .iter()
            .map(|neighbor| (neighbor.id, neighbor.up))
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
            return; // Closed earlier in this turn.
        }
        if event.is_writable() || event.is_error() || event.is_write_closed() {
            self.writable(at, now, out);
        }
        if event.is_readable() || event.is_read_closed() {
            self.readable(at, now, out);
        }
    }

    /// Sends a consensus message, or drops it if the link is down or choked.
    pub fn send(&mut self, to: NodeId, msg: &Msg) -> bool {
        let Some(at) = self.link(to) else {
            return false;
        };
        let Some(connection) = &mut self.connections[at] else {
            return false;
        };
        if connection.out.bytes() > MESSAGE_BACKLOG_MAX {
            return false;
        }
        let value = wire::encode(msg, &mut self.head);
        connection.out.push(Kind::Message, self.head.bytes(), value);
        true
    }

    /// Sends an application frame; `false` if the link is down or choked.
    pub fn send_app(&mut self, to: NodeId, bytes: &[u8]) -> bool {
        let Some(at) = self.link(to) else {
            return false;
        };
        let Some(connection) = &mut self.connections[at] else {
            return false;
        };
        if connection.out.bytes() > APP_BACKLOG_MAX || bytes.len() >= BODY_BYTES_MAX {
            return false;
        }
        connection.out.push(Kind::App, bytes, None);
        true
    }

    /// Writes what has gathered.
    pub fn flush(&mut self, now: Instant, out: &mut Vec<TransportEvent>) {
        for at in 0..self.connections.len() {
            if self.connections[at]
                .as_ref()
                .is_some_and(|c| c.out.bytes() > 0)
            {
                self.write(at, now, out);
            }
        }
    }

    /// Dials, pings, and takes silent links down.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<TransportEvent>) {
        for index in 0..self.neighbors.len() {
            let neighbor = &self.neighbors[index];
            let due = neighbor.dial_at.is_some_and(|at| now >= at);
            if due && neighbor.connection.is_none() {
                self.dial(index, now);
            }
        }
        for at in 0..self.connections.len() {
            let Some(connection) = &mut self.connections[at] else {
                continue;
            };
            if now.saturating_duration_since(connection.heard_at) >= DEAD_AFTER {
                self.close(at, now, out);
            } else if connection.state == State::Up
                && now.saturating_duration_since(connection.wrote_at) >= PING_AFTER
            {
                connection.wrote_at = now;
                connection.out.push(Kind::Ping, &[], None);
            }
        }
    }

    /// When [`Transport::tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        let dials = self
            .neighbors
            .iter()
            .filter(|neighbor| neighbor.connection.is_none());
        let dials = dials.filter_map(|neighbor| neighbor.dial_at);
        let timers = self.connections.iter().flatten().map(|connection| {
            let dead = connection.heard_at + DEAD_AFTER;
            if connection.state == State::Up {
                dead.min(connection.wrote_at + PING_AFTER)
            } else {
                dead
            }
        });
        dials.chain(timers).min()
    }

    fn link(&self, to: NodeId) -> Option<usize> {
        let neighbor = self.neighbors.iter().find(|neighbor| neighbor.id == to)?;
        neighbor.connection.filter(|_| neighbor.up)
    }

    fn neighbor(&mut self, id: NodeId) -> Option<&mut Neighbor> {
        self.neighbors.iter_mut().find(|neighbor| neighbor.id == id)
    }

    fn accept(&mut self, now: Instant) {
        while let Some(listener) = &self.listener {
            match listener.accept() {
                Ok((socket, _)) => {
                    // Without a place for it, it is closed by being dropped, and dialed again later.
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
        self.connections[at] = Some(Connection {
            socket,
            state,
            peer,
            input: BytesMut::new(),
            out: Outbox::default(),
            heard_at: now,
            wrote_at: now,
        });
        Some(at)
    }

    fn dial(&mut self, index: usize, now: Instant) {
        let (id, address) = (self.neighbors[index].id, self.neighbors[index].address);
        let socket = address.and_then(|address| TcpStream::connect(address).ok());
        let added = socket.and_then(|socket| self.add(socket, State::Connecting, Some(id), now));
        let neighbor = &mut self.neighbors[index];
        neighbor.connection = added;
        neighbor.delay(now);
    }

    fn writable(&mut self, at: usize, now: Instant, out: &mut Vec<TransportEvent>) {
        let Some(connection) = &mut self.connections[at] else {
            return;
        };
        if connection.state == State::Connecting {
            let failed = !matches!(connection.socket.take_error(), Ok(None));
            if failed {
                self.close(at, now, out);
                return;
            }
            if connection.socket.peer_addr().is_err() {
                return; // Not connected yet.
            }
            connection.state = State::Greeting;
            if let Some(to) = connection.peer {
                self.say_hello(at, to);
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
        if connection.state == State::Connecting {
            return;
        }
        match connection.out.flush(&mut connection.socket) {
            Ok(true) => connection.wrote_at = now,
            Ok(false) => {}
            Err(_) => self.close(at, now, out),
        }
    }

    fn readable(&mut self, at: usize, now: Instant, out: &mut Vec<TransportEvent>) {
        loop {
            let Some(connection) = &mut self.connections[at] else {
                return;
            };
            match connection.socket.read(&mut self.scratch) {
                Ok(0) => return self.close(at, now, out),
                Ok(count) => {
                    connection.heard_at = now;
                    connection.input.extend_from_slice(&self.scratch[..count]);
                    if let Err(what) = self.take_frames(at, now, out) {
                        self.refuse(at, &what, now, out);
                        return;
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
    ) -> Result<(), String> {
        while let Some(connection) = &mut self.connections[at] {
            // A stranger must not make us set memory aside.
            let limit = match connection.state {
                State::Up => BODY_BYTES_MAX,
                State::Connecting | State::Greeting => wire::GREETING_BYTES_MAX,
            };
            let Some((kind, body)) = wire::take_frame(&mut connection.input, limit)? else {
                break;
            };
            match (kind, &connection.state, connection.peer) {
                (Kind::Hello, State::Greeting, _) => self.greet(at, body, now, out)?,
                (Kind::Visit, State::Greeting, None) => self.hand_over(at, body)?,
                (Kind::Join, State::Greeting, None) => return self.let_in(at, body),
                (Kind::Refuse, _, _) => {
                    let why = String::from_utf8_lossy(&body).into_owned();
                    self.refused(at, &why, now, out);
                }
                (Kind::Message, State::Up, Some(from)) => {
                    let msg = wire::decode(body).ok_or("a message that makes no sense")?;
                    out.push(TransportEvent::Message(from, msg));
                }
                (Kind::App, State::Up, Some(from)) => out.push(TransportEvent::App(from, body)),
                (Kind::Ping, State::Up, _) => {}
                _ => return Err(format!("a frame out of order ({kind:?})")),
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
    ) -> Result<(), String> {
        let hello = Hello::decode(body).ok_or("not a Brolga node")?;
        let dialed = self.connections[at]
            .as_ref()
            .and_then(|connection| connection.peer);
        self.check(&hello, dialed)?;
        if dialed.is_none() {
            if self.may_learn(hello.from) && self.neighbor(hello.from).is_none() {
                self.neighbors.push(Neighbor::new(hello.from));
            }
            self.say_hello(at, hello.from);
            let old = self
                .neighbor(hello.from)
                .and_then(|neighbor| neighbor.connection);
            if let Some(old) = old {
                // The other side gave the old one up, even if that did not show here.
                self.close(old, now, out);
            }
        }
        if let Some(connection) = &mut self.connections[at] {
            connection.state = State::Up;
            connection.peer = Some(hello.from);
        }
        if let Some(neighbor) = self.neighbor(hello.from) {
            neighbor.connection = Some(at);
            neighbor.up = true;
            neighbor.backoff = BACKOFF_MIN;
            out.push(TransportEvent::Up(hello.from));
        }
        Ok(())
    }

    /// Connections that are somebody else's business from now on. To be asked after [`Transport::handle`].
    pub fn take_visitors(&mut self) -> Vec<Visitor> {
        std::mem::take(&mut self.visitors)
    }

    fn hand_over(&mut self, at: usize, body: Bytes) -> Result<(), String> {
        let hello = Hello::decode(body).ok_or("not a Brolga node")?;
        self.check_kinship(&hello)?;
        let Some(mut connection) = self.connections[at].take_if(|it| it.input.is_empty()) else {
            return Err("a visitor has to wait for an answer".into());
        };
        // It is not looked at here any more, whatever the poll still says.
        let _ = self.registry.deregister(&mut connection.socket);
        let TransportConfig { cluster, id, .. } = self.config;
        self.visitors.extend(Visitor::greeted(
            connection.socket.into(),
            cluster,
            id,
            hello.from,
        ));
        Ok(())
    }

    /// Whether the other side is of this cluster and speaks this version.
    fn check_kinship(&self, hello: &Hello) -> Result<(), String> {
        let cluster = self.config.cluster;
        let from = hello.from;
        if hello.version != VERSION {
            return Err(format!(
                "node {from} speaks version {}, not {VERSION}",
                hello.version
            ));
        }
        if hello.cluster != cluster {
            let theirs = hello.cluster;
            return Err(format!(
                "node {from} is of cluster {theirs:032x}, not {cluster:032x}"
            ));
        }
        Ok(())
    }

    fn check(&self, hello: &Hello, dialed: Option<NodeId>) -> Result<(), String> {
        self.check_kinship(hello)?;
        let id = self.config.id;
        let from = hello.from;
        if hello.to != id {
            return Err(format!(
                "node {from} looks for node {}, this is node {id}",
                hello.to
            ));
        }
        if dialed.is_none() && self.may_learn(from) {
            return self.check_learner(from);
        }
        let expected = match dialed {
            Some(dialed) => from == dialed,
            None => from < id && self.neighbors.iter().any(|neighbor| neighbor.id == from),
        };
        if !expected {
            return Err(format!("node {from} is not expected here"));
        }
        Ok(())
    }

    /// Whether this can only be a learner, if it is anybody.
    fn may_learn(&self, from: NodeId) -> bool {
        let mut members = self.config.members.iter();
        from >= LEARNERS_FROM && members.all(|(id, _)| *id != from)
    }

    fn check_learner(&self, from: NodeId) -> Result<(), String> {
        let mut learners = self.neighbors.iter().filter(|it| it.address.is_none());
        match learners.any(|learner| learner.id == from && learner.up) {
            true => Err(format!(
                "learner {from} is connected already: is its data directory in use twice?"
            )),
            false => self.check_room(),
        }
    }

    fn check_room(&self) -> Result<(), String> {
        let learners = self.neighbors.iter().filter(|it| it.address.is_none());
        match learners.count() {
            LEARNERS_MAX.. => Err(format!("{LEARNERS_MAX} learners are enough")),
            _ => Ok(()),
        }
    }

    /// Connections of those who want to know the cluster; what they are told is the caller's business.
    /// To be asked after [`Transport::handle`].
    pub fn take_newcomers(&mut self) -> Vec<std::net::TcpStream> {
        std::mem::take(&mut self.newcomers)
    }

    fn let_in(&mut self, at: usize, body: Bytes) -> Result<(), String> {
        join::check_question(body)?;
        self.check_room()?;
        let Some(mut connection) = self.connections[at].take_if(|it| it.input.is_empty()) else {
            return Err("a newcomer has to wait for an answer".into());
        };
        // Whoever is gone need not be told.
        let _ = join::welcome(&mut connection.socket);
        let _ = self.registry.deregister(&mut connection.socket);
        let socket = std::net::TcpStream::from(connection.socket);
        if socket.set_nonblocking(false).is_ok() {
            self.newcomers.push(socket);
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
        if let Some(neighbor) = peer.and_then(|peer| self.neighbor(peer))
            && neighbor.dial_at.is_some()
        {
            neighbor.dial_at = Some(now + BACKOFF_REFUSED);
        }
        out.push(TransportEvent::Refused(why));
    }

    fn close(&mut self, at: usize, now: Instant, out: &mut Vec<TransportEvent>) {
        let Some(mut connection) = self.connections[at].take() else {
            return;
        };
        // Closing the descriptor, which follows, takes it off the poll too.
        let _ = self.registry.deregister(&mut connection.socket);
        let Some(neighbor) = connection.peer.and_then(|peer| self.neighbor(peer)) else {
            return;
        };
        if neighbor.connection != Some(at) {
            return;
        }
        neighbor.connection = None;
        let id = neighbor.id;
        if std::mem::take(&mut neighbor.up) {
            neighbor.delay(now);
            out.push(TransportEvent::Down(id));
        }
        // A learner is known as long as its link lives.
        self.neighbors
            .retain(|neighbor| neighbor.id != id || neighbor.address.is_some());
    }
}

impl Neighbor {
    /// One who dials.
    fn new(id: NodeId) -> Self {
        Self {
            id,
            address: None,
            connection: None,
            up: false,
            dial_at: None,
            backoff: BACKOFF_MIN,
        }
    }

    /// Puts the next dial off, longer each time.
    fn delay(&mut self, now: Instant) {
        if self.dial_at.is_some() {
            self.dial_at = Some(now + self.backoff);
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
    }
}
