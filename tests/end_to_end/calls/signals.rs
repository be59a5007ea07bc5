//! Signals and timers behave as POSIX says, at the same logical moments on every replica.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::native::{Native, ask, build};
use crate::fixture::settings::scaled;
use crate::harness::{eventually, finish};
use brolga_node::{NodeStatus, ServerState};

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

/// `brolga signal`: counted alike by the servers of all replicas, and in the end ending all of them.
#[test]
fn operators_signals_reach_all_replicas_at_the_same_slot() {
    let name = "operators_signals_reach_all_replicas_at_the_same_slot";
    let program = build("operator");
    let cluster = Cluster::start(
        Setup::new(|port| vec![program.to_str().unwrap().to_owned(), port.to_string()])
            .perturbed(300),
    );
    cluster.settle();
    let data = cluster.data();
    let send = |signal: &str| {
        let sent = finish(&["signal", "--data", data.to_str().unwrap(), signal]);
        assert_eq!(sent.code, Some(0), "{sent:?}");
        let slot = sent.stdout.trim().rsplit(' ').next();
        slot.and_then(|slot| slot.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{sent:?}"))
    };
    let mut last = 0;
    for signal in ["HUP", "usr1", "SIGHUP", "RTMIN+2", "1"] {
        let slot = send(signal);
        assert!(slot > last, "{slot} after {last}");
        last = slot;
    }
    for node in 1..=3 {
        assert_eq!(ask(cluster.address(node), "?"), "HUP 3 USR1 1 RT 1\n");
    }
    let hashes = cluster.settle().hashes();
    let refused = finish(&["signal", "--data", data.to_str().unwrap(), "KILL"]);
    assert!(
        refused.code == Some(2) && refused.stderr.contains("is for processes"),
        "{refused:?}"
    );
    send("TERM");
    let ended = eventually(|| {
        let view = cluster.any_view();
        let ended = |it: &NodeStatus| {
            it.server
                == ServerState::Exited {
                    how: "exit status 3".into(),
                }
        };
        view.all().is_some_and(|all| all.into_iter().all(ended))
    });
    assert!(ended, "{:#?}", cluster.any_view());
    say(&format!("{name}: {hashes}"));
    cluster.stop();
}
