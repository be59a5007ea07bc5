//! Listeners and connections of clients.

use super::*;

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
