//! The ports that the server listens on, opened at this frontend's address.
//!
//! A server often listens twice on one port, for IPv4 and for IPv6: the port is opened once, and a
//! client belongs to the listener of its own family where there is one. A frontend that is still
//! replaying keeps quiet about ports until it serves, so that nobody connects to a replay.

use crate::clients::unix_sockets::{self, UnixSockets};
use brolga_tape::record::Transport;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::path::{Path, PathBuf};

/// A port of the server that is, or is to be, open for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// The server's listener.
    pub listener: u32,
    /// The port, and the unspecified address of the listener's family.
    pub address: SocketAddr,
    /// The transport that it takes.
    pub transport: Transport,
    /// The server did not ask for this port: failing to open it here is not fatal.
    pub chosen: bool,
}

/// A port can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another program has it.
    #[error(
        "port {port} at {address} is already in use: stop what listens there, or give this node \
         another publish address"
    )]
    InUse {
        /// The port.
        port: u16,
        /// The address.
        address: IpAddr,
    },
    /// A UNIX socket.
    #[error("cannot publish {path}: {source}")]
    Unix {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot open port {port} at {address}: {source}")]
    Other {
        /// The port.
        port: u16,
        /// The address.
        address: IpAddr,
        /// The reason.
        source: io::Error,
    },
}

impl PublishError {
    /// Why `at` can't be opened.
    pub(crate) fn from_io(at: SocketAddr, source: io::Error) -> Self {
        let (port, address) = (at.port(), at.ip());
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { port, address },
            _ => Self::Other {
                port,
                address,
                source,
            },
        }
    }
}

/// A listening socket that is free for others as soon as it is dropped. To close it alone is not
/// enough: a child that is being started has a copy of it until its `exec`.
#[derive(Debug)]
struct Listening(TcpListener);

impl Drop for Listening {
    fn drop(&mut self) {
        // Where it fails, the port is free a moment later.
        let _ = socket2::SockRef::from(&self.0).shutdown(Shutdown::Both);
    }
}

/// A socket that clients connect to.
#[derive(Debug)]
enum ListeningSocket {
    Port(Listening),
    Unix(unix_sockets::Published),
}

impl ListeningSocket {
    /// The next client, and its address if it has one.
    fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        match self {
            Self::Port(listening) => {
                let (stream, peer) = listening.0.accept()?;
                Ok((stream, Some(peer)))
            }
            Self::Unix(published) => Ok((published.accept()?, None)),
        }
    }
}

/// A port that the server listens on.
#[derive(Debug, Default)]
struct Port {
    socket: Option<ListeningSocket>,
    /// The UNIX socket that the port stands for, and which is published.
    unix: Option<(PathBuf, SocketAddr)>,
    /// The server's listeners there, with "is IPv6".
    listeners: Vec<(u32, bool)>,
    /// The server did not ask for this one.
    chosen: bool,
}

/// A client that has connected.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The socket.
    pub stream: TcpStream,
    /// The server's listener that it belongs to.
    pub listener: u32,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
}

/// The ports at which clients can connect.
#[derive(Debug)]
pub(crate) struct Listeners {
    address: IpAddr,
    registry: Registry,
    first_token: usize,
    ports: BTreeMap<u16, Port>,
    unix: Option<UnixSockets>,
    serving: bool,
}

impl Listeners {
    /// Opens ports at `address`, with poll tokens from `first_token` up, one for each port number.
    pub(crate) fn new(address: IpAddr, registry: Registry, first_token: usize) -> Self {
        Self {
            address,
            registry,
            first_token,
            ports: BTreeMap::new(),
            unix: None,
            serving: false,
        }
    }

    /// UNIX sockets of the server are published as well.
    pub(crate) fn publish_unix(&mut self, sockets: UnixSockets) {
        self.unix = Some(sockets);
    }

    /// The port that a poll token stands for.
    pub(crate) fn port_of(&self, token: Token) -> Option<u16> {
        let port = token.0.checked_sub(self.first_token)?;
        u16::try_from(port).ok()
    }

