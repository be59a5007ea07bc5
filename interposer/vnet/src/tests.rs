#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use crate::{
    CounterKind, EpollError, Net, Object, ReadOutcome, SocketIx, WaitOn, World, WriteOutcome, ready,
};
use brolga_tape::entry::{CloseHow, Event};
use brolga_tape::record::{Record, decode, encode};
use brolga_tape::{CONSUMED_REPORT_BYTES, ConnId, OUTPUT_WINDOW_BYTES};
use std::boxed::Box;
use std::vec::Vec;

const EDGE: u32 = 1 << 31;
const ONESHOT: u32 = 1 << 30;
/// What reading a connection tells whose other end is gone.
pub(crate) const RESET: ReadOutcome = ReadOutcome::Failed(crate::errno::RESET);

/// A zeroed Net, as the interposer has it; its pages are touched only when used.
pub(crate) fn net() -> Box<Net> {
    let layout = std::alloc::Layout::new::<Net>();
    // SAFETY: all-zero bytes are a valid empty Net: integers, false, None niches aside, which
    // `make_socket` writes before use; Box owns memory of the right layout.
    unsafe { Box::from_raw(std::alloc::alloc_zeroed(layout).cast()) }
}

/// Records what the sockets do to the outside.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) woken: Vec<WaitOn>,
    /// How many threads each wake finds.
    waiting: usize,
    records: Vec<u8>,
    alarms_gone: Vec<u16>,
}

impl World for Log {
    fn wake(&mut self, on: WaitOn, _count: usize) -> usize {
        self.woken.push(on);
        self.waiting
    }

    fn emit(&mut self, record: &Record<'_>) {
        encode(record, |piece| self.records.extend_from_slice(piece));
    }

    fn alarm_gone(&mut self, alarm: u16) {
        self.alarms_gone.push(alarm);
    }
}

impl Log {
    pub(crate) fn take(&mut self) -> Vec<std::string::String> {
        let bytes = std::mem::take(&mut self.records);
        let mut rest = &bytes[..];
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let (record, used) = decode(rest).unwrap();
            seen.push(std::format!("{record:?}"));
            rest = &rest[used..];
        }
        seen
    }
}

const CONN: ConnId = ConnId {
    frontend: 5,
    counter: 1,
};

fn open(conn: ConnId) -> Event<'static> {
    Event::Open {
        conn,
        listener: 1,
        peer: "127.0.0.1:40000".parse().unwrap(),
        local: "127.0.0.2:7000".parse().unwrap(),
    }
}

fn data(offset: u64, bytes: &[u8]) -> Event<'_> {
    Event::Data {
        conn: CONN,
        offset,
        bytes,
    }
}

/// A net with a listener (socket, descriptor 3 of process 0) and a world.
fn listening() -> (Box<Net>, Log, SocketIx) {
    let (mut net, mut log) = (net(), Log::default());
    let on = net.make_socket(false).unwrap();
    assert!(net.set_object(0, 3, Object::Socket(on)));
    assert!(net.bind(on, "0.0.0.0:7000".parse().unwrap()));
    assert!(net.listen(on, &mut log));
    (net, log, on)
}

/// The same with one accepted connection, descriptor 4.
fn connected() -> (Box<Net>, Log, SocketIx) {
    let (mut net, mut log, on) = listening();
    net.apply(&open(CONN), &mut log);
    assert_eq!(net.readiness(on), ready::IN);
    let ix = net.accept(on).unwrap();
    assert!(net.set_object(0, 4, Object::Socket(ix)));
    assert_eq!(net.readiness(on), 0);
    log.take();
    log.woken.clear();
    (net, log, ix)
}

pub(crate) fn read(
    net: &mut Net,
    log: &mut Log,
    ix: SocketIx,
    max: usize,
) -> (ReadOutcome, Vec<u8>) {
    let mut got = Vec::new();
    let outcome = net.read(ix, max, false, log, |piece| got.extend_from_slice(piece));
    (outcome, got)
}

