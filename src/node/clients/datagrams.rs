//! The server's datagram ports, opened at this frontend's address.
//!
//! A datagram that has come is held until it is committed, so that a change of leaders costs none.
//! Loss is bounded by what the kernel's buffer and the held ones take: while nothing is committed,
//! nothing more is read, and what has waited for too long is not sent up again, since its sender
//! has given up. None is applied twice: they are numbered, and so are the answers.
//!
//! What the server sends to others, unasked, leaves at the leader's node: from the port if it is
//! open, or else from a socket that stands for it.

use crate::clients::connection::Events;
use crate::clients::listeners::{PublishError, Published, left_closed};
use crate::clients::outbound_datagrams::Errands;
use brolga_os::sys;
use brolga_tape::DATAGRAM_BYTES_MAX;
use brolga_tape::entry::Event;
use brolga_tape::record::Transport;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Poll tokens of ports.
const PORTS: usize = 1 << 16;
/// Held bytes, beyond which nothing more is read until something is committed.
const HELD_BYTES_MAX: usize = 1024 * 1024;
/// What a held datagram counts beside its payload.
const HELD_OVERHEAD_BYTES: usize = 128;
/// A datagram that could not be committed for this long is dropped: resolvers wait for five
/// seconds.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// How long a port is tried that somebody has. Well below the time after which others elect a
/// leader.
const COPY_PATIENCE: Duration = Duration::from_millis(100);
/// What the kernel is asked to buffer for a port. It may give less.
const KERNEL_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// What has become of datagrams at one frontend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatagramCounts {
    /// Read from clients.
    pub received: u64,
    /// Answers sent to clients.
    pub answered: u64,
    /// Dropped because they could not be committed in time.
    pub stale: u64,
    /// What the kernel did not take, and what was for a group.
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

#[derive(Debug)]
struct Held {
    number: u64,
    peer: SocketAddr,
    local: SocketAddr,
    bytes: Box<[u8]>,
    since: Instant,
}

/// What has come and is not committed.
#[derive(Debug)]
struct Inbox {
    last_number: u64,
    /// Oldest first.
    held: VecDeque<Held>,
    held_bytes: usize,
    received: u64,
    buffer: Vec<u8>,
}

/// A datagram of the server.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// Counts up from 1.
    pub number: u64,
    /// Where it comes from.
    pub local: SocketAddr,
    /// Where it goes.
    pub peer: SocketAddr,
    /// The payload.
    pub bytes: &'a [u8],
}

/// See the module's description.
#[derive(Debug)]
pub struct Datagrams {
    address: IpAddr,
    registry: Registry,
    first_token: usize,
    ports: BTreeMap<u16, Port>,
    errands: Errands,
    live: bool,
    inbox: Inbox,
    last_answer: u64,
    last_unasked: u64,
    counts: DatagramCounts,
}

impl Datagrams {
    /// Opens ports at `address`, with poll tokens from `first_token` up: one for each port number,
    /// then those of the errands.
    pub fn new(address: IpAddr, registry: [Registry; 2], first_token: usize) -> Self {
        let [registry, for_errands] = registry;
        Self {
            address,
            registry,
            first_token,
            ports: BTreeMap::new(),
            errands: Errands::new(for_errands, first_token + PORTS),
            live: false,
            inbox: Inbox {
                last_number: 0,
                held: VecDeque::new(),
                held_bytes: 0,
                received: 0,
                buffer: vec![0; DATAGRAM_BYTES_MAX + 1],
            },
            last_answer: 0,
            last_unasked: 0,
            counts: DatagramCounts::default(),
        }
    }

    /// True when the poll token is one of ours.
    pub fn owns(&self, token: Token) -> bool {
        self.port_of(token).is_some() || self.errands.owns(token)
    }

    fn port_of(&self, token: Token) -> Option<u16> {
        let port = token.0.checked_sub(self.first_token)?;
        u16::try_from(port).ok()
    }

    /// What has become of datagrams.
    pub fn counts(&self) -> DatagramCounts {
        DatagramCounts {
            received: self.inbox.received,
            ..self.counts
        }
    }

