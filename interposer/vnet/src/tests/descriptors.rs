//! What descriptors name besides sockets: counters, signal and timer descriptors.

use super::*;

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
