//! Datagram sockets: ports, receive queues with message boundaries, peers.
//!
//! What comes from outside is an event of the log; what is sent to a port of the tree itself is
//! delivered here. A datagram for anybody else goes to the frontend through which that peer was last
//! heard; if there is none, the leader's node sends it. As with connections, the address that a socket
//! is bound to says who inside may send to it, not where the node opens the port.
//!
//! A port that the server names is opened outside once the server has nothing else to do, so that one
//! which it gives to a socket that it connects at once, to ask others, stays closed.
//!
//! Loss is decided here and nowhere else once a datagram is in the log: a queue that is full drops
//! what comes, at the same datagram on every replica.

use crate::routes::{Routes, mixed};
use crate::{Net, Socket, SocketIx, State, World, errno, ready};
use brolga_tape::DATAGRAM_BYTES_MAX;
use brolga_tape::entry::{ADDRESS_BYTES, address_bytes, read_address};
use brolga_tape::record::{Record, Transport};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes that wait in a socket, heads included: more than the largest entry brings.
const QUEUE_BYTES_MAX: u64 = 1 << 20;
/// Bytes that wait in all sockets.
const WAITING_BYTES_MAX: u64 = 512 << 20;
/// `length u32 | 0 u32 | peer | local`, before each datagram in a queue.
const HEAD_BYTES: usize = 8 + 2 * ADDRESS_BYTES;
const BUCKETS: usize = 1024;
/// Ports for sockets that do not name one: above those that Linux gives to clients by default, so that
/// no client on this machine has the address of a socket inside.
const FIRST_FREE_PORT: u16 = 61_000;

/// A datagram without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Bytes of the payload.
    pub len: usize,
    /// Its sender.
    pub peer: SocketAddr,
    /// The address that it was sent to.
    pub local: SocketAddr,
}

/// What came of receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A datagram, of which as much was shown as was asked for.
    Datagram(Envelope),
    /// Nothing there yet.
    WouldBlock,
    /// The server shut its reading side.
    End,
    /// An earlier datagram went to a port that nobody has (reported once).
    Refused,
}

/// Why a datagram was not sent, or an address not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramError {
    /// Neither the call nor the socket names a destination.
    NoDestination,
    /// Longer than any datagram.
    TooLong,
    /// The destination's family does not fit the socket.
    Unreachable,
    /// An earlier datagram went to a port that nobody has (reported once).
    Refused,
    /// The server shut its writing side.
    Shut,
    /// The address belongs to another socket.
    InUse,
    /// There is no free port.
    NoPort,
}

/// What a socket has only if it takes datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DatagramOptions {
    /// `IP_PKTINFO`: receiving tells the local address.
    pub tells_local: bool,
    /// `IPV6_RECVPKTINFO`.
    pub tells_local_v6: bool,
    /// The server named the port, so it is open outside unless the socket has a peer.
    named: bool,
    /// It is to be opened outside.
    unpublished: bool,
    /// The next socket of its bucket.
    next: SocketIx,
}

impl DatagramOptions {
    pub(crate) const NONE: Self = Self {
        tells_local: false,
        tells_local_v6: false,
        named: false,
        unpublished: false,
        next: 0,
    };
}

/// What all datagram sockets share.
#[repr(C)]
pub(crate) struct Datagrams {
    /// Bound sockets by port, the latest first.
    bound: [SocketIx; BUCKETS],
    /// The last free port that was given out.
    port_given: u16,
    waiting_bytes: u64,
    /// Dropped because a queue was full, or nobody had the port.
    lost: u64,
    /// Sent to peers that no frontend has heard.
    unasked: u64,
    /// Sockets whose port is to be opened outside.
    unpublished: u32,
    routes: Routes,
    /// What is being sent, in one piece.
    outgoing: [u8; DATAGRAM_BYTES_MAX],
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Its receiver, if not the socket's peer.
    pub to: Option<SocketAddr>,
    /// The address that it is to come from, if that is one of ours.
    pub source: Option<IpAddr>,
    /// Where nobody in the tree has the port, a loopback address is that of the machine that sends.
    pub loopback_is_outside: bool,
}