    /// Every replica has dropped so many from the log.
    pub fn server_lost(&mut self, total: u64) {
        self.counts.lost = total;
    }

    // ---- ports ----

    /// From now on ports are open as long as the server has them.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn go_live(&mut self) -> Result<(), PublishError> {
        self.live = true;
        self.open_all()
    }

    /// The server takes datagrams.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn listen(&mut self, published: Published) -> Result<(), PublishError> {
        let listener = published.listener;
        let port = self.ports.entry(published.address.port()).or_default();
        port.chosen = published.chosen;
        if !port.listeners.contains(&listener) {
            port.listeners.push(listener);
        }
        if self.live { self.open_all() } else { Ok(()) }
    }

    /// The server no longer does.
    pub fn unlisten(&mut self, listener: u32) {
        for port in self.ports.values_mut() {
            port.listeners.retain(|known| *known != listener);
        }
        self.ports.retain(|_, port| !port.listeners.is_empty());
    }

    /// The server's sockets, each with its port.
    pub fn known(&self) -> Vec<Published> {
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
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let open = self.ports.iter().filter(|(_, port)| port.socket.is_some());
        open.map(|(number, _)| SocketAddr::new(self.address, *number))
            .collect()
    }

    /// From now on ports are closed, until [`Datagrams::go_live`].
    pub fn retire(&mut self) {
        self.live = false;
        self.ports.clear();
        self.errands.close_all();
    }

    /// The server is gone for good.
    pub fn close_all(&mut self) {
        self.ports.clear();
        self.errands.close_all();
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
    pub fn ready(&mut self, token: Token) {
        match self.port_of(token) {
            Some(port) => {
                if let Some(port) = self.ports.get_mut(&port) {
                    port.readable = true;
                }
            }
            None => self.errands.ready(token),
        }
    }

    /// Reads what there is, as far as it can be held, and says so in `events`.
    pub fn receive(&mut self, frontend: u64, now: Instant, events: &mut impl Events) {
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
        for errand in self
            .errands
            .all()
            .iter_mut()
            .filter(|errand| errand.readable)
        {
            let local = errand.local;
            errand.readable = !inbox.drain(&errand.socket, now, |_| local, &mut say);
        }
    }

    /// Something that was read is not committed.
    pub fn is_outstanding(&self) -> bool {
        !self.inbox.held.is_empty()
    }

    /// Everything up to this number is committed, or has no effect any more.
    pub fn committed(&mut self, number: u64) {
        self.inbox.forget(number);
    }

    /// Says everything again that is not committed.
    pub fn resend(&mut self, frontend: u64, now: Instant, events: &mut impl Events) {
        while let Some(first) = self.inbox.held.front()
            && now.saturating_duration_since(first.since) > STALE_AFTER
        {
            let number = first.number;
            self.counts.stale += 1;
            self.inbox.forget(number);
        }
        for one in &self.inbox.held {
            one.say(frontend, events);
        }
    }

    /// The frontend has another identity: what was said under the old one has no effect.
    pub fn start_over(&mut self) {
        self.inbox.forget(u64::MAX);
        self.inbox.last_number = 0;
        self.last_answer = 0;
    }

    // ---- to clients and others ----

    /// Sends an answer, unless it was sent before.
    pub fn answer(&mut self, parcel: &Parcel<'_>) {
        if parcel.number <= self.last_answer {
            return;
        }
        self.last_answer = parcel.number;
        let source = self.address.is_unspecified();
        let source = source.then(|| parcel.local.ip());
        match self.send_from_port(parcel, source) {
            Some(Ok(())) => self.counts.answered += 1,
            // The server has closed the port since, or the kernel has no room.
            None | Some(Err(_)) => self.counts.unsent += 1,
        }
    }

    /// Something that the server sends of its own accord. Only the node that leads sends it, and
    /// none a second time for a replay.
    pub fn unasked(&mut self, parcel: &Parcel<'_>, leads: bool) {
        if parcel.number <= self.last_unasked {
            return;
        }
        self.last_unasked = parcel.number;
        if !leads || !self.live {
            return;
        }
        match self.send_unasked(parcel) {
            Ok(()) => self.counts.unasked += 1,
            Err(error) => {
                tracing::debug!(%error, peer = %parcel.peer, "a datagram of the server is not sent");
                self.counts.unsent += 1;
            }
        }
    }

    fn send_unasked(&mut self, parcel: &Parcel<'_>) -> io::Result<()> {
        if is_group(parcel.peer.ip()) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        match self.send_from_port(parcel, None) {
            Some(sent) => sent,
            None => self.errands.send(parcel.local, parcel.peer, parcel.bytes),
        }
    }

    /// From an open port; `None` if it is not one.
    fn send_from_port(
        &self,
        parcel: &Parcel<'_>,
        source: Option<IpAddr>,
    ) -> Option<io::Result<()>> {
        let port = self.ports.get(&parcel.local.port())?;
        let socket = port.socket.as_ref()?;
        let sent = sys::send_datagram(socket.as_fd(), parcel.bytes, source, parcel.peer);
        Some(sent)
    }
}

