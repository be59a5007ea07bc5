//! Datagram sockets, from outside and within the tree.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use crate::tests::{Log, net};
use crate::{DatagramError, Envelope, Net, Object, Received, SocketIx, State, WaitOn, Way, ready};
use brolga_tape::entry::Event;
use core::net::SocketAddr;
use std::boxed::Box;
use std::vec::Vec;

const PEER: &str = "127.0.0.1:40000";
const LOCAL: &str = "127.0.0.2:53";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn datagram<'a>(number: u64, peer: &str, local: &str, bytes: &'a [u8]) -> Event<'a> {
    Event::Datagram {
        frontend: 5,
        number,
        peer: at(peer),
        local: at(local),
        bytes,
    }
}

/// Makes a socket, names it by descriptor `fd` of process 0 and binds it.
fn bound(net: &mut Net, log: &mut Log, fd: i32, address: &str) -> SocketIx {
    let ix = fresh(net, fd, at(address).is_ipv6());
    net.bind_datagram(ix, at(address)).unwrap();
    net.publish_ports(log);
    ix
}

fn fresh(net: &mut Net, fd: i32, v6: bool) -> SocketIx {
    let ix = net.make_datagram_socket(v6).unwrap();
    assert!(net.set_object(0, fd, Object::Socket(ix)));
    ix
}

/// A net with one socket at port 53 (descriptor 3).
fn serving() -> (Box<Net>, Log, SocketIx) {
    let (mut net, mut log) = (net(), Log::default());
    let ix = bound(&mut net, &mut log, 3, "0.0.0.0:53");
    let up = Event::FrontendUp {
        node: 1,
        frontend: 5,
    };
    net.apply(&up, &mut log);
    (net, log, ix)
}

fn receive(net: &mut Net, ix: SocketIx, max: usize, peek: bool) -> (Received, Vec<u8>) {
    let mut got = Vec::new();
    let received = net.receive_datagram(ix, max, peek, |piece| got.extend_from_slice(piece));
    (received, got)
}

fn text(net: &mut Net, ix: SocketIx) -> Option<Vec<u8>> {
    match receive(net, ix, 2000, false) {
        (Received::Datagram(_), bytes) => Some(bytes),
        _ => None,
    }
}

fn send(
    net: &mut Net,
    log: &mut Log,
    ix: SocketIx,
    to: &str,
    bytes: &[u8],
) -> Result<(), DatagramError> {
    let way = Way {
        to: (!to.is_empty()).then(|| at(to)),
        ..Way::default()
    };
    net.send_datagram(ix, &way, bytes.len(), log, |room| {
        room.copy_from_slice(bytes);
    })
}

#[test]
fn datagrams_keep_their_bounds_and_resends_are_dropped() {
    let (mut net, mut log, ix) = serving();
    assert_eq!(
        log.take(),
        ["Listen { listener: 1, address: 0.0.0.0:53, transport: Datagram, chosen: false }"]
    );
    assert_eq!(net.socket(ix).state(), State::Datagram);
    assert_eq!(net.readiness(ix), ready::OUT);
    assert_eq!(receive(&mut net, ix, 9, false).0, Received::WouldBlock);
    net.apply(&datagram(1, PEER, LOCAL, b"first"), &mut log);
    net.apply(&datagram(2, PEER, LOCAL, b""), &mut log);
    net.apply(&datagram(2, PEER, LOCAL, b"again"), &mut log);
    net.apply(&datagram(1, PEER, LOCAL, b"again"), &mut log);
    let large: Vec<u8> = (0..65_000u32).map(|byte| byte as u8).collect();
    net.apply(&datagram(9, PEER, LOCAL, &large), &mut log);
    assert!(log.woken.contains(&WaitOn::Readable(ix)));
    assert_eq!(net.readiness(ix), ready::OUT | ready::IN);
    let envelope = |len| {
        Received::Datagram(Envelope {
            len,
            peer: at(PEER),
            local: at(LOCAL),
        })
    };
    assert_eq!(
        receive(&mut net, ix, 3, true),
        (envelope(5), b"fir".to_vec())
    );
    assert_eq!(
        receive(&mut net, ix, 3, false),
        (envelope(5), b"fir".to_vec())
    );
    assert_eq!(receive(&mut net, ix, 3, false), (envelope(0), Vec::new()));
    assert_eq!(
        receive(&mut net, ix, 70_000, true),
        (envelope(65_000), large.clone())
    );
    assert_eq!(
        receive(&mut net, ix, 70_000, false),
        (envelope(65_000), large)
    );
    assert_eq!(receive(&mut net, ix, 9, false).0, Received::WouldBlock);
    assert_eq!(net.readiness(ix), ready::OUT);
    net.clear_object(0, 3, &mut log);
    assert_eq!(log.take(), ["Unlisten { listener: 1 }"]);
}

