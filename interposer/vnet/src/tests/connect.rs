//! Connections that the server opens.

use crate::stream::MATE_WINDOW_BYTES;
use crate::tests::{Log, RESET, net, read};
use crate::{
    ConnectOutcome, Net, Object, ReadOutcome, SocketIx, State, WaitOn, WriteOutcome, ready,
};
use brolga_tape::entry::{CloseHow, Event};
use brolga_tape::{ConnId, OUTGOING};
use std::boxed::Box;
use std::vec::Vec;

const GONE: u32 = ready::IN | ready::OUT | ready::RDHUP | ready::HUP;

fn socket(net: &mut Net, fd: i32, v6: bool) -> SocketIx {
    let ix = net.make_socket(v6).unwrap();
    assert!(net.set_object(0, fd, Object::Socket(ix)));
    ix
}

fn listener(net: &mut Net, log: &mut Log, fd: i32, at: &str) -> SocketIx {
    let ix = socket(net, fd, at.starts_with('['));
    assert!(net.bind(ix, at.parse().unwrap()));
    assert!(net.listen(ix, log));
    ix
}

fn connect(net: &mut Net, log: &mut Log, ix: SocketIx, to: &str) -> ConnectOutcome {
    net.connect(ix, to.parse().unwrap(), false, log)
}

/// A net with a listener (descriptor 3) and both ends of a connection to it (4 and 5).
fn linked() -> (Box<Net>, Log, SocketIx, SocketIx) {
    let (mut net, mut log) = (net(), Log::default());
    let on = listener(&mut net, &mut log, 3, "0.0.0.0:7000");
    let one = socket(&mut net, 4, false);
    let outcome = connect(&mut net, &mut log, one, "127.0.0.9:7000");
    assert_eq!(outcome, ConnectOutcome::Connected);
    assert!(log.woken.contains(&WaitOn::Readable(on)));
    let other = net.accept(on).unwrap();
    assert!(net.set_object(0, 5, Object::Socket(other)));
    log.take();
    log.woken.clear();
    (net, log, one, other)
}

fn write(net: &mut Net, log: &mut Log, ix: SocketIx, bytes: &[u8]) {
    assert_eq!(
        net.write_room(ix, bytes.len()),
        WriteOutcome::Room(bytes.len())
    );
    net.write(ix, bytes, log);
}

#[test]
fn a_connection_within_the_tree_carries_bytes_both_ways_and_nobody_outside_hears_of_it() {
    let (mut net, mut log, one, other) = linked();
    let address = |text: &str| Some(text.parse().unwrap());
    assert_eq!(net.socket(one).local(), address("127.0.0.1:32768"));
    assert_eq!(net.socket(one).peer(), address("127.0.0.9:7000"));
    assert_eq!(net.socket(other).local(), net.socket(one).peer());
    assert_eq!(net.socket(other).peer(), net.socket(one).local());
    assert_eq!(net.readiness(other), ready::OUT);
    write(&mut net, &mut log, one, b"hello ");
    write(&mut net, &mut log, one, b"world");
    assert!(log.woken.contains(&WaitOn::Readable(other)));
    assert_eq!(net.readiness(other), ready::IN | ready::OUT);
    let all = (ReadOutcome::Bytes(11), b"hello world".to_vec());
    assert_eq!(read(&mut net, &mut log, other, 99), all);
    assert_eq!(
        read(&mut net, &mut log, other, 99).0,
        ReadOutcome::WouldBlock
    );
    write(&mut net, &mut log, other, b"answer");
    let answer = (ReadOutcome::Bytes(6), b"answer".to_vec());
    assert_eq!(read(&mut net, &mut log, one, 99), answer);
    net.clear_object(0, 4, &mut log);
    net.clear_object(0, 5, &mut log);
    assert!(log.take().is_empty());
}

#[test]
fn writing_waits_for_the_other_end_to_read() {
    let (mut net, mut log, one, other) = linked();
    let window = MATE_WINDOW_BYTES as usize;
    assert_eq!(net.write_room(one, usize::MAX), WriteOutcome::Room(window));
    write(&mut net, &mut log, one, &std::vec![7; window]);
    assert_eq!(net.write_room(one, 1), WriteOutcome::WouldBlock);
    assert_eq!(net.readiness(one), 0);
    log.woken.clear();
    read(&mut net, &mut log, other, 100);
    assert!(log.woken.contains(&WaitOn::Writable(one)));
    assert_eq!(net.write_room(one, 1000), WriteOutcome::Room(100));
    write(&mut net, &mut log, one, &[8; 100]);
    log.woken.clear();
    net.shutdown(other, true, false, &mut log);
    assert!(log.woken.contains(&WaitOn::Writable(one)));
    write(&mut net, &mut log, one, &std::vec![9; window]);
    assert_eq!(read(&mut net, &mut log, other, 9).0, ReadOutcome::End);
    assert!(log.take().is_empty(), "nothing is reported as consumed");
}