/// Where the bytes of a datagram are.
#[derive(Clone, Copy)]
enum Payload<'a> {
    Event(&'a [u8]),
    /// So many in [`Datagrams::outgoing`].
    Outgoing(usize),
}

/// An address without the second way of writing version 4.
#[must_use]
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn fits(bound: IpAddr, other: IpAddr) -> bool {
    bound == other || bound.is_unspecified()
}

impl Socket {
    /// Takes datagrams, not connections.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        self.state == State::Datagram
    }

    /// The address that it takes datagrams of version 4 at.
    fn version_4(&self) -> Option<Ipv4Addr> {
        match self.local?.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(ip) if ip.is_unspecified() && !self.v6_only => Some(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => None,
        }
    }

    /// The address that it takes datagrams of version 6 at.
    fn version_6(&self) -> Option<Ipv6Addr> {
        match self.local?.ip() {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(ip),
        }
    }

    /// The address at which it takes datagrams of that version.
    fn of_version(&self, of: IpAddr) -> Option<IpAddr> {
        match of {
            IpAddr::V4(_) => self.version_4().map(IpAddr::V4),
            IpAddr::V6(_) => self.version_6().map(IpAddr::V6),
        }
    }

    /// True when some address is both sockets'.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (four, six) = (self.version_4(), self.version_6());
        let same = |one: Option<IpAddr>, two: Option<IpAddr>| {
            let (Some(one), Some(two)) = (one, two) else {
                return false;
            };
            fits(one, two) || fits(two, one)
        };
        same(four.map(Into::into), other.version_4().map(Into::into))
            || same(six.map(Into::into), other.version_6().map(Into::into))
    }

    fn tolerates(&self, other: &Self) -> bool {
        (self.reuse_port && other.reuse_port) || (self.reuse_address && other.reuse_address)
    }

    /// How well a datagram fits: `None` is not at all. From outside it comes to whatever address a
    /// frontend has, so that only the port and the version decide.
    fn fitness(&self, peer: SocketAddr, local: SocketAddr, inside: bool) -> Option<u32> {
        let own = self.of_version(local.ip())?;
        if self.local?.port() != local.port() {
            return None;
        }
        let for_peer = match self.peer {
            Some(only) if only != peer => return None,
            Some(_) => 8,
            None => 0,
        };
        let for_address = match () {
            () if own == local.ip() => 4,
            () if own.is_unspecified() && (!inside || local.ip().is_loopback()) => 2,
            () if inside => return None,
            () => 0,
        };
        let for_version = u32::from(self.v6 == local.is_ipv6());
        Some(for_peer + for_address + for_version)
    }

    pub(crate) fn datagram_readiness(&self) -> u32 {
        let mut mask = ready::OUT;
        if self.input.len > 0 || self.input_shut {
            mask |= ready::IN;
        }
        if self.input_shut {
            mask |= ready::RDHUP;
        }
        if self.input_shut && self.output_ended {
            mask |= ready::HUP;
        }
        if self.error != 0 {
            mask |= ready::ERR;
        }
        mask
    }
}

impl Datagrams {
    fn bucket(&mut self, port: u16) -> &mut SocketIx {
        &mut self.bound[usize::from(port) % BUCKETS]
    }
}

impl Net {
    /// A fresh datagram socket. `None`: there are too many.
    pub fn make_datagram_socket(&mut self, v6: bool) -> Option<SocketIx> {
        let ix = self.make_socket(v6)?;
        self.socket_mut(ix).state = State::Datagram;
        Some(ix)
    }

    // ---- ports ----

    fn first_bound(&self, port: u16) -> SocketIx {
        self.datagrams.bound[usize::from(port) % BUCKETS]
    }

