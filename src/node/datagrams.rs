//! The server's datagram ports, opened at this frontend's address.
//!
//! A datagram that has come is held until it is committed, so that a change of leaders costs none.
//! Loss is bounded by what the kernel's buffer and the held ones take: while nothing is committed,
//! nothing more is read, and what has waited for too long is not sent up again, since its sender has
//! given up. None is applied twice: they are numbered, and so are the answers.

use super::client::Events;
use super::listeners::PublishError;
use super::sys;
use brolga_tape::DATAGRAM_BYTES_MAX;
use brolga_tape::entry::Event;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Held bytes, beyond which nothing more is read until something is committed.
const HELD_BYTES_MAX: usize = 1024 * 1024;
/// What a held datagram counts beside its payload.
const HELD_OVERHEAD_BYTES: usize = 128;
/// A datagram that could not be committed for this long is dropped: resolvers wait for five seconds.
const STALE_AFTER: Duration = Duration::from_secs(5);
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
    /// Answers that the kernel did not take.
    pub unsent: u64,
    /// Committed, and dropped by every replica because the server did not read.
    pub lost: u64,
    /// Sent by the server to somebody that no frontend has heard of, and dropped.
    pub astray: u64,
}

#[derive(Debug, Default)]
struct Port {
    socket: Option<UdpSocket>,
    /// The server's sockets that take datagrams there.
    listeners: Vec<u32>,
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

/// An answer of the server.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
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
    live: bool,
    last_number: u64,
    /// Not committed yet, oldest first.
    held: VecDeque<Held>,
    held_bytes: usize,
    last_answer: u64,
    counts: DatagramCounts,
    buffer: Vec<u8>,
}

impl Datagrams {
    /// Opens ports at `address`, with poll tokens from `first_token` up, one for each port number.
    pub fn new(address: IpAddr, registry: Registry, first_token: usize) -> Self {
        Self {
            address,
            registry,
            first_token,
            ports: BTreeMap::new(),
            live: false,
            last_number: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            last_answer: 0,
            counts: DatagramCounts::default(),
            buffer: vec![0; DATAGRAM_BYTES_MAX + 1],
        }
    }

    /// The port that a poll token stands for.
    pub fn port_of(&self, token: Token) -> Option<u16> {
        let port = token.0.checked_sub(self.first_token)?;
        u16::try_from(port).ok()
    }

    /// What has become of datagrams.
    pub fn counts(&self) -> DatagramCounts {
        self.counts
    }