#[test]
fn listening_is_announced_and_withdrawn() {
    let (mut net, mut log, _) = listening();
    assert_eq!(
        log.take(),
        ["Listen { listener: 1, address: 0.0.0.0:7000, transport: Stream, chosen: false }"]
    );
    net.apply(&open(CONN), &mut log);
    net.clear_object(0, 3, &mut log);
    let said = log.take();
    assert_eq!(said.len(), 2);
    assert!(
        said[0].contains("Closed") && said[0].contains("reset: true"),
        "{}",
        said[0]
    );
    assert_eq!(said[1], "Unlisten { listener: 1 }");
    net.apply(&open(ConnId { counter: 2, ..CONN }), &mut log);
    assert!(
        log.take()[0].contains("reset: true"),
        "nobody listens any more"
    );
}

#[test]
fn clients_are_shared_out_among_listeners_of_one_address() {
    let (mut net, mut log) = (net(), Log::default());
    let address = "0.0.0.0:7000".parse().unwrap();
    let mut listeners = [0; 3];
    for (on, fd) in listeners.iter_mut().zip(3..) {
        *on = net.make_socket(false).unwrap();
        assert!(net.set_object(0, fd, Object::Socket(*on)));
        net.socket_mut(*on).reuse_port = true;
        assert!(!net.port_taken(*on, address));
        assert!(net.bind(*on, address));
        assert!(net.listen(*on, &mut log));
    }
    let stranger = net.make_socket(false).unwrap();
    assert!(net.port_taken(stranger, address));
    for counter in 1..=300u16 {
        let conn = ConnId {
            counter: counter.into(),
            ..CONN
        };
        net.apply(
            &Event::Open {
                conn,
                listener: 1,
                peer: ([10, 0, 0, 1], 1000 + counter).into(),
                local: address,
            },
            &mut log,
        );
    }
    let mut counts = [0; 3];
    for (on, count) in listeners.iter().zip(&mut counts) {
        while net.accept(*on).is_some() {
            *count += 1;
        }
    }
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
    assert_eq!(counts.iter().sum::<i32>(), 300);
}

#[test]
fn resent_input_is_taken_once_and_gaps_are_left_for_a_resend() {
    let (mut net, mut log, ix) = connected();
    net.apply(&data(0, b"hello "), &mut log);
    net.apply(&data(12, b"lost"), &mut log);
    net.apply(&data(0, b"hello wo"), &mut log);
    net.apply(&open(CONN), &mut log);
    net.apply(&data(3, b"lo world"), &mut log);
    assert_eq!(
        read(&mut net, &mut log, ix, 5),
        (ReadOutcome::Bytes(5), b"hello".to_vec())
    );
    assert_eq!(
        read(&mut net, &mut log, ix, 99),
        (ReadOutcome::Bytes(6), b" world".to_vec())
    );
    assert_eq!(read(&mut net, &mut log, ix, 99).0, ReadOutcome::WouldBlock);
    let fin = |offset| Event::Close {
        conn: CONN,
        offset,
        how: CloseHow::Fin,
    };
    net.apply(&fin(12), &mut log);
    assert_eq!(read(&mut net, &mut log, ix, 99).0, ReadOutcome::WouldBlock);
    net.apply(&fin(11), &mut log);
    assert_eq!(read(&mut net, &mut log, ix, 99).0, ReadOutcome::End);
    assert_eq!(net.readiness(ix), ready::IN | ready::OUT | ready::RDHUP);
}

#[test]
fn large_input_passes_through_chunks_unchanged_and_is_reported_as_consumed() {
    let (mut net, mut log, ix) = connected();
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at * 7 % 251) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    let mut step = 1;
    while got.len() < bytes.len() {
        let now = (step * 977 % 9000).min(bytes.len() - sent);
        net.apply(&data(sent as u64, &bytes[sent..sent + now]), &mut log);
        sent += now;
        step += 1;
        let (_, piece) = read(&mut net, &mut log, ix, step * 613 % 8000);
        got.extend(piece);
    }
    assert_eq!(got, bytes);
    let reports = log.take();
    assert_eq!(
        reports.len() as u64,
        200_000 / (CONSUMED_REPORT_BYTES + 4000)
    );
}