#[test]
fn answers_go_back_the_way_the_question_came() {
    let (mut net, mut log, ix) = serving();
    net.apply(&datagram(1, PEER, LOCAL, b"?"), &mut log);
    log.take();
    send(&mut net, &mut log, ix, PEER, b"!").unwrap();
    let said = "Datagram { frontend: 5, number: 1, local: 127.0.0.2:53, peer: 127.0.0.1:40000, \
                bytes: [33] }";
    assert_eq!(log.take(), [said]);
    send(&mut net, &mut log, ix, "192.0.2.1:9", b"!").unwrap();
    send(&mut net, &mut log, ix, "224.0.0.251:9", b"!").unwrap();
    let said = log.take();
    assert!(said[0].starts_with("Datagram { frontend: 0, number: 1, "));
    assert!(said[1].starts_with("Datagram { frontend: 0, number: 2, "));
    net.apply(&Event::FrontendGone { frontend: 5 }, &mut log);
    send(&mut net, &mut log, ix, PEER, b"!").unwrap();
    assert!(log.take()[0].starts_with("Datagram { frontend: 0, number: 3, "));
    assert_eq!(
        send(&mut net, &mut log, ix, "", b"!"),
        Err(DatagramError::NoDestination)
    );
    assert_eq!(
        send(&mut net, &mut log, ix, "[::1]:9", b"!"),
        Err(DatagramError::Unreachable)
    );
    let large = std::vec![0; 65_508];
    assert_eq!(
        send(&mut net, &mut log, ix, PEER, &large),
        Err(DatagramError::TooLong)
    );
    assert!(log.take().is_empty());
    send(&mut net, &mut log, ix, "192.0.2.1:9", &large[1..]).unwrap();
}

#[test]
fn a_full_queue_drops_and_says_so() {
    let (mut net, mut log, ix) = serving();
    log.take();
    let large = std::vec![7; 65_000];
    for number in 1..=20 {
        net.apply(&datagram(number, PEER, LOCAL, &large), &mut log);
    }
    let lost = log.take();
    assert_eq!(
        lost,
        [
            "Lost { total: 1 }",
            "Lost { total: 2 }",
            "Lost { total: 3 }",
            "Lost { total: 4 }"
        ]
    );
    assert!(text(&mut net, ix).is_some());
    net.apply(&datagram(30, PEER, LOCAL, b"room again"), &mut log);
    assert!(log.take().is_empty());
    let mut count = 0;
    while text(&mut net, ix).is_some() {
        count += 1;
    }
    assert_eq!(count, 16);
    net.apply(
        &datagram(31, PEER, "127.0.0.2:54", b"no such port"),
        &mut log,
    );
    assert_eq!(log.take(), ["Lost { total: 5 }"]);
}

#[test]
fn sockets_of_the_tree_reach_each_other_without_the_log() {
    let (mut net, mut log, server) = serving();
    let client = fresh(&mut net, 4, false);
    log.take();
    net.connect_datagram(client, Some(at("127.0.0.1:53")), &mut log)
        .unwrap();
    assert_eq!(net.datagram_name(client), Some(at("127.0.0.1:61000")));
    assert_eq!(net.socket(client).peer(), Some(at("127.0.0.1:53")));
    send(&mut net, &mut log, client, "", b"ask").unwrap();
    let (received, bytes) = receive(&mut net, server, 99, false);
    let Received::Datagram(envelope) = received else {
        panic!("{received:?}")
    };
    assert_eq!(bytes, b"ask");
    assert_eq!(envelope.peer, at("127.0.0.1:61000"));
    assert_eq!(envelope.local, at("127.0.0.1:53"));
    send(&mut net, &mut log, server, "127.0.0.1:61000", b"tell").unwrap();
    assert_eq!(text(&mut net, client), Some(b"tell".to_vec()));
    // Others than its peer do not reach it.
    let other = bound(&mut net, &mut log, 5, "127.0.0.1:0");
    send(&mut net, &mut log, other, "127.0.0.1:61000", b"not you").unwrap();
    assert_eq!(receive(&mut net, client, 9, false).0, Received::WouldBlock);
    assert!(log.take().is_empty(), "free ports are not open outside");
    // A port that nobody has answers with an error, once, and only to whoever is connected.
    net.connect_datagram(client, Some(at("127.0.0.1:99")), &mut log)
        .unwrap();
    send(&mut net, &mut log, client, "", b"anybody?").unwrap();
    assert_eq!(net.readiness(client), ready::OUT | ready::ERR);
    assert_eq!(receive(&mut net, client, 9, false).0, Received::Refused);
    assert_eq!(receive(&mut net, client, 9, false).0, Received::WouldBlock);
    net.connect_datagram(client, None, &mut log).unwrap();
    send(&mut net, &mut log, client, "127.0.0.1:99", b"anybody?").unwrap();
    assert_eq!(receive(&mut net, client, 9, false).0, Received::WouldBlock);
}

