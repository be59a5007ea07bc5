//! Datagrams with clients in the same process.

use super::inbox::{HELD_BYTES_MAX, STALE_AFTER};
use super::*;
use crate::clients::outbox::Outbox;
use brolga_tape::entry::{Entry, Event};

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
    datagrams.start_serving().unwrap();
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
fn read(datagrams: &mut Datagrams, count: usize) -> Vec<(u64, SocketAddr, SocketAddr, Vec<u8>)> {
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
        let answer = |number, bytes| OutboundDatagram {
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
    datagrams.serving = true;
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
fn unsolicited_datagrams_leave_once_at_the_leader() {
    let (_poll, mut datagrams, at) = datagrams("127.0.0.1");
    let far = client("127.0.0.1");
    let peer = far.local_addr().unwrap();
    let datagram = |number, port, bytes| OutboundDatagram {
        number,
        local: SocketAddr::from(([127, 0, 0, 1], port)),
        peer,
        bytes,
    };
    datagrams.unsolicited(&datagram(1, 61_000, b"others send it"), false);
    datagrams.unsolicited(&datagram(2, 61_000, b"asked"), true);
    datagrams.unsolicited(&datagram(2, 61_000, b"again"), true);
    datagrams.unsolicited(&datagram(3, at.port(), b"port"), true);
    let mut buffer = [0; 100];
    let (len, socket) = far.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"asked");
    let (len, port) = far.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], port), (&b"port"[..], at));
    far.send_to(b"answer", socket).unwrap();
    let said = read(&mut datagrams, 1);
    let local = "127.0.0.1:61000".parse().unwrap();
    assert_eq!(said, [(1, peer, local, b"answer".to_vec())]);
    let group = OutboundDatagram {
        number: 4,
        peer: "239.255.255.250:1900".parse().unwrap(),
        ..datagram(4, 61_000, b"group")
    };
    datagrams.unsolicited(&group, true);
    let counts = datagrams.counts();
    assert_eq!((counts.unasked, counts.unsent), (2, 1));
}