#[test]
fn output_stops_at_the_window_until_credit_comes() {
    let (mut net, mut log, ix) = connected();
    let window = OUTPUT_WINDOW_BYTES as usize;
    assert_eq!(net.write_room(ix, usize::MAX), WriteOutcome::Room(window));
    net.write(ix, &std::vec![1; window], &mut log);
    assert_eq!(net.write_room(ix, 1), WriteOutcome::WouldBlock);
    assert_eq!(net.readiness(ix) & ready::OUT, 0);
    net.apply(
        &Event::Credit {
            conn: CONN,
            upto: 100,
        },
        &mut log,
    );
    assert!(log.woken.contains(&WaitOn::Writable(ix)));
    assert_eq!(net.write_room(ix, 1000), WriteOutcome::Room(100));
    net.apply(
        &Event::Credit {
            conn: CONN,
            upto: 50,
        },
        &mut log,
    );
    net.apply(
        &Event::Credit {
            conn: CONN,
            upto: u64::MAX,
        },
        &mut log,
    );
    assert_eq!(net.write_room(ix, 1000), WriteOutcome::Room(100));
}

#[test]
fn a_reset_is_reported_once_after_what_came_before_and_closing_ends_the_connection() {
    let (mut net, mut log, ix) = connected();
    net.apply(&data(0, b"unread"), &mut log);
    net.apply(
        &Event::Close {
            conn: CONN,
            offset: 0,
            how: CloseHow::Reset,
        },
        &mut log,
    );
    let all = ready::IN | ready::OUT | ready::ERR | ready::HUP | ready::RDHUP;
    assert_eq!(net.readiness(ix), all);
    let before = (ReadOutcome::Bytes(6), b"unread".to_vec());
    assert_eq!(read(&mut net, &mut log, ix, 9), before);
    assert_eq!(read(&mut net, &mut log, ix, 9).0, RESET);
    assert_eq!(read(&mut net, &mut log, ix, 9).0, ReadOutcome::End);
    assert_eq!(net.write_room(ix, 1), WriteOutcome::Broken);
    net.clear_object(0, 4, &mut log);
    assert!(log.take()[0].contains("Closed"));
    net.apply(&data(6, b"late"), &mut log);
    assert_eq!(net.object(0, 4), None);
}

#[test]
fn a_duplicate_descriptor_keeps_the_connection() {
    let (mut net, mut log, ix) = connected();
    assert!(net.set_object(0, 9, Object::Socket(ix)));
    net.copy_descriptors(0, 1);
    for (process, fd) in [(0, 4), (1, 4), (0, 9)] {
        net.clear_object(process, fd, &mut log);
        assert!(log.take().is_empty());
    }
    net.clear_process(1, &mut log);
    assert!(log.take()[0].contains("Closed"));
}

#[test]
fn a_new_frontend_of_a_node_resets_the_connections_of_its_former_one() {
    let (mut net, mut log, ix) = connected();
    let up = |frontend| Event::FrontendUp { node: 2, frontend };
    net.apply(&up(5), &mut log);
    assert_eq!(net.readiness(ix) & ready::ERR, 0);
    net.apply(&up(6), &mut log);
    assert_ne!(net.readiness(ix) & ready::ERR, 0);
}

fn collect(net: &mut Net, epoll: u32, max: usize) -> Vec<(u32, u64)> {
    let mut got = Vec::new();
    net.epoll_collect(epoll, max, |events, data| got.push((events, data)));
    got
}