    /// The sockets that may be bound to a port, the latest first.
    fn bound_to(&self, port: u16) -> impl Iterator<Item = SocketIx> + '_ {
        let some = |ix: SocketIx| (ix != 0).then_some(ix);
        let next = move |ix: &SocketIx| some(self.socket(*ix).datagram.next);
        core::iter::successors(some(self.first_bound(port)), next)
    }

    /// Gives a socket its address; port 0 stands for any that is free. A named port will be open outside.
    ///
    /// # Errors
    /// [`DatagramError::InUse`], [`DatagramError::NoPort`].
    pub fn bind_datagram(
        &mut self,
        ix: SocketIx,
        address: SocketAddr,
    ) -> Result<(), DatagramError> {
        let address = plain(address);
        let named = address.port() != 0;
        let address = match named {
            true => address,
            false => SocketAddr::new(address.ip(), self.free_port()?),
        };
        let mut wish = *self.socket(ix);
        wish.local = Some(address);
        let taken = self.bound_to(address.port()).any(|other| {
            let other = self.socket(other);
            let same_port = other.local.map(|local| local.port()) == Some(address.port());
            same_port && wish.overlaps(other) && !wish.tolerates(other)
        });
        if taken {
            return Err(DatagramError::InUse);
        }
        let next = self.first_bound(address.port());
        *self.datagrams.bucket(address.port()) = ix;
        let socket = self.socket_mut(ix);
        socket.local = Some(address);
        socket.datagram.next = next;
        socket.datagram.named = named;
        self.want_published(ix);
        Ok(())
    }

    fn free_port(&mut self) -> Result<u16, DatagramError> {
        for _ in FIRST_FREE_PORT..=u16::MAX {
            let given = &mut self.datagrams.port_given;
            *given = match *given {
                0 | u16::MAX => FIRST_FREE_PORT,
                port => port + 1,
            };
            let port = *given;
            let has_it = |ix| self.socket(ix).local.map(|local| local.port()) == Some(port);
            if !self.bound_to(port).any(has_it) {
                return Ok(port);
            }
        }
        Err(DatagramError::NoPort)
    }

    /// The port should be open outside if it is named and the socket has no peer.
    fn want_published(&mut self, ix: SocketIx) {
        let socket = self.socket_mut(ix);
        let options = &mut socket.datagram;
        if options.named && socket.peer.is_none() && socket.listener == 0 && !options.unpublished {
            options.unpublished = true;
            self.datagrams.unpublished += 1;
        }
    }

    /// The server has had its time: opens ports outside that are still wanted.
    pub fn publish_ports(&mut self, world: &mut impl World) {
        let mut ix = 0;
        while self.datagrams.unpublished > 0 {
            ix += 1;
            let socket = self.socket_mut(ix);
            if !core::mem::take(&mut socket.datagram.unpublished) {
                continue;
            }
            self.datagrams.unpublished -= 1;
            self.listeners_made += 1;
            let listener = self.listeners_made;
            let socket = self.socket_mut(ix);
            socket.listener = listener;
            let Some(address) = socket.local else {
                unreachable!("only bound sockets are published")
            };
            let chosen = self.ports.is_given(address.port());
            world.emit(&Record::Listen {
                listener,
                address,
                chosen,
                transport: Transport::Datagram,
            });
        }
    }

    fn withdraw(&mut self, ix: SocketIx, world: &mut impl World) {
        let socket = self.socket_mut(ix);
        if core::mem::take(&mut socket.datagram.unpublished) {
            self.datagrams.unpublished -= 1;
            return;
        }
        let listener = core::mem::take(&mut socket.listener);
        if listener != 0 {
            world.emit(&Record::Unlisten { listener });
        }
    }

    /// A socket that sends before it was bound gets a free port at any address.
    fn bind_if_fresh(&mut self, ix: SocketIx) -> Result<(), DatagramError> {
        let socket = self.socket(ix);
        if socket.local.is_some() {
            return Ok(());
        }
        let any = match socket.v6 {
            true => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        self.bind_datagram(ix, SocketAddr::new(any, 0))
    }

    /// Gives a socket its only peer, or takes it away.
    ///
    /// # Errors
    /// [`DatagramError::Unreachable`], [`DatagramError::NoPort`].
    pub fn connect_datagram(
        &mut self,
        ix: SocketIx,
        peer: Option<SocketAddr>,
        world: &mut impl World,
    ) -> Result<(), DatagramError> {
        let Some(peer) = peer else {
            self.socket_mut(ix).peer = None;
            self.want_published(ix);
            return Ok(());
        };
        let peer = self.destination(ix, peer)?;
        self.bind_if_fresh(ix)?;
        self.socket_mut(ix).peer = Some(peer);
        self.withdraw(ix, world);
        Ok(())
    }

    /// What `getsockname` gives: a socket with a peer has an address, not just any.
    #[must_use]
    pub fn datagram_name(&self, ix: SocketIx) -> Option<SocketAddr> {
        let socket = self.socket(ix);
        let local = socket.local?;
        Some(match socket.peer {
            Some(peer) if local.ip().is_unspecified() => {
                SocketAddr::new(own_address(peer.ip()), local.port())
            }
            _ => local,
        })
    }

    // ---- receiving ----

    /// A datagram of an admitted entry.
    pub(crate) fn apply_datagram(
        &mut self,
        frontend: u64,
        peer: SocketAddr,
        local: SocketAddr,
        bytes: &[u8],
        world: &mut impl World,
    ) {
        let (peer, local) = (plain(peer), plain(local));
        let Some(to) = self.receiver(peer, local, false) else {
            return self.lose(world);
        };
        // An answer to a socket that has asked: the next question goes by whoever leads then.
        if self.socket(to).listener != 0 {
            self.datagrams.routes.learn(peer, local, frontend);
        }
        self.deliver(to, peer, local, Payload::Event(bytes), world);
    }

    fn lose(&mut self, world: &mut impl World) {
        self.datagrams.lost += 1;
        let total = self.datagrams.lost;
        world.emit(&Record::Lost { total });
    }

    /// The socket that gets a datagram: the one that fits best, and among those that share the
    /// address with `SO_REUSEPORT` always the same one for a peer.
    fn receiver(&self, peer: SocketAddr, local: SocketAddr, inside: bool) -> Option<SocketIx> {
        let mut best: Option<(u32, SocketIx)> = None;
        for ix in self.bound_to(local.port()) {
            let fitness = self.socket(ix).fitness(peer, local, inside);
            if fitness.is_some() && fitness > best.map(|(fitness, _)| fitness) {
                best = fitness.map(|fitness| (fitness, ix));
            }
        }
        let (fitness, first) = best?;
        let sharing = |ix: &SocketIx| {
            let (socket, first) = (self.socket(*ix), self.socket(first));
            socket.reuse_port
                && socket.local == first.local
                && socket.fitness(peer, local, inside) == Some(fitness)
        };
        let count = self.bound_to(local.port()).filter(sharing).count() as u64;
        if count < 2 || !self.socket(first).reuse_port {
            return Some(first);
        }
        let chosen = (mixed(peer) % count) as usize;
        self.bound_to(local.port()).filter(sharing).nth(chosen)
    }

    fn deliver(
        &mut self,
        to: SocketIx,
        peer: SocketAddr,
        local: SocketAddr,
        payload: Payload<'_>,
        world: &mut impl World,
    ) {
        let socket = &mut self.sockets[to as usize - 1];
        let bytes = match payload {
            Payload::Event(bytes) => bytes,
            Payload::Outgoing(len) => &self.datagrams.outgoing[..len],
        };
        let whole = (HEAD_BYTES + bytes.len()) as u64;
        let full = socket.input.len + whole > QUEUE_BYTES_MAX
            || self.datagrams.waiting_bytes + whole > WAITING_BYTES_MAX;
        if full || socket.input_shut {
            return self.lose(world);
        }
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        head[8..8 + ADDRESS_BYTES].copy_from_slice(&address_bytes(peer));
        head[8 + ADDRESS_BYTES..].copy_from_slice(&address_bytes(local));
        self.chunks.append(&mut socket.input, &head);
        self.chunks.append(&mut socket.input, bytes);
        self.datagrams.waiting_bytes += whole;
        self.notify(to, ready::IN, world);
    }

    /// The datagram that would be received next.
    #[must_use]
    pub fn next_datagram(&mut self, ix: SocketIx) -> Option<Envelope> {
        let socket = &mut self.sockets[ix as usize - 1];
        if socket.input.len == 0 {
            return None;
        }
        let (mut head, mut at) = ([0; HEAD_BYTES], 0);
        self.chunks
            .read(&mut socket.input, HEAD_BYTES, true, |piece| {
                head[at..at + piece.len()].copy_from_slice(piece);
                at += piece.len();
            });
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let address = |at| match read_address(&head, at) {
            Ok(address) => address,
            Err(_) => unreachable!("a queue holds what `deliver` has put there"),
        };
        Some(Envelope {
            len,
            peer: address(8),
            local: address(8 + ADDRESS_BYTES),
        })
    }

    /// Shows up to `max` bytes of the next datagram to `put` and takes it away unless `peek`.
    pub fn receive_datagram(
        &mut self,
        ix: SocketIx,
        max: usize,
        peek: bool,
        mut put: impl FnMut(&[u8]),
    ) -> Received {
        if self.socket_mut(ix).take_error().is_some() {
            return Received::Refused;
        }
        let Some(envelope) = self.next_datagram(ix) else {
            return match self.socket(ix).input_shut {
                true => Received::End,
                false => Received::WouldBlock,
            };
        };
        let shown = envelope.len.min(max);
        let queue = &mut self.sockets[ix as usize - 1].input;
        if peek {
            let mut head_left = HEAD_BYTES;
            self.chunks.read(queue, HEAD_BYTES + shown, true, |piece| {
                let skip = head_left.min(piece.len());
                head_left -= skip;
                put(&piece[skip..]);
            });
            return Received::Datagram(envelope);
        }
        self.chunks.read(queue, HEAD_BYTES, false, |_| ());
        self.chunks.read(queue, shown, false, put);
        self.chunks.read(queue, envelope.len - shown, false, |_| ());
        self.datagrams.waiting_bytes -= (HEAD_BYTES + envelope.len) as u64;
        Received::Datagram(envelope)
    }

    // ---- sending ----

    /// Whether a socket may send there, and where exactly that is.
    fn destination(&self, ix: SocketIx, to: SocketAddr) -> Result<SocketAddr, DatagramError> {
        let to = plain(to);
        // The kernel takes "any address" for "this machine".
        let ip = match to.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let socket = self.socket(ix);
        let fits = match (socket.local, ip) {
            (Some(_), _) => socket.of_version(ip).is_some(),
            (None, IpAddr::V4(_)) => !socket.v6 || !socket.v6_only,
            (None, IpAddr::V6(_)) => socket.v6,
        };
        match fits {
            true => Ok(SocketAddr::new(ip, to.port())),
            false => Err(DatagramError::Unreachable),
        }
    }

    /// Sends a datagram of `len` bytes, which `fill` writes.
    ///
    /// # Errors
    /// See [`DatagramError`].
    pub fn send_datagram(
        &mut self,
        ix: SocketIx,
        way: &Way,
        len: usize,
        world: &mut impl World,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), DatagramError> {
        let socket = self.socket_mut(ix);
        if socket.take_error().is_some() {
            return Err(DatagramError::Refused);
        }
        if socket.output_ended {
            return Err(DatagramError::Shut);
        }
        let to = way.to.or(socket.peer);
        let to = to.ok_or(DatagramError::NoDestination)?;
        let to = self.destination(ix, to)?;
        let most = match to {
            SocketAddr::V4(_) => DATAGRAM_BYTES_MAX - 20,
            SocketAddr::V6(_) => DATAGRAM_BYTES_MAX,
        };
        if len > most {
            return Err(DatagramError::TooLong);
        }
        self.bind_if_fresh(ix)?;
        fill(&mut self.datagrams.outgoing[..len]);
        self.route(ix, to, way, len, world);
        Ok(())
    }

    /// Outside if the peer was last heard from there, otherwise to a socket of the tree, otherwise by
    /// the leader's node.
    fn route(
        &mut self,
        ix: SocketIx,
        to: SocketAddr,
        way: &Way,
        len: usize,
        world: &mut impl World,
    ) {
        let socket = self.socket(ix);
        let connected = socket.peer == Some(to);
        let Some(bound) = socket.local else {
            unreachable!("a socket is bound before it sends")
        };
        let source = way.source.map(|ip| ip.to_canonical());
        if let Some((local, frontend)) = self.datagrams.routes.find(to, bound.port(), source) {
            return self.emit_datagram(frontend, local, to, len, world);
        }
        let from = match source {
            Some(ip) => ip,
            None if bound.ip().is_unspecified() => own_address(to.ip()),
            None => bound.ip(),
        };
        let from = SocketAddr::new(from, bound.port());
        match self.receiver(from, to, true) {
            Some(receiver) => {
                self.datagrams.routes.forget(from, to.port());
                self.deliver(receiver, from, to, Payload::Outgoing(len), world);
            }
            None if to.ip().is_loopback() && !way.loopback_is_outside => {
                // As if the kernel had answered that nobody has the port.
                if connected {
                    self.socket_mut(ix).error = errno::REFUSED;
                    self.notify(ix, ready::IN | ready::ERR, world);
                }
            }
            None => self.emit_datagram(0, from, to, len, world),
        }
    }

    fn emit_datagram(
        &mut self,
        frontend: u64,
        local: SocketAddr,
        peer: SocketAddr,
        len: usize,
        world: &mut impl World,
    ) {
        let (frontend, number) = match self.frontends.next_answer(frontend) {
            Some(number) => (frontend, number),
            None => {
                self.datagrams.unasked += 1;
                (0, self.datagrams.unasked)
            }
        };
        world.emit(&Record::Datagram {
            frontend,
            number,
            local,
            peer,
            bytes: &self.datagrams.outgoing[..len],
        });
    }

    // ---- ending ----

    /// `shutdown`. False: it has no peer; readers are woken all the same, as by the kernel.
    pub(crate) fn shutdown_datagram(
        &mut self,
        ix: SocketIx,
        reading: bool,
        writing: bool,
        world: &mut impl World,
    ) -> bool {
        let socket = self.socket_mut(ix);
        socket.input_shut |= reading;
        socket.output_ended |= writing;
        let connected = socket.peer.is_some();
        self.notify(ix, ready::IN | ready::RDHUP | ready::HUP, world);
        connected
    }

    /// The last descriptor is gone.
    pub(crate) fn close_datagram(&mut self, ix: SocketIx, world: &mut impl World) {
        self.withdraw(ix, world);
        let socket = &mut self.sockets[ix as usize - 1];
        self.datagrams.waiting_bytes -= socket.input.len;
        self.chunks.clear(&mut socket.input);
        let next = socket.datagram.next;
        let Some(local) = socket.local else { return };
        if self.first_bound(local.port()) == ix {
            *self.datagrams.bucket(local.port()) = next;
            return;
        }
        let before = |at: &SocketIx| self.socket(*at).datagram.next == ix;
        let before = self.bound_to(local.port()).find(before);
        if let Some(before) = before {
            self.socket_mut(before).datagram.next = next;
        }
    }
}

/// The address from which the kernel would send there, as far as all replicas have the same one.
fn own_address(to: IpAddr) -> IpAddr {
    match to {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}