#[test]
fn each_direction_ends_by_itself() {
    let (mut net, mut log, one, other) = linked();
    write(&mut net, &mut log, one, b"last");
    assert!(net.shutdown(one, false, true, &mut log));
    assert_eq!(net.write_room(one, 1), WriteOutcome::Broken);
    let last = (ReadOutcome::Bytes(4), b"last".to_vec());
    assert_eq!(read(&mut net, &mut log, other, 9), last);
    assert_eq!(read(&mut net, &mut log, other, 9).0, ReadOutcome::End);
    let half = ready::IN | ready::OUT | ready::RDHUP;
    assert_eq!(net.readiness(other), half);
    write(&mut net, &mut log, other, b"still");
    let still = (ReadOutcome::Bytes(5), b"still".to_vec());
    assert_eq!(read(&mut net, &mut log, one, 9), still);
    assert!(net.shutdown(other, false, true, &mut log));
    assert_eq!((net.readiness(one), net.readiness(other)), (GONE, GONE));
}

#[test]
fn closing_ends_the_stream_and_what_is_written_then_breaks_the_connection() {
    let (mut net, mut log, one, other) = linked();
    write(&mut net, &mut log, one, b"bye");
    net.clear_object(0, 4, &mut log);
    assert!(log.woken.contains(&WaitOn::Readable(other)));
    let bye = (ReadOutcome::Bytes(3), b"bye".to_vec());
    assert_eq!(read(&mut net, &mut log, other, 9), bye);
    assert_eq!(read(&mut net, &mut log, other, 9).0, ReadOutcome::End);
    write(&mut net, &mut log, other, b"to nobody");
    assert_eq!(net.write_room(other, 1), WriteOutcome::Broken);
    assert_eq!(net.readiness(other) & GONE, GONE);
    net.clear_object(0, 5, &mut log);
}

#[test]
fn closing_with_unread_input_or_without_lingering_resets() {
    let (mut net, mut log, one, other) = linked();
    write(&mut net, &mut log, other, b"unread");
    write(&mut net, &mut log, one, b"sent before");
    net.clear_object(0, 4, &mut log);
    assert_ne!(net.readiness(other) & ready::ERR, 0);
    let before = (ReadOutcome::Bytes(11), b"sent before".to_vec());
    assert_eq!(read(&mut net, &mut log, other, 99), before);
    assert_eq!(read(&mut net, &mut log, other, 99).0, RESET);
    assert_eq!(read(&mut net, &mut log, other, 99).0, ReadOutcome::End);

    let (mut net, mut log, one, other) = linked();
    net.socket_mut(one).linger_reset = true;
    net.clear_object(0, 4, &mut log);
    assert_eq!(read(&mut net, &mut log, other, 99).0, RESET);
}

#[test]
fn nobody_listens_on_loopback_or_the_address_is_elsewhere() {
    let (mut net, mut log) = (net(), Log::default());
    listener(&mut net, &mut log, 3, "127.0.0.5:7000");
    listener(&mut net, &mut log, 4, "[::]:7001");
    listener(&mut net, &mut log, 5, "198.51.100.1:7002");
    let mut fd = 10;
    let mut check = |to: &str, expected: ConnectOutcome| {
        fd += 1;
        let ix = socket(&mut net, fd, to.starts_with('['));
        assert_eq!(connect(&mut net, &mut log, ix, to), expected, "{to}");
    };
    check("192.0.2.1:7001", ConnectOutcome::Connected);
    check("192.0.2.1:7000", ConnectOutcome::Refused);
    check("127.0.0.5:7000", ConnectOutcome::Connected);
    check("[::ffff:127.0.0.5]:7000", ConnectOutcome::Connected);
    check("127.0.0.1:7000", ConnectOutcome::Refused);
    check("0.0.0.0:7001", ConnectOutcome::Connected);
    check("[::]:7001", ConnectOutcome::Connected);
    check("[::1]:7001", ConnectOutcome::Connected);
    check("198.51.100.1:7002", ConnectOutcome::Connected);
    check("198.51.100.1:7001", ConnectOutcome::UnderWay);
    check("198.51.100.9:7002", ConnectOutcome::UnderWay);
    check("[::1]:7002", ConnectOutcome::Refused);
}

