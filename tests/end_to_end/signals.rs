//! Signals and timers behave as POSIX says, at the same logical moments on every replica.

use crate::chance::scaled;
use crate::cluster::{Cluster, Setup, say};
use crate::native::{Native, ask, build};

const ROUNDS: usize = 3;

#[test]
fn signals_and_timers_do_what_they_do_natively() {
    let program = build("signals");
    let native = Native::start(&program, &[]);
    let expected = ask(native.address, "r");
    assert!(
        expected.ends_with("jumped 1 still blocked 0\n"),
        "{expected}"
    );
    let cluster = Cluster::start(
        Setup::new(|port| vec![program.to_str().unwrap().to_owned(), port.to_string()])
            .perturbed(300),
    );
    let view = cluster.settle();
    for round in 0..scaled(ROUNDS) {
        let homes = view.followers();
        let wrapped = ask(cluster.address(homes[round % homes.len()]), "r");
        assert_eq!(wrapped, expected);
    }
    let hashes = cluster.settle().hashes();
    say(&format!(
        "signals: {} rounds as native, {hashes}",
        scaled(ROUNDS)
    ));
    cluster.stop();
}