    /// Opens the ports, now and whenever the server listens.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub(crate) fn start_serving(&mut self) -> Result<(), PublishError> {
        self.serving = true;
        self.open_all()
    }

    /// The server listens.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub(crate) fn listen(&mut self, published: Published) -> Result<(), PublishError> {
        let Published {
            listener, address, ..
        } = published;
        if self.unix.is_none() && brolga_tape::unix::is_one(address.ip()) {
            // Clients of a stand-alone frontend come over the network.
            return Ok(());
        }
        let port = self.ports.entry(address.port()).or_default();
        port.chosen = published.chosen;
        let file = self.unix.as_ref().and_then(|unix| unix.file(address.ip()));
        port.unix = file.map(|file| (file, address));
        if port.listeners.iter().all(|(known, _)| *known != listener) {
            port.listeners.push((listener, address.is_ipv6()));
        }
        if self.serving {
            self.open_all()
        } else {
            Ok(())
        }
    }

    /// The server no longer listens.
    pub(crate) fn unlisten(&mut self, listener: u32) {
        for port in self.ports.values_mut() {
            port.listeners.retain(|(known, _)| *known != listener);
        }
        self.ports.retain(|_, port| !port.listeners.is_empty());
    }

    /// The server's listeners.
    pub(crate) fn known(&self) -> Vec<Published> {
        let unspecified = |port: u16, six: bool| match six {
            true => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            false => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
        };
        let address = |number: u16, port: &Port, six: bool| match &port.unix {
            Some((_, address)) => *address,
            None => unspecified(number, six),
        };
        let of_port = |(number, port): (&u16, &Port)| {
            let listeners = port.listeners.iter();
            let known = listeners.map(|(listener, six)| Published {
                listener: *listener,
                address: address(*number, port, *six),
                transport: Transport::Stream,
                chosen: port.chosen,
            });
            known.collect::<Vec<_>>()
        };
        self.ports.iter().flat_map(of_port).collect()
    }

    /// Clients may connect.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving
    }

    /// Closes the ports, until [`Listeners::start_serving`].
    pub(crate) fn retire(&mut self) {
        self.serving = false;
        self.ports.clear();
    }

    /// The server is gone for good.
    pub(crate) fn close_all(&mut self) {
        self.ports.clear();
    }

    /// The addresses that clients can connect to.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let open = |(number, port): (&u16, &Port)| {
            matches!(port.socket, Some(ListeningSocket::Port(_))).then_some(())?;
            Some(SocketAddr::new(self.address, *number))
        };
        self.ports.iter().filter_map(open).collect()
    }

    /// Port numbers that may have clients waiting to be accepted.
    pub(crate) fn open_ports(&self) -> Vec<u16> {
        self.ports.keys().copied().collect()
    }

    /// The next client on a port; `None` when there is none now.
    ///
    /// # Errors
    /// The process or the machine has run out of something; try again later.
    pub(crate) fn accept(&mut self, port: u16) -> io::Result<Option<Accepted>> {
        let Some(state) = self.ports.get(&port) else {
            return Ok(None);
        };
        let Some(socket) = &state.socket else {
            return Ok(None);
        };
        loop {
            match socket.accept() {
                Ok((stream, None)) => return Ok(unix_client(state, stream)),
                Ok((stream, Some(peer))) => {
                    let local = stream
                        .local_addr()
                        .unwrap_or(SocketAddr::new(self.address, port));
                    if let Some(accepted) = belongs(&state.listeners, stream, peer, local) {
                        return Ok(Some(accepted));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if is_about_one_client(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn open_all(&mut self) -> Result<(), PublishError> {
        for (number, port) in &mut self.ports {
            if port.socket.is_some() {
                continue;
            }
            let token = Token(self.first_token + usize::from(*number));
            if let Some((file, _)) = &port.unix {
                port.socket = Some(ListeningSocket::Unix(open_unix(
                    file,
                    &self.registry,
                    token,
                )?));
                continue;
            }
            let at = SocketAddr::new(self.address, *number);
            match open(at, &self.registry, token) {
                Ok(socket) => {
                    tracing::info!(address = %at, "clients can connect");
                    port.socket = Some(ListeningSocket::Port(Listening(socket)));
                }
                Err(error) if port.chosen => left_closed(at, &error),
                Err(error) => return Err(PublishError::from_io(at, error)),
            }
        }
        Ok(())
    }
}

/// A port that was chosen for the server is somebody else's here.
pub(crate) fn left_closed(at: SocketAddr, error: &io::Error) {
    tracing::warn!(address = %at, %error, "a port that the server left to us stays closed here");
}

fn open(at: SocketAddr, registry: &Registry, token: Token) -> io::Result<TcpListener> {
    let mut socket = TcpListener::bind(at)?;
    registry.register(&mut socket, token, Interest::READABLE)?;
    Ok(socket)
}

fn open_unix(
    file: &Path,
    registry: &Registry,
    token: Token,
) -> Result<unix_sockets::Published, PublishError> {
    let opened = unix_sockets::Published::open(file.to_owned(), registry, token);
    let opened = opened.map_err(|source| PublishError::Unix {
        path: file.to_owned(),
        source,
    })?;
    tracing::info!(path = %file.display(), "clients can connect");
    Ok(opened)
}

/// A client of a UNIX socket has no address but that of the socket.
fn unix_client(port: &Port, stream: TcpStream) -> Option<Accepted> {
    let (_, address) = port.unix.as_ref()?;
    let (listener, _) = *port.listeners.first()?;
    Some(Accepted {
        stream,
        listener,
        peer: SocketAddr::new(address.ip(), 0),
        local: *address,
    })
}

/// The client itself went away or was refused: the next one may be fine.
fn is_about_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::PermissionDenied
    )
}

/// Finds the listener for a client and gives both addresses the listener's family.
fn belongs(
    listeners: &[(u32, bool)],
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
) -> Option<Accepted> {
    let same_family = listeners.iter().find(|(_, six)| *six == peer.is_ipv6());
    let (listener, six) = *same_family.or(listeners.first())?;
    let adapt = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) if six => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        _ => address,
    };
    Some(Accepted {
        stream,
        listener,
        peer: adapt(peer),
        local: adapt(local),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_port(address: &str) -> u16 {
        let probe = std::net::TcpListener::bind((address, 0)).unwrap();
        probe.local_addr().unwrap().port()
    }

    fn published(listener: u32, address: SocketAddr) -> Published {
        Published {
            listener,
            address,
            transport: Transport::Stream,
            chosen: false,
        }
    }

    fn listeners(poll: &mio::Poll) -> Listeners {
        let registry = poll.registry().try_clone().unwrap();
        Listeners::new("127.0.0.1".parse().unwrap(), registry, 1000)
    }

    fn accept(listeners: &mut Listeners, port: u16) -> Accepted {
        loop {
            if let Some(accepted) = listeners.accept(port).unwrap() {
                return accepted;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_port_is_opened_once_when_live_and_clients_find_their_family() {
        let poll = mio::Poll::new().unwrap();
        let mut listeners = listeners(&poll);
        let port = free_port("127.0.0.1");
        listeners
            .listen(published(1, SocketAddr::new("::".parse().unwrap(), port)))
            .unwrap();
        assert!(listeners.addresses().is_empty());
        listeners.start_serving().unwrap();
        assert_eq!(listeners.addresses().len(), 1);
        assert_eq!(
            listeners.port_of(Token(1000 + usize::from(port))),
            Some(port)
        );
        let _mapped = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let accepted = accept(&mut listeners, port);
        assert_eq!(accepted.listener, 1);
        assert!(accepted.peer.is_ipv6() && accepted.local.is_ipv6());
        listeners
            .listen(published(
                2,
                SocketAddr::new("0.0.0.0".parse().unwrap(), port),
            ))
            .unwrap();
        let _plain = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let accepted = accept(&mut listeners, port);
        assert_eq!(accepted.listener, 2);
        assert!(accepted.peer.is_ipv4());
        listeners.unlisten(1);
        assert_eq!(listeners.addresses().len(), 1);
        listeners.unlisten(2);
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }

    #[test]
    fn a_port_is_free_at_once_even_when_a_child_has_a_copy_of_its_socket() {
        let poll = mio::Poll::new().unwrap();
        let mut first = listeners(&poll);
        let port = free_port("127.0.0.1");
        let address = SocketAddr::new("127.0.0.1".parse().unwrap(), port);
        first.start_serving().unwrap();
        first.listen(published(1, address)).unwrap();
        let Some(ListeningSocket::Port(socket)) = &first.ports[&port].socket else {
            panic!("it is open");
        };
        let copy = socket2::SockRef::from(&socket.0).try_clone().unwrap();
        first.retire();
        let mut second = listeners(&poll);
        second.start_serving().unwrap();
        second.listen(published(1, address)).unwrap();
        drop(copy);
    }

    #[test]
    fn a_chosen_port_that_is_in_use_stays_closed() {
        let poll = mio::Poll::new().unwrap();
        let mut listeners = listeners(&poll);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listeners.start_serving().unwrap();
        let at = Published {
            chosen: true,
            ..published(1, taken.local_addr().unwrap())
        };
        listeners.listen(at).unwrap();
        assert!(listeners.addresses().is_empty());
        assert_eq!(listeners.known().len(), 1);
    }

    #[test]
    fn a_port_in_use_is_said_in_one_line() {
        let poll = mio::Poll::new().unwrap();
        let mut listeners = listeners(&poll);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listeners.start_serving().unwrap();
        let error = listeners
            .listen(published(1, taken.local_addr().unwrap()))
            .unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("already in use") && !message.contains('\n'),
            "{message}"
        );
    }
}