#[test]
fn a_listener_of_just_this_address_comes_before_one_of_all() {
    let (mut net, mut log) = (net(), Log::default());
    let six = socket(&mut net, 3, true);
    net.socket_mut(six).v6_only = true;
    assert!(net.bind(six, "[::]:7000".parse().unwrap()));
    assert!(net.listen(six, &mut log));
    let four = listener(&mut net, &mut log, 4, "0.0.0.0:7000");
    let just = listener(&mut net, &mut log, 5, "127.0.0.2:7000");
    for (fd, to, on) in [
        (10, "127.0.0.2:7000", just),
        (11, "127.0.0.1:7000", four),
        (12, "[::1]:7000", six),
    ] {
        let ix = socket(&mut net, fd, to.starts_with('['));
        connect(&mut net, &mut log, ix, to);
        let mate = net.accept(on).unwrap();
        assert_eq!(net.socket(mate).peer(), net.socket(ix).local());
    }
    net.clear_object(0, 4, &mut log);
    let ix = socket(&mut net, 13, false);
    let outcome = connect(&mut net, &mut log, ix, "127.0.0.1:7000");
    assert_eq!(outcome, ConnectOutcome::Refused, "only version 6 is left");
    net.socket_mut(six).v6_only = false;
    let outcome = connect(&mut net, &mut log, ix, "127.0.0.1:7000");
    assert_eq!(outcome, ConnectOutcome::Connected);
}

#[test]
fn addresses_that_overlap_are_taken() {
    let (mut net, mut log) = (net(), Log::default());
    let six = listener(&mut net, &mut log, 3, "[::]:7000");
    let four = socket(&mut net, 4, false);
    let taken = |net: &Net, at: &str| net.port_taken(four, at.parse().unwrap());
    for at in ["0.0.0.0:7000", "127.0.0.1:7000"] {
        assert!(taken(&net, at), "{at}");
    }
    assert!(!taken(&net, "0.0.0.0:7001"));
    net.socket_mut(six).v6_only = true;
    assert!(!taken(&net, "0.0.0.0:7000"));
    net.socket_mut(four).reuse_port = true;
    assert!(net.bind(four, "0.0.0.0:7000".parse().unwrap()));
    assert!(net.listen(four, &mut log));
    let other = socket(&mut net, 5, false);
    let at = "127.0.0.1:7000".parse().unwrap();
    assert!(net.port_taken(other, at));
    net.socket_mut(other).reuse_port = true;
    assert!(!net.port_taken(other, at));
}

#[test]
fn a_listener_that_is_shut_down_listens_no_more() {
    let (mut net, mut log) = (net(), Log::default());
    let on = listener(&mut net, &mut log, 3, "0.0.0.0:7000");
    let ix = socket(&mut net, 4, false);
    connect(&mut net, &mut log, ix, "127.0.0.1:7000");
    log.take();
    log.woken.clear();
    assert!(net.shutdown(on, false, true, &mut log));
    assert_eq!(net.socket(on).state(), State::Listening);
    assert!(net.shutdown(on, true, true, &mut log));
    assert_eq!(net.socket(on).state(), State::Fresh);
    assert!(log.woken.contains(&WaitOn::Readable(on)));
    assert_eq!(log.take(), ["Unlisten { listener: 1 }"]);
    assert_eq!(read(&mut net, &mut log, ix, 9).0, RESET);
    assert!(net.listen(on, &mut log));
    assert!(log.take()[0].contains("0.0.0.0:7000"));
}

#[test]
fn a_listener_that_closes_resets_who_was_not_accepted() {
    let (mut net, mut log) = (net(), Log::default());
    listener(&mut net, &mut log, 3, "0.0.0.0:7000");
    let ix = socket(&mut net, 4, false);
    connect(&mut net, &mut log, ix, "127.0.0.1:7000");
    assert!(!net.report_connect(ix));
    net.defer_connect(ix);
    assert!(net.report_connect(ix) && !net.report_connect(ix));
    net.clear_object(0, 3, &mut log);
    assert_eq!(read(&mut net, &mut log, ix, 9).0, RESET);
    let again = connect(&mut net, &mut log, ix, "127.0.0.1:7000");
    assert_eq!(again, ConnectOutcome::NotFresh);
}

