//! Epoll instances and polls.

use super::*;

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
