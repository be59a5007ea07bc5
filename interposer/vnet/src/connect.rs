//! Connections that the server opens.
//!
//! To an address on which the tree itself listens: two sockets are linked and nobody outside hears
//! of it. Each machine has loopback addresses of its own, so that what nobody in the tree listens
//! on is refused there, whatever else runs on the machine (unless the cluster was told otherwise).
//!
//! To anywhere else: the nodes are told, one of them makes the real connection, and the log says
//! what came of it. From then on it is a connection like any client's.

use crate::{Link, Net, SocketIx, State, World};
use brolga_tape::record::Record;
use brolga_tape::{ConnId, OUTGOING};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Result of connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectOutcome {
    /// The connection is there.
    Connected,
    /// Nobody listens there.
    Refused,
    /// The log will say; [`crate::State`] tells when it has.
    UnderWay,
    /// An earlier attempt is still under way.
    Already,
    /// There is no free port, or there are too many sockets.
    Exhausted,
    /// The socket is connected or listens.
    NotFresh,
}

/// Returns where a connection to `to` really goes: version 4 is version 4 however it is written,
/// and the unspecified address is this machine.
fn destination(to: SocketAddr) -> SocketAddr {
    let ip = match to.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, to.port())
}

/// Addresses of the machine that the server believes to be on: loopback, and the one of its other
/// interface, as the interposer shows it.
fn is_own(ip: IpAddr) -> bool {
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    ip.is_loopback() || ip == OTHER
}

/// The address that a connection within the tree comes from if its socket names none.
fn source(to: IpAddr) -> IpAddr {
    match to {
        IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    }
}

impl Net {
    /// Connects a fresh socket. `loopback_is_outside`: where nobody in the tree listens, a loopback
    /// address is that of the machine on which the connection is made.
    pub fn connect(
        &mut self,
        ix: SocketIx,
        to: SocketAddr,
        loopback_is_outside: bool,
        world: &mut impl World,
    ) -> ConnectOutcome {
        match self.socket(ix).state {
            State::Fresh | State::Failed => {}
            State::Connecting => return ConnectOutcome::Already,
            _ => return ConnectOutcome::NotFresh,
        }
        let to = destination(to);
        match self.listener_at(to) {
            Some(on) => self.link(ix, on, to, world),
            None if is_own(to.ip()) && !loopback_is_outside => ConnectOutcome::Refused,
            None => {
                self.open_outgoing(ix, to, world);
                ConnectOutcome::UnderWay
            }
        }
    }

    fn open_outgoing(&mut self, ix: SocketIx, to: SocketAddr, world: &mut impl World) {
        self.outgoing_made += 1;
        let conn = ConnId {
            frontend: OUTGOING,
            counter: self.outgoing_made,
        };
        let socket = self.socket_mut(ix);
        socket.state = State::Connecting;
        socket.error = 0;
        socket.conn = conn;
        socket.peer = Some(to);
        self.index_connection(ix);
        world.emit(&Record::Connect { conn, address: to });
    }

    /// `connect` has told that it is under way.
    pub fn defer_connect(&mut self, ix: SocketIx) {
        self.socket_mut(ix).connect_unreported = true;
    }

    /// True once after [`Net::defer_connect`]: asked again, `connect` says that all is well.
    pub fn report_connect(&mut self, ix: SocketIx) -> bool {
        core::mem::take(&mut self.socket_mut(ix).connect_unreported)
    }

    /// The listener for a connection from within the tree: the one of just this address, or for
    /// addresses of this machine one of all addresses.
    fn listener_at(&self, to: SocketAddr) -> Option<SocketIx> {
        let fitness = |ix: &SocketIx| {
            let local = self.socket(*ix).local?;
            let ip = local.ip().to_canonical();
            match () {
                () if local.port() != to.port() => None,
                () if ip == to.ip() => Some(3),
                () if !is_own(to.ip()) || !ip.is_unspecified() => None,
                () if ip.is_ipv4() == to.is_ipv4() => Some(2),
                () => (ip.is_ipv6() && !self.socket(*ix).v6_only).then_some(1),
            }
        };
        let fitting = self.listeners().filter_map(|ix| Some((fitness(&ix)?, ix)));
        let best = fitting.reduce(|best, other| if other.0 > best.0 { other } else { best });
        best.map(|(_, ix)| ix)
    }

    fn link(
        &mut self,
        ix: SocketIx,
        on: SocketIx,
        to: SocketAddr,
        world: &mut impl World,
    ) -> ConnectOutcome {
        let Some(from) = self.take_local(ix, to) else {
            return ConnectOutcome::Exhausted;
        };
        let on = self.share_out(on, from);
        let v6 = self.socket(on).v6;
        let Some(mate) = self.make_socket(v6) else {
            return ConnectOutcome::Exhausted;
        };
        let one = self.socket_mut(ix);
        one.state = State::Connected;
        one.link = Link::Mate(mate);
        one.local = Some(from);
        one.peer = Some(to);
        let other = self.socket_mut(mate);
        other.state = State::Connected;
        other.link = Link::Mate(ix);
        other.local = Some(to);
        other.peer = Some(from);
        self.queue_connection(on, mate, world);
        ConnectOutcome::Connected
    }

    /// The own address of a socket that connects: what it was bound to, the rest filled in.
    fn take_local(&mut self, ix: SocketIx, to: SocketAddr) -> Option<SocketAddr> {
        let bound = self.socket(ix).local;
        let ip = bound.map(|local| local.ip().to_canonical());
        let ip = ip.filter(|ip| !ip.is_unspecified());
        let ip = ip.unwrap_or_else(|| source(to.ip()));
        let port = match bound.map_or(0, |local| local.port()) {
            0 => self.take_port(ix)?,
            port => port,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// Gives a socket a port that no listener has; it is free again when the socket is.
    pub(crate) fn take_port(&mut self, ix: SocketIx) -> Option<u16> {
        let Self { ports, sockets, .. } = self;
        let first = self.first_listener;
        let listens = |port: u16| {
            let mut at = first;
            while at != 0 {
                let socket = &sockets[at as usize - 1];
                if socket.local.is_some_and(|local| local.port() == port) {
                    return true;
                }
                at = socket.next_listener;
            }
            false
        };
        let port = ports.take(|port| !listens(port))?;
        self.socket_mut(ix).held_port = port;
        Some(port)
    }
}