#[test]
fn ports_are_given_in_turn_and_come_back() {
    let (mut net, mut log) = (net(), Log::default());
    let on = listener(&mut net, &mut log, 3, "127.0.0.1:32769");
    let mut ports = Vec::new();
    let first = socket(&mut net, 4, false);
    connect(&mut net, &mut log, first, "127.0.0.1:32769");
    for _ in 0..30_000 {
        let ix = socket(&mut net, 5, false);
        let outcome = connect(&mut net, &mut log, ix, "127.0.0.1:32769");
        assert_eq!(outcome, ConnectOutcome::Connected);
        ports.push(net.socket(ix).local().unwrap().port());
        net.clear_object(0, 5, &mut log);
        let mate = net.accept(on).unwrap();
        net.retain_socket(mate);
        net.release_socket(mate, &mut log);
    }
    assert_eq!(ports[0], 32_770, "32768 is held, 32769 is the listener's");
    assert!(!ports.contains(&32_768) && ports.contains(&60_999));
}

fn outgoing(counter: u64) -> ConnId {
    ConnId {
        frontend: OUTGOING,
        counter,
    }
}

fn connected(counter: u64, owner: u64, outcome: Result<&str, u8>) -> Event<'static> {
    Event::Connected {
        conn: outgoing(counter),
        owner,
        outcome: outcome.map(|local| local.parse().unwrap()),
    }
}

/// A net that knows frontends 8 and 9, and a socket (descriptor 4) that connects to the outside.
fn opening() -> (Box<Net>, Log, SocketIx) {
    let (mut net, mut log) = (net(), Log::default());
    for (node, frontend) in [(1, 8), (2, 9)] {
        net.apply(&Event::FrontendUp { node, frontend }, &mut log);
    }
    let ix = socket(&mut net, 4, false);
    let outcome = connect(&mut net, &mut log, ix, "198.51.100.9:5432");
    assert_eq!(outcome, ConnectOutcome::UnderWay);
    let said = log.take();
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("Connect") && said[0].contains("198.51.100.9:5432"));
    (net, log, ix)
}

#[test]
fn a_connection_to_the_outside_waits_for_the_log_and_is_like_any_other_then() {
    let (mut net, mut log, ix) = opening();
    assert_eq!(net.readiness(ix), 0);
    assert_eq!(read(&mut net, &mut log, ix, 9).0, ReadOutcome::WouldBlock);
    assert_eq!(net.write_room(ix, 1), WriteOutcome::WouldBlock);
    let again = connect(&mut net, &mut log, ix, "198.51.100.9:5432");
    assert_eq!(again, ConnectOutcome::Already);
    let early = Event::Data {
        conn: outgoing(1),
        offset: 0,
        bytes: b"early",
    };
    net.apply(&early, &mut log);
    net.apply(&connected(1, 7, Ok("10.0.0.7:1")), &mut log);
    assert_eq!(net.socket(ix).state(), State::Connecting, "7 is unknown");
    net.apply(&connected(1, 8, Ok("10.0.0.8:40000")), &mut log);
    net.apply(&connected(1, 9, Ok("10.0.0.9:40000")), &mut log);
    assert!(log.woken.contains(&WaitOn::Writable(ix)));
    assert_eq!(net.readiness(ix), ready::OUT);
    let address = |text: &str| Some(text.parse().unwrap());
    assert_eq!(net.socket(ix).local(), address("10.0.0.8:40000"));
    assert_eq!(net.socket(ix).peer(), address("198.51.100.9:5432"));
    let data = Event::Data {
        conn: outgoing(1),
        offset: 0,
        bytes: b"hello",
    };
    net.apply(&data, &mut log);
    net.apply(&data, &mut log);
    let hello = (ReadOutcome::Bytes(5), b"hello".to_vec());
    assert_eq!(read(&mut net, &mut log, ix, 9), hello);
    write(&mut net, &mut log, ix, b"select");
    assert!(log.take()[0].contains("Data"));
    net.clear_object(0, 4, &mut log);
    assert!(log.take()[0].contains("Closed"));
}

