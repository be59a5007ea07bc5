use super::*;
use std::boxed::Box;

const TERM: u8 = 15;
const USR1: u8 = 10;
const RT: u8 = 34;

fn empty() -> Box<Signals> {
    let process = Process {
        actions: [Action::default(); SIGNAL_MAX as usize],
        pending: Set(0),
    };
    let thread = Thread {
        mask: Set(0),
        pending: Set(0),
        awaited: Set(0),
    };
    let nothing = Queued {
        target: None,
        info: Info::default(),
    };
    Box::new(Signals {
        processes: [process; PROCESSES_MAX],
        threads: [thread; THREADS_MAX],
        queue: [nothing; QUEUE_MAX],
        queued: 0,
    })
}

fn info(signal: u8, value: u64) -> Info {
    Info {
        signal,
        value,
        ..Info::default()
    }
}

fn handle(signals: &mut Signals, signal: u8, flags: u64, mask: Set) {
    let action = Action {
        handler: 0x1000,
        flags,
        mask,
    };
    signals.set_action(0, signal, action, [1].into_iter());
}

#[test]
fn goes_to_the_first_thread_that_does_not_block_it() {
    let mut signals = empty();
    handle(&mut signals, USR1, 0, Set(0));
    signals.set_mask(1, Set::of(USR1));
    let posted = signals.post_to_process(0, info(USR1, 0), &[1, 2, 3].into_iter());
    assert_eq!(posted, Posted::For(2));
    assert!(!signals.due(0, 1));
    assert!(signals.due(0, 2));
    assert_eq!(signals.next(0, 2), Some(info(USR1, 0)));
    assert_eq!(signals.next(0, 2), None);
}

#[test]
fn stays_pending_while_everybody_blocks_it() {
    let mut signals = empty();
    signals.set_mask(1, Set::of(TERM));
    let posted = signals.post_to_process(0, info(TERM, 7), &[1].into_iter());
    assert_eq!(posted, Posted::Pending);
    assert_eq!(signals.pending(0, 1), Set::of(TERM));
    signals.set_mask(1, Set(0));
    assert_eq!(signals.next(0, 1), Some(info(TERM, 7)));
}

#[test]
fn standard_signals_merge_and_real_time_ones_queue_in_order() {
    let mut signals = empty();
    for signal in [USR1, RT] {
        handle(&mut signals, signal, 0, Set(0));
        for value in 1..=3 {
            signals.post_to_thread(0, 1, info(signal, value));
        }
    }
    let taken: std::vec::Vec<_> = core::iter::from_fn(|| signals.next(0, 1)).collect();
    let wanted = [(USR1, 1), (RT, 1), (RT, 2), (RT, 3)].map(|(signal, value)| info(signal, value));
    assert_eq!(taken, wanted);
}

#[test]
fn ignored_signals_are_dropped_unless_they_are_blocked() {
    let mut signals = empty();
    assert_eq!(
        signals.post_to_process(0, info(CHILD, 0), &[1].into_iter()),
        Posted::Dropped
    );
    signals.set_mask(1, Set::of(CHILD));
    assert_eq!(
        signals.post_to_process(0, info(CHILD, 0), &[1].into_iter()),
        Posted::Pending
    );
    let ignore = Action {
        handler: IGNORE,
        ..Action::default()
    };
    signals.set_action(0, CHILD, ignore, [1].into_iter());
    assert_eq!(signals.pending(0, 1), Set(0));
}

#[test]
fn somebody_who_waits_for_it_gets_it_before_anybody_else() {
    let mut signals = empty();
    signals.set_mask(2, Set::of(CHILD));
    signals.set_awaited(2, Set::of(CHILD));
    let posted = signals.post_to_process(0, info(CHILD, 5), &[1, 2].into_iter());
    assert_eq!(posted, Posted::For(2));
    assert_eq!(
        signals.take_from(0, 2, Set::of(CHILD)),
        Some(info(CHILD, 5))
    );
}

#[test]
fn a_handler_blocks_its_own_signal_and_its_mask() {
    let mut signals = empty();
    handle(&mut signals, USR1, 0, Set::of(TERM));
    signals.set_mask(1, Set::of(CHILD));
    let (action, before) = signals.enter_handler(0, 1, USR1);
    assert_eq!(action.handler, 0x1000);
    assert_eq!(before, Set::of(CHILD));
    let during = Set::of(CHILD).with(Set::of(TERM)).with(Set::of(USR1));
    assert_eq!(signals.mask(1), during);
}

#[test]
fn a_one_shot_handler_that_defers_nothing_leaves_the_default() {
    let mut signals = empty();
    handle(&mut signals, USR1, 0xC000_0000, Set(0));
    signals.enter_handler(0, 1, USR1);
    assert_eq!(signals.mask(1), Set(0));
    assert_eq!(signals.action(0, USR1).handler, DEFAULT);
}

#[test]
fn kill_and_stop_are_never_blocked() {
    let mut signals = empty();
    signals.set_mask(1, Set(u64::MAX));
    assert!(!signals.mask(1).has(KILL));
    assert!(!signals.mask(1).has(STOP));
    assert!(signals.mask(1).has(TERM));
}

#[test]
fn children_and_threads_inherit_and_programs_keep_what_is_ignored() {
    let mut signals = empty();
    handle(&mut signals, USR1, 0, Set(0));
    let ignore = Action {
        handler: IGNORE,
        ..Action::default()
    };
    signals.set_action(0, TERM, ignore, [1].into_iter());
    signals.set_mask(1, Set::of(CHILD));
    signals.post_to_process(0, info(CHILD, 0), &[1].into_iter());
    signals.process_made(0, 4);
    signals.thread_made(1, 9);
    assert_eq!(signals.mask(9), Set::of(CHILD));
    assert_eq!(signals.pending(4, 9), Set(0));
    assert_eq!(signals.action(4, USR1).handler, 0x1000);
    signals.program_changed(4);
    assert_eq!(signals.action(4, USR1).handler, DEFAULT);
    assert_eq!(signals.action(4, TERM).handler, IGNORE);
}