#[test]
fn whoever_was_last_heard_under_an_address_is_answered() {
    let (mut net, mut log, server) = serving();
    let inside = bound(&mut net, &mut log, 4, "127.0.0.1:40000");
    log.take();
    net.apply(&datagram(1, PEER, LOCAL, b"outside"), &mut log);
    send(&mut net, &mut log, server, PEER, b"1").unwrap();
    assert!(log.take()[0].starts_with("Datagram { frontend: 5, number: 1, "));
    send(&mut net, &mut log, inside, "127.0.0.1:53", b"inside").unwrap();
    send(&mut net, &mut log, server, PEER, b"2").unwrap();
    assert!(log.take().is_empty());
    assert_eq!(text(&mut net, inside), Some(b"2".to_vec()));
}

#[test]
fn peers_are_shared_out_among_sockets_of_one_port() {
    let (mut net, mut log) = (net(), Log::default());
    let mut sockets = Vec::new();
    for fd in 3..6 {
        let ix = fresh(&mut net, fd, false);
        net.socket_mut(ix).reuse_port = true;
        net.bind_datagram(ix, at("0.0.0.0:53")).unwrap();
        sockets.push(ix);
    }
    let stranger = fresh(&mut net, 6, false);
    let taken = net.bind_datagram(stranger, at("127.0.0.1:53"));
    assert_eq!(taken, Err(DatagramError::InUse));
    for round in 0..2u64 {
        for port in 0..300u16 {
            let peer = std::format!("10.0.0.1:{}", 1000 + port);
            let number = round * 300 + u64::from(port) + 1;
            net.apply(
                &datagram(number, &peer, LOCAL, &port.to_le_bytes()),
                &mut log,
            );
        }
    }
    for ix in sockets {
        let mut seen = Vec::new();
        while let Some(bytes) = text(&mut net, ix) {
            seen.push(bytes);
        }
        let (first, second) = seen.split_at(seen.len() / 2);
        assert_eq!(first, second, "a peer has moved to another socket");
        assert!((50..=150).contains(&first.len()), "{}", first.len());
    }
}

#[test]
fn the_best_fitting_socket_gets_a_datagram() {
    let (mut net, mut log) = (net(), Log::default());
    let four = bound(&mut net, &mut log, 3, "0.0.0.0:53");
    let six = fresh(&mut net, 4, true);
    assert_eq!(
        net.bind_datagram(six, at("[::]:53")),
        Err(DatagramError::InUse),
        "it takes version 4 too"
    );
    net.socket_mut(six).v6_only = true;
    net.bind_datagram(six, at("[::]:53")).unwrap();
    let narrow = fresh(&mut net, 5, false);
    for ix in [four, narrow] {
        net.socket_mut(ix).reuse_address = true;
    }
    net.bind_datagram(narrow, at("127.0.0.2:53")).unwrap();
    let of_peer = fresh(&mut net, 6, false);
    net.socket_mut(of_peer).reuse_address = true;
    net.bind_datagram(of_peer, at("0.0.0.0:53")).unwrap();
    net.publish_ports(&mut log);
    log.take();
    net.connect_datagram(of_peer, Some(at("10.0.0.9:7")), &mut log)
        .unwrap();
    assert_eq!(log.take(), ["Unlisten { listener: 4 }"]);
    for (number, peer, local, who) in [
        (1, "10.0.0.1:5", "127.0.0.2:53", narrow),
        (2, "10.0.0.1:5", "10.0.0.7:53", four),
        (3, "10.0.0.9:7", "10.0.0.7:53", of_peer),
        (4, "[2001:db8::1]:5", "[2001:db8::2]:53", six),
    ] {
        net.apply(&datagram(number, peer, local, b"x"), &mut log);
        for ix in [four, six, narrow, of_peer] {
            assert_eq!(text(&mut net, ix).is_some(), ix == who, "datagram {number}");
        }
    }
    net.connect_datagram(of_peer, None, &mut log).unwrap();
    net.publish_ports(&mut log);
    assert!(log.take()[0].starts_with("Listen { listener: 5, "));
}

