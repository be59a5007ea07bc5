//! Ports of datagram sockets: bound, opened outside, withdrawn, given back.

use super::address::{own_address, plain};
use super::{BUCKETS, DatagramError, Datagrams};
use crate::{Net, SocketIx, World};
use brolga_tape::record::{Record, Transport};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Ports for sockets that do not name one: above those that Linux gives to clients by default, so
/// that no client on this machine has the address of a socket inside.
const FIRST_FREE_PORT: u16 = 61_000;

impl Datagrams {
    fn bucket(&mut self, port: u16) -> &mut SocketIx {
        &mut self.bound[usize::from(port) % BUCKETS]
    }
}

impl Net {
    fn first_bound(&self, port: u16) -> SocketIx {
        self.datagrams.bound[usize::from(port) % BUCKETS]
    }

    /// The sockets that may be bound to a port, the latest first.
    pub(super) fn bound_to(&self, port: u16) -> impl Iterator<Item = SocketIx> + '_ {
        let some = |ix: SocketIx| (ix != 0).then_some(ix);
        let next = move |ix: &SocketIx| some(self.socket(*ix).datagram.next);
        core::iter::successors(some(self.first_bound(port)), next)
    }

    /// Gives a socket its address; port 0 stands for any that is free. A named port will be open
    /// outside.
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

    /// Marks the port to be opened outside, if it is named and the socket has no peer.
    fn want_published(&mut self, ix: SocketIx) {
        let socket = self.socket_mut(ix);
        let options = &mut socket.datagram;
        if options.named && socket.peer.is_none() && socket.listener == 0 && !options.unpublished {
            options.unpublished = true;
            self.datagrams.unpublished += 1;
        }
    }

    /// Opens the marked ports outside, once the server has nothing else to do.
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

    pub(super) fn withdraw(&mut self, ix: SocketIx, world: &mut impl World) {
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

    /// Binds a socket that sends before it was bound to a free port at any address.
    pub(super) fn bind_if_fresh(&mut self, ix: SocketIx) -> Result<(), DatagramError> {
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

    /// The address that `getsockname` returns: a socket with a peer has a specific one.
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

    /// Gives the port of a socket back.
    pub(super) fn unbind_datagram(&mut self, ix: SocketIx) {
        let socket = self.socket(ix);
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
