//! Seeded simulator of the core.
//!
//! One thread, one queue of events, one random generator: a seed is a run, and the same seed gives
//! the same run. Shells stand in for disk, network and clock ([`world`]); after every step the
//! [`oracle`], which sees all disks and all messages, checks what must always hold. Faults happen
//! for a while, then everything heals and the cluster has to converge and to serve. Learners come
//! and go, lag and lose their disks meanwhile.
//!
//! The *mutation ledger* measures the simulator: each deliberate bug in the core has to be caught.
//! *Coverage* counters prove that every kind of fault and every rare path came up.
//!
//! `BROLGA_SIM_SEEDS` sets the number of seeds and `BROLGA_SIM_SEED` runs just one.

mod checkpoints;
mod checks;
mod coverage;
mod disk;
mod draw;
mod faults;
mod network;
mod oracle;
mod shell;
mod world;

use crate::core::Mutation;
use coverage::Coverage;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Report, World};

/// Takes about ten seconds in a debug build.
const SEEDS_DEFAULT: u64 = 120;
/// Seeds tried before a mutation counts as missed. Most are caught by the first ones.
const SEEDS_PER_MUTATION: u64 = 1500;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
}

/// Runs one seed; a broken invariant or a panic of the core is the error.
fn run(seed: u64, mutation: Option<Mutation>) -> Result<Report, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| World::new(seed, mutation).run()));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

#[test]
fn no_seed_breaks_an_invariant() {
    let seeds = match setting("BROLGA_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("BROLGA_SIM_SEEDS").unwrap_or(SEEDS_DEFAULT),
    };
    let whole = seeds.end - seeds.start >= SEEDS_DEFAULT;
    let mut coverage = Coverage::default();
    let mut chosen = 0;
    for seed in seeds {
        match run(seed, None) {
            Ok(report) => {
                coverage.add(&report.coverage);
                chosen += report.chosen;
            }
            Err(what) => panic!("BROLGA_SIM_SEED={seed}: {what}"),
        }
    }
    println!("{chosen} slots chosen; {coverage:?}");
    if whole {
        let missed = coverage.missed();
        assert!(missed.is_empty(), "never came up: {missed:?}");
    }
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..10 {
        let first = run(seed, None).unwrap();
        let second = run(seed, None).unwrap();
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
    assert_ne!(run(1, None).unwrap().trace, run(2, None).unwrap().trace);
}

#[test]
fn every_mutation_is_caught() {
    let ledger = [
        Mutation::AckBeforeFlush,
        Mutation::CountSelfBeforeFlush,
        Mutation::PromiseBeforeFlush,
        Mutation::PrepareBeforeFlush,
        Mutation::CountOldBallotAcks,
        Mutation::DropTail,
        Mutation::PickLowestBallot,
        Mutation::ForgetPromise,
        Mutation::CommitAnyBallot,
        Mutation::MinorityQuorum,
        Mutation::NoRetransmission,
        Mutation::NoQuorumCheck,
        Mutation::VoteAfterWipe,
        Mutation::AskQuorumOnly,
        Mutation::ForgetBarrier,
        Mutation::CountNonVoters,
        Mutation::CountLearners,
        Mutation::HearLearners,
        Mutation::TruncateUncovered,
        Mutation::InstallUnsaid,
    ];
    let mut missed = Vec::new();
    for mutation in ledger {
        let caught = (0..SEEDS_PER_MUTATION)
            .find_map(|seed| run(seed, Some(mutation)).err().map(|what| (seed, what)));
        match caught {
            Some((seed, what)) => println!("{mutation:?}: caught by seed {seed}: {what}"),
            None => missed.push(mutation),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
