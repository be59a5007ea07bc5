//! The hand-off of the turn: no two threads have it, whoever gets it sees what was done before, and
//! nobody sleeps for ever.

use brolga_loom::baton::Baton;
use brolga_loom::check;
use brolga_loom::kernel::Futex;
use loom::cell::UnsafeCell;
use loom::thread;
use std::sync::Arc;

/// What the threads of a process tree share.
struct Shared {
    batons: Vec<(Baton, Futex)>,
    /// The scheduler: only who has the turn may touch it. Counts the turns.
    scheduler: UnsafeCell<u32>,
}

// SAFETY: the threads of a model take turns, and loom watches the scheduler.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    fn new(threads: usize) -> Arc<Self> {
        let batons = (0..threads).map(|_| (Baton::new(), Futex::default()));
        let batons: Vec<_> = batons.collect();
        for (baton, _) in &batons {
            assert!(!baton.is_given());
        }
        Arc::new(Self {
            batons,
            scheduler: UnsafeCell::new(0),
        })
    }

    /// As the interposer does it: looks at the baton some times, then sleeps.
    fn await_turn(&self, me: usize, looks: usize) {
        let (baton, futex) = &self.batons[me];
        if !(0..looks).any(|_| baton.is_given()) {
            while !baton.is_given() {
                if baton.mark_asleep() {
                    futex.wait(baton.futex(), Baton::ASLEEP);
                }
            }
        }
        baton.take();
    }

    fn hand_to(&self, next: usize) {
        let (baton, futex) = &self.batons[next];
        if baton.give() {
            futex.wake();
        }
    }

    /// The thread has the turn: it counts it.
    fn use_turn(&self, expected: u32) {
        self.scheduler.with_mut(|turns| {
            // SAFETY: loom has just found that nobody else uses it.
            let turns = unsafe { &mut *turns };
            assert_eq!(*turns, expected);
            *turns += 1;
        });
    }
}

/// `threads` threads hand the turn round `rounds` times.
fn round(threads: usize, rounds: usize, looks: usize) {
    let shared = Shared::new(threads);
    let of = |me: usize, shared: Arc<Shared>| {
        move || {
            for round in 0..rounds {
                if me != 0 || round != 0 {
                    shared.await_turn(me, looks);
                }
                shared.use_turn((round * threads + me) as u32);
                shared.hand_to((me + 1) % threads);
            }
        }
    };
    let others: Vec<_> = (1..threads)
        .map(|me| thread::spawn(of(me, shared.clone())))
        .collect();
    of(0, shared)();
    for other in others {
        assert!(other.join().is_ok());
    }
}

#[test]
fn two_threads_hand_the_turn_to_and_fro() {
    check(|| round(2, 2, 0));
}

#[test]
fn a_thread_may_look_at_its_baton_before_it_sleeps() {
    check(|| round(2, 2, 2));
}

#[test]
fn the_turn_goes_round_three_threads() {
    check(|| round(3, 1, 1));
}

#[test]
fn a_thread_that_is_alone_keeps_the_turn() {
    check(|| {
        let shared = Shared::new(1);
        for turn in 0..2 {
            shared.use_turn(turn);
            shared.batons[0].0.keep();
            shared.await_turn(0, 0);
        }
    });
}

#[test]
fn a_weaker_ordering_is_noticed() {
    let baton = include_str!("../../../dmt/src/baton.rs");
    for place in ["self.0.swap(", "self.0.load("] {
        let test = "two_threads_hand_the_turn_to_and_fro";
        brolga_loom::assert_finds(test, "dmt/src/baton.rs", baton, place);
    }
}
