#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;
use std::boxed::Box;
use std::vec::Vec;

const LOCK: Key = Key {
    space: 1,
    id: 0x1000,
};
const OTHER: Key = Key {
    space: 1,
    id: 0x2000,
};

/// A scheduler in zeroed memory, as the interposer has it.
fn scheduler() -> Box<Scheduler> {
    let mut scheduler = Box::new(Scheduler {
        clock: 0,
        limit: 0,
        budget_end: 0,
        quantum_end: 0,
        quantum: 0,
        schedule_hash: 0,
        noted: 0,
        time_ns: 0,
        time_clock: 0,
        first_time_ns: 0,
        slot: 0,
        last: 0,
        current: 0,
        run_head: 0,
        run_tail: 0,
        free_head: 0,
        fired_head: 0,
        fired_tail: 0,
        used: 0,
        runnable: 0,
        reported: false,
        attentive: false,
        waits: Waits::default(),
        timers: Timers::default(),
        soft: SoftBarriers::default(),
        threads: Threads::default(),
    });
    assert_eq!(scheduler.start(100), 1);
    scheduler
}

pub(crate) fn admitted(clocks: u32) -> Box<Scheduler> {
    let mut s = scheduler();
    assert!(s.admission_due());
    s.admit(1, 1_000, clocks);
    s
}

#[test]
fn the_first_thread_has_no_budget_before_the_first_entry() {
    let mut s = scheduler();
    assert!(s.budget_used());
    assert!(!s.take_report());
    s.admit(1, 5_000, 10);
    assert!(!s.admission_due());
    assert_eq!((s.slot(), s.now_ns(), s.first_time_ns()), (1, 5_000, 5_000));
}

#[test]
fn the_budget_ends_after_exactly_its_clocks() {
    let mut s = admitted(10);
    for _ in 0..9 {
        assert!(!s.tick(1));
    }
    assert!(!s.budget_used());
    assert!(s.tick(1));
    assert!(s.budget_used());
    assert!(s.take_report());
    assert!(!s.take_report());
}

#[test]
fn waiters_are_woken_in_the_order_they_came() {
    let mut s = admitted(1000);
    let threads: Vec<_> = (0..5).map(|_| s.spawn(0).unwrap()).collect();
    s.block(OTHER, None);
    for ix in &threads {
        assert_eq!(s.pick(), Pick::Run(*ix));
        s.block(LOCK, None);
    }
    assert_eq!(s.pick(), Pick::Idle);
    assert!(s.admission_due());
    assert_eq!(s.wake(LOCK, 2), 2);
    assert_eq!(s.wake(LOCK, usize::MAX), 3);
    assert_eq!(s.wake(LOCK, 1), 0);
    for ix in &threads {
        assert_eq!(s.pick(), Pick::Run(*ix));
        assert_eq!(s.wakeup(), Wakeup::Signalled);
        s.exit();
    }
    assert_eq!(s.pick(), Pick::Idle);
    assert_eq!(s.wake(OTHER, 9), 1);
}

#[test]
fn timers_expire_by_deadline_then_by_order_of_blocking() {
    let mut s = admitted(1000);
    let deadlines = [9_000, 5_000, 7_000, 5_000, 20_000];
    let threads: Vec<_> = deadlines.iter().map(|_| s.spawn(0).unwrap()).collect();
    s.block(OTHER, None);
    for (ix, deadline) in threads.iter().zip(deadlines) {
        assert_eq!(s.pick(), Pick::Run(*ix));
        s.block(
            Key {
                space: 2,
                id: u64::from(*ix),
            },
            Some(deadline),
        );
    }
    assert_eq!(s.deadline_ns(), Some(5_000));
    assert!(s.take_report());
    s.admit(2, 9_500, 10);
    for expected in [1, 3, 2, 0] {
        assert_eq!(s.pick(), Pick::Run(threads[expected]));
        assert_eq!(s.wakeup(), Wakeup::TimedOut);
        s.exit();
    }
    assert_eq!(s.pick(), Pick::Idle);
    assert_eq!(s.deadline_ns(), Some(20_000));
}

#[test]
fn a_signalled_thread_no_longer_has_a_deadline() {
    let mut s = admitted(1000);
    let other = s.spawn(0).unwrap();
    s.block(LOCK, Some(2_000));
    assert_eq!(s.pick(), Pick::Run(other));
    assert_eq!(s.wake(LOCK, 1), 1);
    assert_eq!(s.deadline_ns(), None);
    assert!(s.take_report());
    s.admit(2, 9_000, 10);
    s.exit();
    assert_eq!(s.pick(), Pick::Run(1));
    assert_eq!(s.wakeup(), Wakeup::Signalled);
}

