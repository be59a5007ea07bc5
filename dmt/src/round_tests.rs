//! Policy `parallel`: threads that compute for random times between their ordered operations, in a
//! model of what the interposer does. Whoever is ready first, the schedule is the same.

use super::tests::admitted;
use super::*;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::println;
use std::vec::Vec;

const THREADS: ThreadIx = 5;
const LOCKS: u64 = 3;

/// A seed that was not there before, shown so that a failure can be repeated.
fn fresh_seed(test: &str) -> u64 {
    let seed = fastrand::u64(..);
    println!("{test}: seed {seed}");
    seed
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Lock(u64),
    Unlock(u64),
    Sleep(u64),
    Touch,
}

/// What each thread is going to do: a function of the seed alone.
fn programs(seed: u64) -> Vec<Vec<Step>> {
    let mut rng = Rng::with_seed(seed);
    let mut one = || {
        let mut steps = Vec::new();
        for _ in 0..20 + rng.u64(..20) {
            match rng.u64(..4) {
                0 => steps.push(Step::Touch),
                1 => steps.push(Step::Sleep(rng.u64(..400))),
                _ => {
                    let lock = rng.u64(..LOCKS);
                    steps.extend([Step::Lock(lock), Step::Touch, Step::Unlock(lock)]);
                }
            }
        }
        steps
    };
    (0..THREADS).map(|_| one()).collect()
}

fn key(lock: u64) -> Key {
    Key { space: 1, id: lock }
}

const SLEEP: Key = Key { space: 2, id: 0 };

struct Model {
    scheduler: std::boxed::Box<Scheduler>,
    programs: Vec<Vec<Step>>,
    at: Vec<usize>,
    owner: BTreeMap<u64, ThreadIx>,
    /// Threads that have reached their next operation.
    ready: Vec<bool>,
    trace: Vec<(ThreadIx, Step, u64)>,
}

impl Model {
    fn new(programs: Vec<Vec<Step>>) -> Self {
        let mut scheduler = admitted(50);
        scheduler.set_attentive(true);
        for _ in 1..THREADS {
            scheduler.spawn(0).unwrap();
        }
        let len = programs.len();
        Self {
            scheduler,
            programs,
            at: [0].repeat(len),
            owner: BTreeMap::new(),
            ready: [false].repeat(len),
            trace: Vec::new(),
        }
    }

    fn step_of(&self, ix: ThreadIx) -> Option<Step> {
        let thread = usize::from(ix) - 1;
        self.programs[thread].get(self.at[thread]).copied()
    }

    fn admit_if_due(&mut self) {
        while self.scheduler.admission_due() {
            let _ = self.scheduler.take_report();
            let slot = self.scheduler.slot() + 1;
            let due = self.scheduler.deadline_ns().unwrap_or(0);
            let time = due.max(self.scheduler.now_ns());
            self.scheduler.admit(slot, time, 50);
        }
    }

    /// The thread that has the turn is ready: its operation, then the turn goes on.
    fn operate(&mut self) {
        let me = self.scheduler.current();
        let Some(step) = self.step_of(me) else {
            self.scheduler.exit();
            self.go_on();
            return;
        };
        let _ = self.scheduler.tick(1);
        self.admit_if_due();
        self.trace.push((me, step, self.scheduler.now_ns()));
        let thread = usize::from(me) - 1;
        match step {
            Step::Lock(lock) if self.owner.contains_key(&lock) => {
                self.scheduler.block(key(lock), None);
                self.go_on();
                return; // It tries again when it has the turn again.
            }
            Step::Lock(lock) => _ = self.owner.insert(lock, me),
            Step::Unlock(lock) => {
                assert_eq!(self.owner.remove(&lock), Some(me));
                self.scheduler.wake(key(lock), 1);
            }
            Step::Sleep(ns) => {
                let until = self.scheduler.now_ns() + ns;
                self.scheduler.block(SLEEP, Some(until));
                self.at[thread] += 1;
                self.ready[thread] = false;
                self.go_on();
                return;
            }
            Step::Touch => {}
        }
        self.at[thread] += 1;
        self.ready[thread] = false;
        self.scheduler.pass_on();
    }

    /// The turn goes to somebody else, for whom an entry may have to be admitted.
    fn go_on(&mut self) {
        if self.is_over() {
            return;
        }
        self.admit_if_due();
        assert!(matches!(self.scheduler.pick(), Pick::Run(_)));
    }

    fn is_over(&self) -> bool {
        (1..=THREADS).all(|ix| self.scheduler.has_exited(ix))
    }

