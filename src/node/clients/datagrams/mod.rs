//! The server's datagram ports, opened at this frontend's address.
//!
//! A datagram that has come is held until it is committed, so that a change of leaders costs none.
//! Loss is bounded by what the kernel's buffer and the held ones take: while nothing is committed,
//! nothing more is read, and what has waited for too long is not sent up again, since its sender
//! has given up. None is applied twice: they are numbered, and so are the answers.
//!
//! Datagrams that the server sends unsolicited leave at the leader's node: from the port if it is
//! open, or else from a socket that stands for it.

mod inbox;
mod outbound;

use self::inbox::{Held, Inbox};
use self::outbound::OutboundSockets;
use crate::clients::listeners::{PublishError, Published, left_closed};
use crate::clients::outbox::Events;
use brolga_os::sys;
use brolga_tape::record::Transport;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Poll tokens of ports.
const PORTS: usize = 1 << 16;
/// Time for which a port in use is tried. Well below the time after which others elect a leader.
const COPY_PATIENCE: Duration = Duration::from_millis(100);
/// Bytes that the kernel is asked to buffer for a port. It may give less.
const KERNEL_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Counts of datagrams at one frontend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatagramCounts {
    /// Read from clients.
    pub received: u64,
    /// Answers sent to clients.
    pub answered: u64,
    /// Dropped because they could not be committed in time.
    pub stale: u64,
    /// Not sent: the kernel did not take it, or it was for a multicast group.
    pub unsent: u64,
    /// Committed, and dropped by every replica because the server did not read.
    pub lost: u64,
    /// Sent by this node, as the leader, to peers that nobody has heard before.
    pub unasked: u64,
}

#[derive(Debug, Default)]
struct Port {
    socket: Option<UdpSocket>,
    /// The server's sockets that take datagrams there.
    listeners: Vec<u32>,
    /// The server did not ask for this port.
    chosen: bool,
    /// There may be something to read (the poll is edge-triggered).
    readable: bool,
}

/// A datagram of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutboundDatagram<'a> {
    /// Counts up from 1.
    pub number: u64,
    /// The source.
    pub local: SocketAddr,
    /// The destination.
    pub peer: SocketAddr,
    /// The payload.
    pub bytes: &'a [u8],
}

/// The datagram ports of a frontend.
#[derive(Debug)]
pub(crate) struct Datagrams {
    address: IpAddr,
    registry: Registry,
    first_token: usize,
    ports: BTreeMap<u16, Port>,
    outbound: OutboundSockets,
    serving: bool,
    inbox: Inbox,
    last_answer: u64,
    last_unsolicited: u64,
    counts: DatagramCounts,
}

impl Datagrams {
    /// Opens ports at `address`, with poll tokens from `first_token` up: one for each port number,
    /// then those of the outbound sockets.
    pub(crate) fn new(address: IpAddr, registry: [Registry; 2], first_token: usize) -> Self {
        let [registry, for_outbound] = registry;
        Self {
            address,
            registry,
            first_token,
            ports: BTreeMap::new(),
            outbound: OutboundSockets::new(for_outbound, first_token + PORTS),
            serving: false,
            inbox: Inbox::new(),
            last_answer: 0,
            last_unsolicited: 0,
            counts: DatagramCounts::default(),
        }
    }

    /// Returns true when the poll token is one of these sockets'.
    pub(crate) fn owns(&self, token: Token) -> bool {
        self.port_of(token).is_some() || self.outbound.owns(token)
    }

    fn port_of(&self, token: Token) -> Option<u16> {
        let port = token.0.checked_sub(self.first_token)?;
        u16::try_from(port).ok()
    }

    /// Returns the counts.
    pub(crate) fn counts(&self) -> DatagramCounts {
        DatagramCounts {
            received: self.inbox.received(),
            ..self.counts
        }
    }

    /// Every replica has dropped so many from the log.
    pub(crate) fn server_lost(&mut self, total: u64) {
        self.counts.lost = total;
    }