#[test]
fn level_edge_and_one_shot_items_behave_as_the_kernel_has_it() {
    let (mut net, mut log, ix) = connected();
    let epolls: Vec<_> = (0..3)
        .map(|at| {
            let epoll = net.make_epoll().unwrap();
            assert!(net.set_object(0, 20 + at, Object::Epoll(epoll)));
            epoll
        })
        .collect();
    let kinds = [ready::IN, ready::IN | EDGE, ready::IN | ONESHOT];
    for (epoll, events) in epolls.iter().zip(kinds) {
        net.epoll_add(*epoll, ix, 4, events, 77, &mut log).unwrap();
        let again = net.epoll_add(*epoll, ix, 4, events, 77, &mut log);
        assert_eq!(again, Err(EpollError::Exists));
        assert_eq!(collect(&mut net, *epoll, 9), []);
    }
    net.apply(&data(0, b"ab"), &mut log);
    let one = [(ready::IN, 77)];
    for epoll in &epolls {
        assert!(log.woken.contains(&WaitOn::Epoll(*epoll)));
        assert_eq!(collect(&mut net, *epoll, 9), one);
    }
    // Still unread: only the level-triggered item says so again.
    assert_eq!(collect(&mut net, epolls[0], 9), one);
    assert_eq!(collect(&mut net, epolls[1], 9), []);
    assert_eq!(collect(&mut net, epolls[2], 9), []);
    net.apply(&data(2, b"cd"), &mut log);
    assert_eq!(
        collect(&mut net, epolls[1], 9),
        one,
        "more input is a new edge"
    );
    assert_eq!(
        collect(&mut net, epolls[2], 9),
        [],
        "a one-shot item waits to be armed"
    );
    net.epoll_modify(epolls[2], ix, 4, ready::IN | ONESHOT, 78, &mut log)
        .unwrap();
    assert_eq!(collect(&mut net, epolls[2], 9), [(ready::IN, 78)]);
    read(&mut net, &mut log, ix, 9);
    assert_eq!(collect(&mut net, epolls[0], 9), [], "read: no longer ready");
    net.epoll_delete(epolls[0], ix, 4).unwrap();
    assert_eq!(net.epoll_delete(epolls[0], ix, 4), Err(EpollError::Missing));
    net.apply(&data(4, b"e"), &mut log);
    assert_eq!(collect(&mut net, epolls[0], 9), []);
}

#[test]
fn ready_items_take_turns_when_there_is_not_room_for_all() {
    let (mut net, mut log, on) = listening();
    let epoll = net.make_epoll().unwrap();
    assert!(net.set_object(0, 20, Object::Epoll(epoll)));
    for counter in 1..=3 {
        let conn = ConnId { counter, ..CONN };
        net.apply(&open(conn), &mut log);
        let ix = net.accept(on).unwrap();
        assert!(net.set_object(0, 30 + counter as i32, Object::Socket(ix)));
        net.epoll_add(epoll, ix, 30, ready::IN, counter, &mut log)
            .unwrap();
        net.apply(
            &Event::Data {
                conn,
                offset: 0,
                bytes: b"x",
            },
            &mut log,
        );
    }
    let order: Vec<u64> = (0..3)
        .flat_map(|_| collect(&mut net, epoll, 2))
        .map(|(_, data)| data)
        .collect();
    assert_eq!(order, [1, 2, 3, 1, 2, 3]);
    net.clear_object(0, 32, &mut log);
    let left: Vec<u64> = collect(&mut net, epoll, 9)
        .iter()
        .map(|(_, data)| *data)
        .collect();
    assert_eq!(left, [1, 3], "a closed connection is watched no more");
}

#[test]
fn thousands_of_connections_come_and_go_and_each_is_found() {
    let (mut net, mut log, on) = listening();
    let mut alive: Vec<(ConnId, SocketIx)> = Vec::new();
    let mut random = 0x1234_5678_u64;
    for counter in 1..=20_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let conn = ConnId { counter, ..CONN };
        net.apply(&open(conn), &mut log);
        let ix = net.accept(on).unwrap();
        net.retain_socket(ix);
        alive.push((conn, ix));
        if random >> 62 != 0 && alive.len() > 500 {
            let (_, ix) = alive.swap_remove((random >> 20) as usize % alive.len());
            net.release_socket(ix, &mut log);
        }
    }
    log.take();
    assert!(alive.len() > 1000);
    for (conn, ix) in alive {
        net.apply(
            &Event::Data {
                conn,
                offset: 0,
                bytes: &conn.counter.to_le_bytes(),
            },
            &mut log,
        );
        let (_, got) = read(&mut net, &mut log, ix, 8);
        assert_eq!(got, conn.counter.to_le_bytes());
    }
}