    /// Runs to the end; `timing` says who computes for how long.
    fn run(mut self, timing: u64) -> (u64, Vec<(ThreadIx, Step, u64)>) {
        let mut timing = Rng::with_seed(timing);
        while !self.is_over() {
            let arrives = timing.usize(..usize::from(THREADS));
            self.ready[arrives] = true;
            let head = usize::from(self.scheduler.current()) - 1;
            if self.ready[head] && timing.bool() {
                self.operate();
            }
        }
        (self.scheduler.schedule_hash(), self.trace)
    }
}

#[test]
fn whoever_is_faster_the_schedule_is_the_same() {
    let seed = fresh_seed("whoever_is_faster_the_schedule_is_the_same");
    let mut rng = Rng::with_seed(seed);
    for _ in 0..20 {
        let programs = programs(rng.u64(..));
        let (hash, trace) = Model::new(programs.clone()).run(rng.u64(..));
        assert!(trace.len() > 100, "{}", trace.len());
        for _ in 0..5 {
            let (other_hash, other_trace) = Model::new(programs.clone()).run(rng.u64(..));
            assert_eq!(trace, other_trace);
            assert_eq!(hash, other_hash);
        }
    }
}

#[test]
fn the_turn_goes_round_and_stays_with_the_only_thread() {
    let mut s = admitted(1000);
    assert_eq!(s.pass_on(), 1, "nobody else can run");
    let second = s.spawn(0).unwrap();
    let third = s.spawn(0).unwrap();
    assert_eq!(s.pass_on(), second);
    assert_eq!(s.pass_on(), third);
    assert_eq!(s.pass_on(), 1);
    assert_eq!(s.pass_on(), second);
    s.block(SLEEP, None);
    assert_eq!(s.pick(), Pick::Run(third));
    assert_eq!(s.pass_on(), 1);
    assert_eq!(s.wake(SLEEP, 1), 1);
    assert_eq!(s.pass_on(), third);
    assert_eq!(s.pass_on(), second, "who was woken comes after who waited");
}

#[test]
fn a_soft_barrier_lets_threads_go_on_together() {
    let mut s = admitted(1000);
    let second = s.spawn(0).unwrap();
    s.make_soft_barrier(0, 7, 2, 100);
    assert_eq!(s.arrive_at_soft_barrier(0, 8), Arrival::Pass, "no such one");
    assert_eq!(s.arrive_at_soft_barrier(1, 7), Arrival::Pass, "another's");
    let Arrival::Wait(key) = s.arrive_at_soft_barrier(0, 7) else {
        panic!("the first one waits");
    };
    s.block(key, None);
    assert_eq!(s.pick(), Pick::Run(second));
    assert_eq!(s.arrive_at_soft_barrier(0, 7), Arrival::Pass);
    assert_eq!(s.pass_on(), 1);
    assert_eq!(s.wakeup(), Wakeup::Signalled);
}

#[test]
fn a_soft_barrier_opens_when_its_time_has_passed_and_when_nothing_else_can_run() {
    let mut s = admitted(1000);
    let second = s.spawn(0).unwrap();
    s.make_soft_barrier(0, 7, 3, 5);
    let Arrival::Wait(key) = s.arrive_at_soft_barrier(0, 7) else {
        panic!("the first one waits");
    };
    s.block(key, None);
    assert_eq!(s.pick(), Pick::Run(second));
    for ticks in 1..=5 {
        s.open_soft_barriers();
        assert_eq!(s.pass_on(), second, "alone after {ticks} ticks");
        let _ = s.tick(1);
    }
    s.open_soft_barriers();
    assert_eq!(s.pass_on(), 1);
    assert!(matches!(s.arrive_at_soft_barrier(0, 7), Arrival::Wait(_)));
    s.block(key, None);
    assert_eq!(s.pick(), Pick::Run(second));
    s.block(SLEEP, None);
    assert!(s.admission_due());
    s.open_soft_barriers();
    assert!(!s.admission_due(), "it is opened before time passes");
    assert_eq!(s.pick(), Pick::Run(1));
}

#[test]
fn a_soft_barrier_that_goes_away_lets_all_go() {
    let mut s = admitted(1000);
    let second = s.spawn(0).unwrap();
    s.make_soft_barrier(0, 7, 9, 5000);
    let Arrival::Wait(key) = s.arrive_at_soft_barrier(0, 7) else {
        panic!("the first one waits");
    };
    s.block(key, None);
    assert_eq!(s.pick(), Pick::Run(second));
    s.remove_soft_barriers(0);
    assert_eq!(s.pass_on(), 1);
    assert_eq!(s.arrive_at_soft_barrier(0, 7), Arrival::Pass);
}