fn is_group(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

impl Inbox {
    /// Reads what a socket has, as far as it can be held, and says so. True when it is empty.
    fn drain(
        &mut self,
        socket: &UdpSocket,
        now: Instant,
        local: impl Fn(Option<IpAddr>) -> SocketAddr,
        mut say: impl FnMut(&Held),
    ) -> bool {
        while self.held_bytes < HELD_BYTES_MAX {
            let got = match sys::receive_datagram(socket.as_fd(), &mut self.buffer) {
                Ok(got) => got,
                Err(error) if is_about_one_datagram(&error) => continue,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::warn!(%error, "cannot read datagrams for now");
                    }
                    return true;
                }
            };
            self.last_number += 1;
            self.received += 1;
            let one = Held {
                number: self.last_number,
                peer: got.peer,
                local: local(got.local),
                bytes: self.buffer[..got.len].into(),
                since: now,
            };
            say(&one);
            self.held_bytes += one.cost();
            self.held.push_back(one);
        }
        false
    }

    fn forget(&mut self, upto: u64) {
        while let Some(first) = self.held.front()
            && first.number <= upto
        {
            self.held_bytes -= first.cost();
            self.held.pop_front();
        }
    }
}

impl Held {
    fn cost(&self) -> usize {
        self.bytes.len() + HELD_OVERHEAD_BYTES
    }