    // ---- ports ----

    /// Opens the ports, now and whenever the server has some.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub(crate) fn start_serving(&mut self) -> Result<(), PublishError> {
        self.serving = true;
        self.open_all()
    }

    /// The server takes datagrams.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub(crate) fn listen(&mut self, published: Published) -> Result<(), PublishError> {
        let listener = published.listener;
        let port = self.ports.entry(published.address.port()).or_default();
        port.chosen = published.chosen;
        if !port.listeners.contains(&listener) {
            port.listeners.push(listener);
        }
        if self.serving {
            self.open_all()
        } else {
            Ok(())
        }
    }

    /// The server no longer does.
    pub(crate) fn unlisten(&mut self, listener: u32) {
        for port in self.ports.values_mut() {
            port.listeners.retain(|known| *known != listener);
        }
        self.ports.retain(|_, port| !port.listeners.is_empty());
    }

    /// The server's sockets, each with its port.
    pub(crate) fn known(&self) -> Vec<Published> {
        let of_port = |(number, port): (&u16, &Port)| {
            let listeners = port.listeners.iter();
            listeners
                .map(|listener| Published {
                    listener: *listener,
                    address: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), *number),
                    transport: Transport::Datagram,
                    chosen: port.chosen,
                })
                .collect::<Vec<_>>()
        };
        self.ports.iter().flat_map(of_port).collect()
    }

    /// The addresses that clients can send to.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let open = self.ports.iter().filter(|(_, port)| port.socket.is_some());
        open.map(|(number, _)| SocketAddr::new(self.address, *number))
            .collect()
    }

    /// Closes the ports, until [`Datagrams::start_serving`].
    pub(crate) fn retire(&mut self) {
        self.serving = false;
        self.ports.clear();
        self.outbound.close_all();
    }

    /// The server is gone for good.
    pub(crate) fn close_all(&mut self) {
        self.ports.clear();
        self.outbound.close_all();
    }

    fn open_all(&mut self) -> Result<(), PublishError> {
        for (number, port) in &mut self.ports {
            if port.socket.is_some() {
                continue;
            }
            let at = SocketAddr::new(self.address, *number);
            let token = Token(self.first_token + usize::from(*number));
            match open(at, &self.registry, token) {
                Ok(socket) => {
                    tracing::info!(address = %at, "clients can send datagrams");
                    port.socket = Some(socket);
                    port.readable = true;
                }
                Err(error) if port.chosen => left_closed(at, &error),
                Err(error) => return Err(PublishError::from_io(at, error)),
            }
        }
        Ok(())
    }

    // ---- from clients ----

    /// The poll says that there is something to read.
    pub(crate) fn ready(&mut self, token: Token) {
        match self.port_of(token) {
            Some(port) => {
                if let Some(port) = self.ports.get_mut(&port) {
                    port.readable = true;
                }
            }
            None => self.outbound.ready(token),
        }
    }

    /// Reads what there is, as far as it can be held, and says so in `events`.
    pub(crate) fn receive(&mut self, frontend: u64, now: Instant, events: &mut impl Events) {
        let mut say = |one: &Held| one.say(frontend, events);
        let inbox = &mut self.inbox;
        for (number, port) in &mut self.ports {
            let Some(socket) = port.socket.as_ref().filter(|_| port.readable) else {
                continue;
            };
            let local = |ip: Option<IpAddr>| {
                let ip = ip.unwrap_or(self.address).to_canonical();
                SocketAddr::new(ip, *number)
            };
            port.readable = !inbox.drain(socket, now, local, &mut say);
        }
        for socket in self
            .outbound
            .all()
            .iter_mut()
            .filter(|socket| socket.readable)
        {
            let local = socket.local;
            socket.readable = !inbox.drain(&socket.socket, now, |_| local, &mut say);
        }
    }

    /// Returns true while a datagram that was read is not committed.
    pub(crate) fn is_outstanding(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Drops what is held up to a number: it is committed, or has no effect any more.
    pub(crate) fn committed(&mut self, number: u64) {
        self.inbox.forget(number);
    }

    /// Says everything again that is not committed.
    pub(crate) fn resend(&mut self, frontend: u64, now: Instant, events: &mut impl Events) {
        self.counts.stale += self.inbox.drop_stale(now);
        for one in self.inbox.iter() {
            one.say(frontend, events);
        }
    }

    /// The frontend has another identity: what was said under the old one has no effect.
    pub(crate) fn start_over(&mut self) {
        self.inbox.restart();
        self.last_answer = 0;
    }

    // ---- to clients and others ----

    /// Sends an answer, unless it was sent before.
    pub(crate) fn answer(&mut self, datagram: &OutboundDatagram<'_>) {
        if datagram.number <= self.last_answer {
            return;
        }
        self.last_answer = datagram.number;
        let source = self.address.is_unspecified();
        let source = source.then(|| datagram.local.ip());
        match self.send_from_port(datagram, source) {
            Some(Ok(())) => self.counts.answered += 1,
            // The server has closed the port since, or the kernel has no room.
            None | Some(Err(_)) => self.counts.unsent += 1,
        }
    }

    /// Sends a datagram that the server sends of its own accord. Only the leader's node sends it,
    /// and none a second time for a replay.
    pub(crate) fn unsolicited(&mut self, datagram: &OutboundDatagram<'_>, leads: bool) {
        if datagram.number <= self.last_unsolicited {
            return;
        }
        self.last_unsolicited = datagram.number;
        if !leads || !self.serving {
            return;
        }
        match self.send_unsolicited(datagram) {
            Ok(()) => self.counts.unasked += 1,
            Err(error) => {
                tracing::debug!(%error, peer = %datagram.peer, "a datagram of the server is not sent");
                self.counts.unsent += 1;
            }
        }
    }

    fn send_unsolicited(&mut self, datagram: &OutboundDatagram<'_>) -> io::Result<()> {
        if is_group(datagram.peer.ip()) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        match self.send_from_port(datagram, None) {
            Some(sent) => sent,
            None => self
                .outbound
                .send(datagram.local, datagram.peer, datagram.bytes),
        }
    }

    /// From an open port; `None` if it is not one.
    fn send_from_port(
        &self,
        datagram: &OutboundDatagram<'_>,
        source: Option<IpAddr>,
    ) -> Option<io::Result<()>> {
        let port = self.ports.get(&datagram.local.port())?;
        let socket = port.socket.as_ref()?;
        let sent = sys::send_datagram(socket.as_fd(), datagram.bytes, source, datagram.peer);
        Some(sent)
    }
}

fn is_group(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Opens a port. One of our own that was just closed may be taken for a moment more: unlike a
/// listener, it can't be given up before all copies are closed, and a child that is being started
/// has one until its `exec`, of which nobody tells us.
fn bind(at: SocketAddr) -> io::Result<UdpSocket> {
    let deadline = Instant::now() + COPY_PATIENCE;
    loop {
        match UdpSocket::bind(at) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(COPY_PATIENCE / 20);
            }
            outcome => return outcome,
        }
    }
}

fn open(at: SocketAddr, registry: &Registry, token: Token) -> io::Result<UdpSocket> {
    let mut socket = bind(at)?;
    let options = socket2::SockRef::from(&socket);
    // A smaller buffer only means that more is lost when much comes at once.
    let _ = options.set_recv_buffer_size(KERNEL_BUFFER_BYTES);
    let _ = options.set_send_buffer_size(KERNEL_BUFFER_BYTES);
    if at.ip().is_unspecified() {
        sys::report_local_addresses(socket.as_fd(), at.is_ipv6())?;
    }
    registry.register(&mut socket, token, Interest::READABLE)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
