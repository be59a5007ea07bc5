//! Datagrams that a server sends of its own accord, to peers that no frontend has heard: the
//! sockets from which the leader's node sends them, and to which the answers come.
//!
//! One socket for each address of the server's, so that to the outside they look as if the server
//! had sent them by itself. A few, and those that were not used for longest go first.

use brolga_os::sys;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

/// Sockets at a time.
const SOCKETS_MAX: usize = 512;

/// The socket that stands for one address of the server's.
#[derive(Debug)]
pub(super) struct OutboundSocket {
    /// The address that the server takes for its own.
    pub local: SocketAddr,
    /// The socket itself.
    pub socket: UdpSocket,
    /// There may be something to read (the poll is edge-triggered).
    pub readable: bool,
    v6: bool,
    /// The value of [`OutboundSockets::uses`] when it was used last.
    used: u64,
}

/// The sockets of unsolicited datagrams.
#[derive(Debug)]
pub(super) struct OutboundSockets {
    registry: Registry,
    first_token: usize,
    sockets: Vec<OutboundSocket>,
    /// Counts how often one was used.
    uses: u64,
}

impl OutboundSockets {
    /// No sockets yet; poll tokens from `first_token` up.
    pub(super) fn new(registry: Registry, first_token: usize) -> Self {
        Self {
            registry,
            first_token,
            sockets: Vec::new(),
            uses: 0,
        }
    }

    /// Returns true when the poll token is one of these sockets'.
    pub(super) fn owns(&self, token: Token) -> bool {
        (self.first_token..self.first_token + SOCKETS_MAX).contains(&token.0)
    }

    /// The poll says that there is something to read.
    pub(super) fn ready(&mut self, token: Token) {
        let index = token.0.wrapping_sub(self.first_token);
        if let Some(socket) = self.sockets.get_mut(index) {
            socket.readable = true;
        }
    }

    /// All sockets, for reading.
    pub(super) fn all(&mut self) -> &mut [OutboundSocket] {
        &mut self.sockets
    }

    /// Sends a datagram from `local` to `peer`.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(super) fn send(
        &mut self,
        local: SocketAddr,
        peer: SocketAddr,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.uses += 1;
        let uses = self.uses;
        let index = self.find_or_open(local, peer.is_ipv6())?;
        let socket = &mut self.sockets[index];
        socket.used = uses;
        sys::send_datagram(socket.socket.as_fd(), bytes, None, peer)
    }

    fn find_or_open(&mut self, local: SocketAddr, v6: bool) -> io::Result<usize> {
        let same = |socket: &OutboundSocket| socket.local == local && socket.v6 == v6;
        if let Some(index) = self.sockets.iter().position(same) {
            return Ok(index);
        }
        let any: IpAddr = match v6 {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        };
        let mut socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        let index = match self.sockets.len() {
            SOCKETS_MAX => {
                let all = self.sockets.iter().enumerate();
                let oldest = all.min_by_key(|(_, socket)| socket.used);
                oldest.map_or(0, |(index, _)| index)
            }
            free => free,
        };
        let token = Token(self.first_token + index);
        self.registry
            .register(&mut socket, token, Interest::READABLE)?;
        let socket = OutboundSocket {
            local,
            socket,
            readable: false,
            v6,
            used: 0,
        };
        match self.sockets.get_mut(index) {
            // The old socket is closed, which takes it off the poll.
            Some(old) => *old = socket,
            None => self.sockets.push(socket),
        }
        Ok(index)
    }

    /// The server is gone for good.
    pub(super) fn close_all(&mut self) {
        self.sockets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn outbound() -> (mio::Poll, OutboundSockets) {
        let poll = mio::Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        (poll, OutboundSockets::new(registry, 100))
    }

    #[test]
    fn each_address_of_the_server_has_a_socket_of_its_own() {
        let (_poll, mut outbound) = outbound();
        let far = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let peer = far.local_addr().unwrap();
        let mut senders = BTreeSet::new();
        let mut buffer = [0; 10];
        for round in 0..2 {
            for port in 0..SOCKETS_MAX as u16 {
                let local = SocketAddr::from(([127, 0, 0, 1], 61_000 + port));
                outbound.send(local, peer, b"hello").unwrap();
                let (len, from) = far.recv_from(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], b"hello");
                assert_eq!(senders.insert(from), round == 0);
            }
        }
        let first = "127.0.0.1:61000".parse().unwrap();
        outbound.send(first, peer, b"again").unwrap();
        far.recv_from(&mut buffer).unwrap();
        // One too many: the second one goes, which was not used for longest.
        let late = "127.0.0.1:1".parse().unwrap();
        outbound.send(late, peer, b"hello").unwrap();
        let (_, from) = far.recv_from(&mut buffer).unwrap();
        assert!(senders.insert(from));
        assert_eq!(outbound.all().len(), SOCKETS_MAX);
        assert_eq!(outbound.all()[1].local, late);
    }
}