#[test]
fn a_failure_is_told_once_and_another_try_is_allowed() {
    const TIMED_OUT: u8 = 110;
    let (mut net, mut log, ix) = opening();
    net.apply(&connected(1, 8, Err(TIMED_OUT)), &mut log);
    assert!(log.take()[0].contains("Closed"));
    let all = ready::IN | ready::OUT | ready::ERR | ready::HUP | ready::RDHUP;
    assert_eq!(net.readiness(ix), all);
    assert_eq!(net.socket_mut(ix).take_error(), Some(TIMED_OUT));
    assert_eq!(net.readiness(ix), all & !ready::ERR);
    assert_eq!(net.write_room(ix, 1), WriteOutcome::Broken);
    let again = connect(&mut net, &mut log, ix, "198.51.100.9:5433");
    assert_eq!(again, ConnectOutcome::UnderWay);
    net.apply(&connected(2, 9, Ok("10.0.0.9:1")), &mut log);
    assert_eq!(net.readiness(ix), ready::OUT);
    net.clear_object(0, 4, &mut log);
    assert_eq!(log.take().len(), 2, "asked for and closed");
}

#[test]
fn a_socket_that_is_closed_early_is_answered_in_vain() {
    let (mut net, mut log, _) = opening();
    net.clear_object(0, 4, &mut log);
    let said = log.take();
    assert!(said[0].contains("Closed") && said[0].contains("reset: true"));
    net.apply(&connected(1, 8, Ok("10.0.0.8:1")), &mut log);
    assert!(log.take().is_empty());
}

#[test]
fn outgoing_connections_end_with_the_frontend_that_owns_them() {
    let (mut net, mut log, lost) = opening();
    let kept = socket(&mut net, 5, false);
    let waiting = socket(&mut net, 6, false);
    for ix in [kept, waiting] {
        connect(&mut net, &mut log, ix, "198.51.100.9:5432");
    }
    net.apply(&connected(1, 8, Ok("10.0.0.8:1")), &mut log);
    net.apply(&connected(2, 9, Ok("10.0.0.9:1")), &mut log);
    let up = Event::FrontendUp {
        node: 1,
        frontend: 10,
    };
    net.apply(&up, &mut log);
    assert_eq!(read(&mut net, &mut log, lost, 9).0, RESET);
    assert_eq!(net.readiness(kept), ready::OUT);
    assert_eq!(net.socket(waiting).state(), State::Connecting);
    let close = Event::Close {
        conn: outgoing(2),
        offset: 0,
        how: CloseHow::Reset,
    };
    net.apply(&close, &mut log);
    assert_eq!(read(&mut net, &mut log, kept, 9).0, RESET);
}

#[test]
fn loopback_can_be_declared_to_be_outside() {
    let (mut net, mut log) = (net(), Log::default());
    listener(&mut net, &mut log, 3, "0.0.0.0:7000");
    for (fd, port, expected) in [
        (4, 7000, ConnectOutcome::Connected),
        (5, 7001, ConnectOutcome::UnderWay),
    ] {
        let ix = socket(&mut net, fd, false);
        let to = ([127, 0, 0, 1], port).into();
        assert_eq!(net.connect(ix, to, true, &mut log), expected);
    }
}

#[test]
fn a_listener_that_names_no_port_is_given_one() {
    let (mut net, mut log) = (net(), Log::default());
    let bound = listener(&mut net, &mut log, 3, "127.0.0.1:0");
    let unbound = socket(&mut net, 4, true);
    assert!(net.listen(unbound, &mut log));
    let address = |text: &str| Some(text.parse().unwrap());
    assert_eq!(net.socket(bound).local(), address("127.0.0.1:32768"));
    assert_eq!(net.socket(unbound).local(), address("[::]:32769"));
    assert!(log.take()[1].contains("[::]:32769"));
}

#[test]
fn a_port_that_was_given_out_stays_known_as_such() {
    let (mut net, mut log) = (net(), Log::default());
    let first = socket(&mut net, 3, false);
    assert!(net.listen(first, &mut log));
    listener(&mut net, &mut log, 4, "0.0.0.0:7000");
    net.clear_object(0, 3, &mut log);
    listener(&mut net, &mut log, 5, "0.0.0.0:32768");
    let records = log.take().into_iter();
    let listens = records.filter(|record| record.starts_with("Listen"));
    let chosen: Vec<bool> = listens
        .map(|record| record.contains("chosen: true"))
        .collect();
    assert_eq!(chosen, [true, false, true]);
}
