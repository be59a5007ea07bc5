//! The processor's time stamp counter shows virtual time, whichever instructions read it.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::native::{Native, ask, build};

const ROUNDS: usize = 3;

/// The lines that are the same natively, and the one that is not.
fn split(answer: &str) -> (&str, &str) {
    let at = answer.find('=').unwrap_or_else(|| panic!("{answer}"));
    answer.split_at(at)
}

#[test]
fn the_time_stamp_counter_is_the_same_everywhere() {
    let program = build("tsc");
    let native = Native::start(&program, &[]);
    let expected = ask(native.address, "r");
    let (expected, own) = split(&expected);
    assert!(own.starts_with("= rewritten 0 0,"), "{own}");
    let setup = Setup::new(|port| vec![program.to_str().unwrap().to_owned(), port.to_string()]);
    let cluster = Cluster::start(setup.perturbed(300));
    cluster.settle();
    let mut last = String::new();
    for round in 0..ROUNDS {
        last = ask(cluster.address(round as u64 + 1), "r");
        let (wrapped, own) = split(&last);
        assert_eq!(wrapped, expected);
        assert!(own.starts_with("= rewritten 1 1,"), "{own}");
    }
    // Equal outputs are equal counters.
    let hashes = cluster.settle().hashes();
    say(&format!("cycles: {}, {hashes}", split(&last).1.trim()));
    cluster.stop();
}
