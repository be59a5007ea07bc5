//! Datagram sockets: ports, receive queues with message boundaries, peers.
//!
//! What comes from outside is an event of the log; what is sent to a port of the tree itself is
//! delivered here. A datagram for anybody else goes to the frontend through which that peer was
//! last heard; if there is none, the leader's node sends it. As with connections, the address that
//! a socket is bound to says who inside may send to it, not where the node opens the port.
//!
//! A port that the server names is opened outside once the server has nothing else to do, so that
//! one which it gives to a socket that it connects at once, to ask others, stays closed.

mod address;
mod bind;
mod receive;
mod routes;
mod send;

pub use address::plain;
pub use receive::{Envelope, Received};
pub use send::Way;

use crate::{Net, Socket, SocketIx, State, World, ready};
use brolga_tape::DATAGRAM_BYTES_MAX;
use routes::Routes;

const BUCKETS: usize = 1024;

/// The reasons why a datagram is not sent, or an address not bound.
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

/// State that only datagram sockets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DatagramOptions {
    /// `IP_PKTINFO`: receiving tells the local address.
    pub tells_local: bool,
    /// `IPV6_RECVPKTINFO`.
    pub tells_local_v6: bool,
    /// The server named the port, so it is open outside unless the socket has a peer.
    named: bool,
    /// The port is to be opened outside.
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

/// State that all datagram sockets share.
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
    /// The datagram that is being sent, in one piece.
    outgoing: [u8; DATAGRAM_BYTES_MAX],
}

impl Socket {
    /// True for a socket that takes datagrams, not connections.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        self.state == State::Datagram
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

impl Net {
    /// A fresh datagram socket. `None`: there are too many.
    pub fn make_datagram_socket(&mut self, v6: bool) -> Option<SocketIx> {
        let ix = self.make_socket(v6)?;
        self.socket_mut(ix).state = State::Datagram;
        Some(ix)
    }

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

    /// Closes a socket whose last descriptor is gone.
    pub(crate) fn close_datagram(&mut self, ix: SocketIx, world: &mut impl World) {
        self.withdraw(ix, world);
        let socket = &mut self.sockets[ix as usize - 1];
        self.datagrams.waiting_bytes -= socket.input.len;
        self.chunks.clear(&mut socket.input);
        self.unbind_datagram(ix);
    }
}