#[test]
fn a_socket_for_both_versions_shows_one_address_per_peer() {
    let (mut net, mut log) = (net(), Log::default());
    let ix = bound(&mut net, &mut log, 3, "[::]:53");
    net.apply(&datagram(1, "10.0.0.1:5", "10.0.0.2:53", b"x"), &mut log);
    log.take();
    assert_eq!(net.next_datagram(ix).unwrap().peer, at("10.0.0.1:5"));
    send(&mut net, &mut log, ix, "[::ffff:10.0.0.1]:5", b"y").unwrap();
    let said = log.take();
    assert!(said[0].contains("frontend: 5") && said[0].contains("peer: 10.0.0.1:5"));
}

#[test]
fn shutting_down_wakes_readers_even_without_a_peer() {
    let (mut net, mut log, ix) = serving();
    log.woken.clear();
    assert!(!net.shutdown(ix, true, false, &mut log));
    assert!(log.woken.contains(&WaitOn::Readable(ix)));
    assert_eq!(receive(&mut net, ix, 9, false).0, Received::End);
    assert_eq!(net.readiness(ix), ready::OUT | ready::IN | ready::RDHUP);
    net.connect_datagram(ix, Some(at("10.0.0.1:5")), &mut log)
        .unwrap();
    assert!(net.shutdown(ix, false, true, &mut log));
    assert_eq!(
        send(&mut net, &mut log, ix, "", b"x"),
        Err(DatagramError::Shut)
    );
}

#[test]
fn ports_of_closed_sockets_are_free_again() {
    let (mut net, mut log) = (net(), Log::default());
    // 1024 apart: all in one bucket.
    let ports = ["0.0.0.0:1053", "0.0.0.0:2077", "0.0.0.0:3101"];
    for (fd, port) in (3..).zip(ports) {
        bound(&mut net, &mut log, fd, port);
    }
    for gone in [4, 3, 5] {
        net.clear_object(0, gone, &mut log);
        bound(&mut net, &mut log, gone, ports[gone as usize - 3]);
    }
    let waiting = datagram(1, PEER, "127.0.0.1:2077", b"unread");
    net.apply(&waiting, &mut log);
    net.clear_process(0, &mut log);
    let again = bound(&mut net, &mut log, 3, ports[1]);
    assert_eq!(receive(&mut net, again, 9, false).0, Received::WouldBlock);
}

#[test]
fn a_socket_that_asks_others_is_not_open_outside() {
    let (mut net, mut log) = (net(), Log::default());
    let ix = fresh(&mut net, 3, false);
    net.bind_datagram(ix, at("0.0.0.0:5000")).unwrap();
    net.connect_datagram(ix, Some(at("192.0.2.1:53")), &mut log)
        .unwrap();
    net.publish_ports(&mut log);
    send(&mut net, &mut log, ix, "", b"?").unwrap();
    let asked = "Datagram { frontend: 0, number: 1, local: 127.0.0.1:5000, peer: 192.0.2.1:53, \
                 bytes: [63] }";
    assert_eq!(log.take(), [asked]);
    net.apply(
        &datagram(1, "192.0.2.1:53", "127.0.0.1:5000", b"!"),
        &mut log,
    );
    net.apply(
        &datagram(2, "192.0.2.2:53", "127.0.0.1:5000", b"not asked"),
        &mut log,
    );
    assert_eq!(text(&mut net, ix), Some(b"!".to_vec()));
    assert_eq!(text(&mut net, ix), None);
    assert_eq!(log.take(), ["Lost { total: 1 }"]);
    // Whoever leads then asks the next time, not whoever had the answer.
    send(&mut net, &mut log, ix, "", b"?").unwrap();
    assert!(log.take()[0].starts_with("Datagram { frontend: 0, number: 2, "));
    let closed = fresh(&mut net, 4, false);
    net.bind_datagram(closed, at("0.0.0.0:5001")).unwrap();
    net.clear_object(0, 4, &mut log);
    net.publish_ports(&mut log);
    assert!(log.take().is_empty());
}

#[test]
fn loopback_is_outside_if_that_is_wanted_and_nobody_has_the_port() {
    let (mut net, mut log, server) = serving();
    let ix = bound(&mut net, &mut log, 4, "0.0.0.0:0");
    log.take();
    for (to, inside) in [("127.0.0.1:53", true), ("127.0.0.1:54", false)] {
        let way = Way {
            to: Some(at(to)),
            source: None,
            loopback_is_outside: true,
        };
        let sent = net.send_datagram(ix, &way, 1, &mut log, |room| room[0] = 7);
        assert_eq!(sent, Ok(()));
        assert_eq!(text(&mut net, server).is_some(), inside);
        assert_eq!(log.take().is_empty(), inside);
    }
}