#[test]
fn counters_wake_and_are_watched_like_sockets() {
    let (mut net, mut log) = (net(), Log::default());
    let kind = CounterKind::Event { semaphore: true };
    let ix = net.make_counter(kind, 0).unwrap();
    assert!(net.set_object(0, 5, Object::Socket(ix)));
    let epoll = net.make_epoll().unwrap();
    net.retain_epoll(epoll);
    net.epoll_add(epoll, ix, 5, ready::IN, 77, &mut log)
        .unwrap();
    assert_eq!(net.readiness(ix), ready::OUT);
    assert_eq!(net.counter_take(ix, &mut log), None);
    assert!(net.counter_add(ix, 2, &mut log));
    assert!(log.woken.contains(&WaitOn::Readable(ix)));
    assert_eq!(
        net.epoll_collect(epoll, 9, |_, data| assert_eq!(data, 77)),
        1
    );
    assert_eq!(net.counter_take(ix, &mut log), Some(1));
    assert_eq!(net.counter_take(ix, &mut log), Some(1));
    assert_eq!(net.counter_take(ix, &mut log), None);
    assert_eq!(net.epoll_collect(epoll, 9, |_, _| {}), 0);
    assert!(net.counter_add(ix, u64::MAX - 1, &mut log));
    assert!(!net.counter_add(ix, 1, &mut log));
    assert_eq!(net.readiness(ix), ready::IN);
}

#[test]
fn a_signal_descriptor_shows_its_own_processs_signals_until_it_is_closed() {
    let (mut net, mut log) = (net(), Log::default());
    let kind = CounterKind::Signals {
        process: 3,
        mask: 0b100,
    };
    let ix = net.make_counter(kind, 0).unwrap();
    assert!(net.set_object(3, 5, Object::Socket(ix)));
    net.refresh_signal_files(2, 0b100, &mut log);
    net.refresh_signal_files(3, 0b011, &mut log);
    assert_eq!(net.readiness(ix), 0);
    net.refresh_signal_files(3, 0b110, &mut log);
    assert_eq!(net.readiness(ix), ready::IN);
    net.refresh_signal_files(3, 0, &mut log);
    assert_eq!(net.readiness(ix), 0);
    net.clear_object(3, 5, &mut log);
    let other = net
        .make_counter(CounterKind::Event { semaphore: false }, 0)
        .unwrap();
    assert_eq!(other, ix);
    net.refresh_signal_files(3, 0b100, &mut log);
    assert_eq!(net.counter_take(other, &mut log), None);
}

#[test]
fn a_closed_timer_descriptor_gives_its_alarm_back() {
    let (mut net, mut log) = (net(), Log::default());
    let kind = CounterKind::Timer { alarm: 9, clock: 1 };
    let ix = net.make_counter(kind, 0).unwrap();
    assert!(net.set_object(0, 5, Object::Socket(ix)));
    assert!(net.set_object(0, 6, Object::Socket(ix)));
    net.clear_object(0, 5, &mut log);
    assert!(log.alarms_gone.is_empty());
    net.clear_object(0, 6, &mut log);
    assert_eq!(log.alarms_gone, [9]);
}

#[test]
fn an_instance_in_another_is_ready_when_it_has_something_to_collect() {
    let (mut net, mut log, ix) = connected();
    let [inner, outer] = [20, 21].map(|fd| {
        let epoll = net.make_epoll().unwrap();
        assert!(net.set_object(0, fd, Object::Epoll(epoll)));
        epoll
    });
    net.epoll_add(inner, ix, 4, ready::IN, 1, &mut log).unwrap();
    let stand_in = net.stand_in(inner).unwrap();
    assert_eq!(net.stand_in(inner), Some(stand_in));
    net.epoll_add(outer, stand_in, 20, ready::IN | EDGE, 2, &mut log)
        .unwrap();
    assert_eq!(collect(&mut net, outer, 9), []);
    net.apply(&data(0, b"a"), &mut log);
    assert!(log.woken.contains(&WaitOn::Epoll(outer)));
    assert_eq!(collect(&mut net, outer, 9), [(ready::IN, 2)]);
    assert_eq!(collect(&mut net, outer, 9), [], "an edge");
    net.apply(&data(1, b"b"), &mut log);
    assert_eq!(collect(&mut net, outer, 9), [(ready::IN, 2)]);
    net.epoll_modify(outer, stand_in, 20, ready::IN, 3, &mut log)
        .unwrap();
    assert!(net.epoll_ready(inner) && net.epoll_ready(outer));
    read(&mut net, &mut log, ix, 9);
    assert!(!net.epoll_ready(inner) && !net.epoll_ready(outer));
    assert_eq!(collect(&mut net, outer, 9), [], "read: no longer ready");
    net.apply(&data(2, b"c"), &mut log);
    net.clear_object(0, 20, &mut log);
    assert_eq!(collect(&mut net, outer, 9), [], "closed: watched no more");
}