#[test]
fn time_never_goes_back() {
    let mut s = admitted(u32::MAX);
    for _ in 0..100 {
        let _ = s.tick(1);
    }
    assert_eq!(s.now_ns(), 1_000 + 100 * NS_PER_TICK);
    assert!(s.take_report());
    s.admit(2, 500, 10);
    assert_eq!(s.now_ns(), 1_000 + 100 * NS_PER_TICK);
}

#[test]
fn the_turn_is_handed_on_after_a_quantum_only_if_somebody_waits_for_it() {
    let mut s = admitted(10_000);
    for _ in 0..100 {
        let _ = s.tick(1);
    }
    assert!(!s.quantum_used());
    s.refresh_limit();
    let other = s.spawn(0).unwrap();
    let mut ticks = 0;
    while !s.tick(1) {
        ticks += 1;
    }
    assert_eq!(ticks, 99);
    assert!(s.quantum_used());
    s.yield_turn();
    assert_eq!(s.pick(), Pick::Run(other));
    s.exit();
    assert_eq!(s.pick(), Pick::Run(1));
}

#[test]
fn removed_threads_leave_every_queue() {
    let mut s = admitted(1000);
    let (a, b, c) = (
        s.spawn(7).unwrap(),
        s.spawn(7).unwrap(),
        s.spawn(8).unwrap(),
    );
    s.yield_turn();
    assert_eq!(s.pick(), Pick::Run(a));
    s.block(LOCK, Some(5));
    assert_eq!(s.pick(), Pick::Run(b));
    s.remove(a);
    s.remove(c);
    assert_eq!(s.deadline_ns(), None);
    assert_eq!(s.wake(LOCK, 1), 0);
    s.exit();
    assert_eq!(s.pick(), Pick::Run(1));
    assert_eq!(s.living().collect::<Vec<_>>(), [1, b]);
    s.remove(b);
    assert_eq!(s.spawn(9), Some(b));
}

#[test]
fn requeued_waiters_keep_their_order_behind_the_ones_already_there() {
    let mut s = admitted(1000);
    let threads: Vec<_> = (0..3).map(|_| s.spawn(0).unwrap()).collect();
    s.yield_turn();
    for (ix, key) in threads.iter().zip([OTHER, LOCK, LOCK]) {
        assert_eq!(s.pick(), Pick::Run(*ix));
        s.block(key, None);
    }
    assert_eq!(s.pick(), Pick::Run(1));
    assert_eq!(s.requeue(LOCK, OTHER, 9), 2);
    assert_eq!(s.wake(OTHER, 9), 3);
    s.exit();
    for ix in threads {
        assert_eq!(s.pick(), Pick::Run(ix));
        s.exit();
    }
}

#[test]
fn waiters_keep_their_order_when_keys_change_places() {
    let mut s = admitted(1000);
    let threads: Vec<_> = (0..4).map(|_| s.spawn(0).unwrap()).collect();
    s.yield_turn();
    for (ix, key) in threads.iter().zip([LOCK, OTHER, LOCK, OTHER]) {
        assert_eq!(s.pick(), Pick::Run(*ix));
        s.block(key, None);
    }
    assert_eq!(s.pick(), Pick::Run(1));
    s.rekey(|key| if key == LOCK { OTHER } else { LOCK });
    assert_eq!(s.wake(OTHER, 9), 2);
    assert_eq!(s.wake(LOCK, 9), 2);
    s.exit();
    for ix in [0, 2, 1, 3] {
        assert_eq!(s.pick(), Pick::Run(threads[ix]));
        s.exit();
    }
}

/// A small random program on the primitives; returns the schedule hash and the order of turns.
fn random_run(seed: u64, attentive: bool) -> (u64, Vec<ThreadIx>) {
    let mut s = admitted(50);
    s.set_attentive(attentive);
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..20 {
        s.spawn(0).unwrap();
    }
    let mut turns = Vec::new();
    let mut slot = 1;
    for _ in 0..20_000 {
        let due = s.tick(rng.u16(..7));
        if due && s.quantum_used() {
            s.yield_turn();
        }
        if due {
            s.refresh_limit();
        }
        match rng.u64(..5) {
            0 => s.block(
                Key {
                    space: 0,
                    id: rng.u64(..4),
                },
                rng.bool().then_some(slot * 100),
            ),
            1 => {
                s.wake(
                    Key {
                        space: 0,
                        id: rng.u64(..4),
                    },
                    rng.usize(..3),
                );
            }
            _ => {}
        }
        while s.admission_due() || s.pick() == Pick::Idle {
            slot += 1;
            let _ = s.take_report();
            s.admit(slot, slot * 100, 50);
            s.wake(
                Key {
                    space: 0,
                    id: rng.u64(..4),
                },
                1,
            );
        }
        turns.push(s.current());
    }
    (s.schedule_hash(), turns)
}

