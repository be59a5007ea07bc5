//! Sending: the way of a datagram, inside or outside.

use super::DatagramError;
use super::address::{own_address, plain};
use super::receive::Payload;
use crate::{Net, SocketIx, World, errno, ready};
use brolga_tape::DATAGRAM_BYTES_MAX;
use brolga_tape::record::Record;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Destination and source of a datagram.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// The receiver, if not the socket's peer.
    pub to: Option<SocketAddr>,
    /// The address that it is to come from, if that is one of ours.
    pub source: Option<IpAddr>,
    /// A loopback address means the machine that sends, where no socket of the tree has the port.
    pub loopback_is_outside: bool,
}

impl Net {
    /// Checks that a socket may send to an address, and returns the exact destination.
    pub(super) fn destination(
        &self,
        ix: SocketIx,
        to: SocketAddr,
    ) -> Result<SocketAddr, DatagramError> {
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

    /// Outside if the peer was last heard from there, otherwise to a socket of the tree, otherwise
    /// by the leader's node.
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
}