#[test]
fn of_exclusive_items_only_so_many_are_told_as_it_takes_to_wake_somebody() {
    const EXCLUSIVE: u32 = 1 << 28;
    let (mut net, mut log, ix) = connected();
    let epolls = [20, 21].map(|fd| {
        let epoll = net.make_epoll().unwrap();
        assert!(net.set_object(0, fd, Object::Epoll(epoll)));
        let events = ready::IN | EXCLUSIVE;
        net.epoll_add(epoll, ix, 4, events, 7, &mut log).unwrap();
        let again = net.epoll_modify(epoll, ix, 4, ready::IN, 7, &mut log);
        assert_eq!(again, Err(EpollError::Exclusive));
        let once = net.epoll_add(epoll, ix, 5, events | ONESHOT, 7, &mut log);
        assert_eq!(once, Err(EpollError::Exclusive));
        epoll
    });
    let told = |net: &mut Net| epolls.map(|epoll| collect(net, epoll, 9).len());
    net.apply(&data(0, b"a"), &mut log);
    assert_eq!(told(&mut net), [1, 1], "nobody waits");
    read(&mut net, &mut log, ix, 9);
    assert_eq!(told(&mut net), [0, 0]);
    log.waiting = 1;
    net.apply(&data(1, b"b"), &mut log);
    assert_eq!(told(&mut net).iter().sum::<usize>(), 1);
}

#[test]
fn what_a_descriptor_names_travels_with_it() {
    let (mut net, mut log, ix) = connected();
    let epoll = net.make_epoll().unwrap();
    assert!(net.set_object(0, 20, Object::Epoll(epoll)));
    assert!(net.set_object(0, 21, Object::Stream));
    let words = [4, 20, 21, 22].map(|fd| net.send_object(0, fd));
    assert_eq!(words[3], 0);
    for fd in [4, 20, 21] {
        net.clear_object(0, fd, &mut log);
    }
    assert!(log.take().is_empty(), "the connection is under way");
    for (fd, word) in [7, 8, 9, 10].into_iter().zip(words) {
        assert!(net.name_sent(3, fd, word));
        net.drop_sent(word, &mut log);
    }
    let objects = [7, 8, 9, 10].map(|fd| net.object(3, fd));
    let expected = [Object::Socket(ix), Object::Epoll(epoll), Object::Stream];
    assert_eq!(objects[..3], expected.map(Some));
    assert_eq!(objects[3], None);
    net.clear_object(3, 7, &mut log);
    assert!(log.take()[0].contains("Closed"));
}

#[test]
fn a_poll_is_woken_only_by_what_it_watches() {
    let (mut net, mut log, ix) = connected();
    let listener = 1;
    let polls_woken = |log: &mut Log| {
        let any = |on: &WaitOn| *on == WaitOn::AnySocket;
        std::mem::take(&mut log.woken)
            .iter()
            .filter(|on| any(on))
            .count()
    };
    net.apply(&data(0, b"a"), &mut log);
    assert_eq!(polls_woken(&mut log), 0, "nobody polls");
    net.watch_socket(listener);
    net.apply(&data(1, b"b"), &mut log);
    assert_eq!(polls_woken(&mut log), 0, "another socket");
    net.watch_socket(ix);
    net.apply(&data(2, b"c"), &mut log);
    assert_eq!(polls_woken(&mut log), 1);
    net.apply(&data(3, b"d"), &mut log);
    assert_eq!(polls_woken(&mut log), 0, "who was woken watches anew");
    net.watch_all();
    net.apply(&data(4, b"e"), &mut log);
    assert_eq!(polls_woken(&mut log), 1, "an epoll instance may have it");
    let second = ConnId { counter: 2, ..CONN };
    net.apply(&open(second), &mut log);
    assert_eq!(polls_woken(&mut log), 1, "the listener is still watched");
}