    fn say(&self, frontend: u64, events: &mut impl Events) {
        events.event(&Event::Datagram {
            frontend,
            number: self.number,
            peer: self.peer,
            local: self.local,
            bytes: &self.bytes,
        });
    }
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

/// An interruption, or the answer to something sent earlier: the next datagram may be fine.
fn is_about_one_datagram(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::frontend::Outbox;
    use brolga_tape::entry::Entry;

    const FRONTEND: u64 = 9;

    fn published(listener: u32, port: u16, chosen: bool) -> Published {
        Published {
            listener,
            address: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
            transport: Transport::Datagram,
            chosen,
        }
    }

    fn datagrams(address: &str) -> (mio::Poll, Datagrams, SocketAddr) {
        let poll = mio::Poll::new().unwrap();
        let registry = || poll.registry().try_clone().unwrap();
        let address_parsed = address.parse().unwrap();
        let mut datagrams = Datagrams::new(address_parsed, [registry(), registry()], 1000);
        let port = free_port(address);
        datagrams.listen(published(1, port, false)).unwrap();
        assert!(datagrams.addresses().is_empty());
        datagrams.go_live().unwrap();
        let at = datagrams.addresses()[0];
        (poll, datagrams, at)
    }

    fn free_port(address: &str) -> u16 {
        let probe = std::net::UdpSocket::bind((address, 0)).unwrap();
        probe.local_addr().unwrap().port()
    }

    fn client(address: &str) -> std::net::UdpSocket {
        let client = std::net::UdpSocket::bind((address, 0)).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        client
    }

    /// What is said, as (number, peer, local, bytes).
    fn said(outbox: &mut Outbox) -> Vec<(u64, SocketAddr, SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(mut chunk) = outbox.pop() {
            let bytes = chunk.finish(0, 0);
            for event in Entry::parse(&bytes).unwrap().events() {
                let Event::Datagram {
                    frontend: FRONTEND,
                    number,
                    peer,
                    local,
                    bytes,
                } = event.unwrap()
                else {
                    panic!("{event:?}")
                };
                all.push((number, peer, local, bytes.to_vec()));
            }
        }
        all
    }

    /// Reads until so many have been said.
    fn read(
        datagrams: &mut Datagrams,
        count: usize,
    ) -> Vec<(u64, SocketAddr, SocketAddr, Vec<u8>)> {
        let (mut all, started) = (Vec::new(), Instant::now());
        let mut outbox = Outbox::default();
        while all.len() < count {
            assert!(started.elapsed() < Duration::from_secs(10), "{}", all.len());
            let ports: Vec<u16> = datagrams.ports.keys().copied().collect();
            let tokens = ports
                .into_iter()
                .map(|port| Token(1000 + usize::from(port)));
            tokens.for_each(|token| datagrams.ready(token));
            datagrams.ready(Token(1000 + PORTS));
            datagrams.receive(FRONTEND, Instant::now(), &mut outbox);
            all.extend(said(&mut outbox));
        }
        all
    }

    #[test]
    fn datagrams_are_held_until_they_are_committed() {
        let (_poll, mut datagrams, at) = datagrams("127.0.0.1");
        let client = client("127.0.0.1");
        let largest = vec![5; 65_507];
        client.send_to(b"one", at).unwrap();
        client.send_to(b"", at).unwrap();
        client.send_to(&largest, at).unwrap();
        let peer = client.local_addr().unwrap();
        let first = read(&mut datagrams, 3);
        let expected = [
            (1, peer, at, b"one".to_vec()),
            (2, peer, at, Vec::new()),
            (3, peer, at, largest),
        ];
        assert_eq!(first, expected);
        datagrams.committed(1);
        let mut outbox = Outbox::default();
        let soon = Instant::now();
        datagrams.resend(FRONTEND, soon, &mut outbox);
        assert_eq!(said(&mut outbox), expected[1..]);
        assert!(datagrams.is_outstanding());
        let late = soon + 2 * STALE_AFTER;
        datagrams.resend(FRONTEND, late, &mut outbox);
        assert!(said(&mut outbox).is_empty() && !datagrams.is_outstanding());
        assert_eq!(datagrams.counts().stale, 2);
        client.send_to(b"two", at).unwrap();
        assert_eq!(read(&mut datagrams, 1)[0].0, 4);
        datagrams.committed(4);
        assert_eq!(datagrams.inbox.held_bytes, 0);
    }

    #[test]
    fn no_more_is_read_than_can_be_held() {
        let (_poll, mut datagrams, at) = datagrams("127.0.0.1");
        let client = client("127.0.0.1");
        let large = vec![5; 60_000];
        let mut most = 0;
        for _ in 0..40 {
            client.send_to(&large, at).unwrap();
            let mut outbox = Outbox::default();
            datagrams.ready(Token(1000 + usize::from(at.port())));
            datagrams.receive(FRONTEND, Instant::now(), &mut outbox);
            most = most.max(datagrams.inbox.held_bytes);
        }
        assert!(most >= HELD_BYTES_MAX, "{most}");
        assert!(most < HELD_BYTES_MAX + 2 * large.len(), "{most}");
        let (held, next) = (datagrams.inbox.held.len(), datagrams.inbox.last_number + 1);
        assert!(held < 40);
        datagrams.committed(datagrams.inbox.last_number);
        let mut outbox = Outbox::default();
        datagrams.receive(FRONTEND, Instant::now(), &mut outbox);
        assert_eq!(said(&mut outbox)[0].0, next, "reading goes on by itself");
    }

    #[test]
    fn answers_are_sent_once_and_from_the_address_that_was_asked() {
        for (publish, asked, from) in [
            ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.3", "127.0.0.9"),
            ("::", "127.0.0.3", "127.0.0.9"),
            ("::", "::1", "::1"),
            ("::1", "::1", "::1"),
        ] {
            let (_poll, mut datagrams, at) = datagrams(publish);
            let asked = SocketAddr::new(asked.parse().unwrap(), at.port());
            let client = client(from);
            client.connect(asked).unwrap();
            client.send(b"?").unwrap();
            let (number, peer, local, _) = read(&mut datagrams, 1).remove(0);
            assert_eq!((number, local), (1, asked), "{publish}");
            assert_eq!(peer, client.local_addr().unwrap());
            let answer = |number, bytes| Parcel {
                number,
                local,
                peer,
                bytes,
            };
            datagrams.answer(&answer(1, b"first"));
            datagrams.answer(&answer(1, b"again"));
            datagrams.answer(&answer(2, b"second"));
            let mut buffer = [0; 100];
            for expected in [&b"first"[..], b"second"] {
                // Connected: what comes from another address would not arrive.
                let len = client.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], expected, "{publish}");
            }
            assert_eq!(datagrams.counts().answered, 2);
            datagrams.unlisten(1);
            datagrams.answer(&answer(3, b"closed"));
            assert_eq!(datagrams.counts().unsent, 1);
        }
    }

    #[test]
    fn a_port_in_use_is_said_in_one_line() {
        let (_poll, mut datagrams, _) = datagrams("127.0.0.1");
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = datagrams
            .listen(published(2, taken.local_addr().unwrap().port(), false))
            .unwrap_err();
        assert!(error.to_string().contains("already in use"), "{error}");
    }

    #[test]
    fn a_port_of_which_a_dying_copy_is_left_is_opened() {
        let (_poll, mut datagrams, at) = datagrams("127.0.0.1");
        let socket = datagrams.ports[&at.port()].socket.as_ref().unwrap();
        let copy = socket2::SockRef::from(socket).try_clone().unwrap();
        datagrams.retire();
        let (listening_tx, listening_rx) = std::sync::mpsc::channel();
        let child = std::thread::spawn(move || {
            listening_rx.recv().unwrap();
            drop(copy);
        });
        datagrams.live = true;
        listening_tx.send(()).unwrap();
        datagrams.listen(published(2, at.port(), false)).unwrap();
        child.join().unwrap();
    }

    #[test]
    fn a_chosen_port_that_is_in_use_stays_closed() {
        let (_poll, mut datagrams, at) = datagrams("127.0.0.1");
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        datagrams.listen(published(2, port, true)).unwrap();
        assert_eq!(datagrams.addresses(), [at]);
    }

    #[test]
    fn what_the_server_sends_unasked_leaves_once_at_the_leader() {
        let (_poll, mut datagrams, at) = datagrams("127.0.0.1");
        let far = client("127.0.0.1");
        let peer = far.local_addr().unwrap();
        let parcel = |number, port, bytes| Parcel {
            number,
            local: SocketAddr::from(([127, 0, 0, 1], port)),
            peer,
            bytes,
        };
        datagrams.unasked(&parcel(1, 61_000, b"others send it"), false);
        datagrams.unasked(&parcel(2, 61_000, b"asked"), true);
        datagrams.unasked(&parcel(2, 61_000, b"again"), true);
        datagrams.unasked(&parcel(3, at.port(), b"port"), true);
        let mut buffer = [0; 100];
        let (len, errand) = far.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"asked");
        let (len, port) = far.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], port), (&b"port"[..], at));
        far.send_to(b"answer", errand).unwrap();
        let said = read(&mut datagrams, 1);
        let local = "127.0.0.1:61000".parse().unwrap();
        assert_eq!(said, [(1, peer, local, b"answer".to_vec())]);
        let group = Parcel {
            number: 4,
            peer: "239.255.255.250:1900".parse().unwrap(),
            ..parcel(4, 61_000, b"group")
        };
        datagrams.unasked(&group, true);
        let counts = datagrams.counts();
        assert_eq!((counts.unasked, counts.unsent), (2, 1));
    }
}