#[test]
fn the_same_program_gives_the_same_schedule_and_attention_changes_nothing() {
    for seed in 1..20 {
        let plain = random_run(seed, false);
        assert_eq!(plain, random_run(seed, false), "seed {seed}");
        assert_eq!(plain, random_run(seed, true), "seed {seed}");
    }
}

#[test]
fn alarms_go_off_in_the_order_of_deadlines_among_threads() {
    let mut s = admitted(1000);
    let sleeper = s.spawn(0).unwrap();
    let (late, early) = (s.make_alarm(3).unwrap(), s.make_alarm(3).unwrap());
    s.set_alarm(late, Some(6_000));
    s.set_alarm(early, Some(5_000));
    s.yield_turn();
    assert_eq!(s.pick(), Pick::Run(sleeper));
    s.block(LOCK, Some(5_500));
    assert_eq!(s.deadline_ns(), Some(5_000));
    assert!(s.take_report());
    s.admit(2, 10_000, 10);
    assert_eq!(s.take_fired(), Some(early));
    assert_eq!(s.take_fired(), Some(late));
    assert_eq!(s.take_fired(), None);
    assert_eq!(s.alarm_deadline_ns(early), None);
    assert_eq!(s.living().collect::<Vec<_>>(), [1, sleeper]);
    assert_eq!(s.alarms(3).count(), 2);
}

#[test]
fn an_alarm_set_anew_or_removed_does_not_go_off() {
    let mut s = admitted(1000);
    let (a, b) = (s.make_alarm(0).unwrap(), s.make_alarm(0).unwrap());
    s.set_alarm(a, Some(2_000));
    s.set_alarm(b, Some(2_000));
    assert!(s.take_report());
    s.admit(2, 3_000, 10);
    s.set_alarm(a, Some(9_000));
    s.remove(b);
    assert_eq!(s.take_fired(), None);
    assert_eq!(s.deadline_ns(), Some(9_000));
    assert!(s.can_run());
}

#[test]
fn an_interrupted_thread_leaves_its_queue_and_its_deadline() {
    let mut s = admitted(1000);
    let other = s.spawn(0).unwrap();
    s.block(LOCK, Some(2_000));
    assert_eq!(s.pick(), Pick::Run(other));
    assert!(s.interrupt(1));
    assert!(!s.interrupt(1));
    assert_eq!(s.wake(LOCK, 1), 0);
    assert_eq!(s.deadline_ns(), None);
    s.exit();
    assert_eq!(s.pick(), Pick::Run(1));
    assert_eq!(s.wakeup(), Wakeup::Interrupted);
}

#[test]
fn a_reserved_thread_is_not_chosen_before_it_is_there() {
    let mut s = admitted(100);
    let made = s.reserve(3).unwrap();
    assert!(s.living().any(|ix| ix == made));
    s.yield_turn();
    assert_eq!(s.pick(), Pick::Run(1), "nobody else can run");
    s.begin(made);
    s.yield_turn();
    assert_eq!(s.pick(), Pick::Run(made));
    let other = s.reserve(3).unwrap();
    s.remove(other);
    assert_eq!(s.reserve(3), Some(other));
}

#[test]
fn a_wake_up_with_bits_is_for_those_who_wait_for_them() {
    let mut s = admitted(1000);
    let others = [(); 3].map(|()| s.spawn(0).unwrap());
    s.block_bits(LOCK, 1, None);
    for (ix, bits) in others.into_iter().zip([2, 3, ANY]) {
        assert_eq!(s.pick(), Pick::Run(ix));
        if ix != others[2] {
            s.block_bits(LOCK, bits, None);
        }
    }
    assert_eq!(s.wake_bits(LOCK, 4, 9), 0);
    assert_eq!(s.wake_bits(LOCK, 2, 1), 1);
    s.yield_turn();
    assert_eq!(s.pick(), Pick::Run(others[0]));
    assert_eq!(s.wake_bits(LOCK, 2, 9), 1);
    assert_eq!(s.wake(LOCK, 9), 1);
    s.exit();
    let order = [others[2], others[1], 1];
    for ix in order {
        assert_eq!(s.pick(), Pick::Run(ix));
        s.exit();
    }
}