    /// Every replica has dropped so many from the log, and so many of the server's.
    pub fn server_dropped(&mut self, lost: Option<u64>, astray: Option<u64>) {
        self.counts.lost = lost.unwrap_or(self.counts.lost);
        self.counts.astray = astray.unwrap_or(self.counts.astray);
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
    pub fn listen(&mut self, listener: u32, port: u16) -> Result<(), PublishError> {
        let port = self.ports.entry(port).or_default();
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
    pub fn known(&self) -> Vec<(u32, u16)> {
        let of_port = |(number, port): (&u16, &Port)| {
            let listeners = port.listeners.iter();
            listeners
                .map(|listener| (*listener, *number))
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
    }

    /// The server is gone for good.
    pub fn close_all(&mut self) {
        self.ports.clear();
    }

    fn open_all(&mut self) -> Result<(), PublishError> {
        for (number, port) in &mut self.ports {
            if port.socket.is_some() {
                continue;
            }
            let at = SocketAddr::new(self.address, *number);
            let token = Token(self.first_token + usize::from(*number));
            let socket = open(at, &self.registry, token)
                .map_err(|source| PublishError::from_io(at, source))?;
            tracing::info!(address = %at, "clients can send datagrams");
            port.socket = Some(socket);
            port.readable = true;
        }
        Ok(())
    }

    // ---- from clients ----

    /// The poll says that there is something to read.
    pub fn ready(&mut self, port: u16) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.readable = true;
        }
    }

    /// Reads what there is, as far as it can be held, and says so in `events`.
    pub fn receive(&mut self, frontend: u64, now: Instant, events: &mut impl Events) {
        let Self {
            ports,
            held,
            held_bytes,
            buffer,
            counts,
            last_number,
            ..
        } = self;
        for (number, port) in ports.iter_mut().filter(|(_, port)| port.readable) {
            let Some(socket) = &port.socket else { continue };
            while *held_bytes < HELD_BYTES_MAX {
                let got = match sys::receive_datagram(socket.as_fd(), buffer) {
                    Ok(got) => got,
                    Err(error) if is_about_one_datagram(&error) => continue,
                    Err(error) => {
                        if error.kind() != io::ErrorKind::WouldBlock {
                            tracing::warn!(%error, port = number, "cannot read datagrams for now");
                        }
                        port.readable = false;
                        break;
                    }
                };
                *last_number += 1;
                counts.received += 1;
                let local = got.local.unwrap_or(self.address);
                let one = Held {
                    number: *last_number,
                    peer: got.peer,
                    local: SocketAddr::new(local.to_canonical(), *number),
                    bytes: buffer[..got.len].into(),
                    since: now,
                };
                one.say(frontend, events);
                *held_bytes += one.cost();
                held.push_back(one);
            }
        }
    }

    /// Something that was read is not committed.
    pub fn is_outstanding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Everything up to this number is committed, or has no effect any more.
    pub fn committed(&mut self, number: u64) {
        while let Some(first) = self.held.front()
            && first.number <= number
        {
            self.held_bytes -= first.cost();
            self.held.pop_front();
        }
    }

    /// Says everything again that is not committed.
    pub fn resend(&mut self, frontend: u64, now: Instant, events: &mut impl Events) {
        while let Some(first) = self.held.front()
            && now.saturating_duration_since(first.since) > STALE_AFTER
        {
            self.counts.stale += 1;
            self.committed(self.held[0].number);
        }
        for one in &self.held {
            one.say(frontend, events);
        }
    }

    /// The frontend has another identity: what was said under the old one has no effect.
    pub fn start_over(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
        self.last_number = 0;
        self.last_answer = 0;
    }

    // ---- to clients ----

    /// Sends an answer, unless it was sent before.
    pub fn answer(&mut self, answer: &Answer<'_>) {
        if answer.number <= self.last_answer {
            return;
        }
        self.last_answer = answer.number;
        let port = self.ports.get(&answer.local.port());
        let sent = match port.and_then(|port| port.socket.as_ref()) {
            None => false, // The server has closed the port since.
            Some(socket) => {
                let source = self.address.is_unspecified().then(|| answer.local.ip());
                let sent = sys::send_datagram(socket.as_fd(), answer.bytes, source, answer.peer);
                sent.is_ok()
            }
        };
        match sent {
            true => self.counts.answered += 1,
            false => self.counts.unsent += 1,
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

fn open(at: SocketAddr, registry: &Registry, token: Token) -> io::Result<UdpSocket> {
    let mut socket = UdpSocket::bind(at)?;
    let options = socket2::SockRef::from(&socket);
    // A smaller buffer only means that more is lost when much comes at once.
    let _ = options.set_recv_buffer_size(KERNEL_BUFFER_BYTES);
    let _ = options.set_send_buffer_size(KERNEL_BUFFER_BYTES);
    if at.ip().is_unspecified() {
        sys::tell_local_addresses(socket.as_fd(), at.is_ipv6())?;
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
    use super::super::frontend::Outbox;
    use super::*;
    use brolga_tape::entry::Entry;

    const FRONTEND: u64 = 9;

    fn datagrams(address: &str) -> (mio::Poll, Datagrams, SocketAddr) {
        let poll = mio::Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let mut datagrams = Datagrams::new(address.parse().unwrap(), registry, 1000);
        datagrams.listen(1, free_port(address)).unwrap();
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
            ports.into_iter().for_each(|port| datagrams.ready(port));
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
        assert_eq!(datagrams.held_bytes, 0);
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
            datagrams.ready(at.port());
            datagrams.receive(FRONTEND, Instant::now(), &mut outbox);
            most = most.max(datagrams.held_bytes);
        }
        assert!(most >= HELD_BYTES_MAX, "{most}");
        assert!(most < HELD_BYTES_MAX + 2 * large.len(), "{most}");
        let (held, next) = (datagrams.held.len(), datagrams.last_number + 1);
        assert!(held < 40);
        datagrams.committed(datagrams.last_number);
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
            let answer = |number, bytes| Answer {
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
            .listen(2, taken.local_addr().unwrap().port())
            .unwrap_err();
        assert!(error.to_string().contains("already in use"), "{error}");
    }
}
