//! Replicas in containers and replicas without are the same to their server.

use crate::checkpoints::faults::is_possible;
use crate::clients::counting::{Control, check_everywhere, count};
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::view::View;
use crate::harness::{containment, eventually};
use std::fs;
use std::thread;

/// The result of `auto` where the machines of a cluster differ. The one in the container repeats
/// what the others did without, and goes on with them.
#[test]
fn a_replica_in_a_container_does_what_those_without_do() {
    let name = "a_replica_in_a_container_does_what_those_without_do";
    if !is_possible(name) {
        return;
    }
    if !containment().is_empty() {
        return say(&format!("{name}: SKIPPED, all replicas are in containers"));
    }
    let Some(setup) = Setup::redis(name, &[]) else {
        return;
    };
    mix(name, setup);
    mix(name, Setup::store());
}

fn mix(name: &str, setup: Setup) {
    let setup = setup.option("--container", "none").never_restarting();
    let mut cluster = Cluster::start(setup);
    let view = cluster.settle();
    let node = view.followers()[0];
    let (control, address) = (Control::default(), cluster.address(view.leader()));
    let tally = thread::scope(|scope| {
        let stop = control.guard();
        let counter = scope.spawn(|| count(0, address, &control));
        let more = |control: &Control| {
            let before = control.acknowledged();
            assert!(eventually(|| control.acknowledged() > before + 100));
        };
        more(&control);
        cluster.kill(&view, node);
        let config = cluster.node_dir(node).join("config.toml");
        let text = fs::read_to_string(&config).unwrap();
        let (before, after) = ("container = \"none\"", "container = \"required\"");
        assert!(text.contains(before), "{text}");
        fs::write(&config, text.replace(before, after)).unwrap();
        cluster.start_node(node);
        cluster.wait_for("the replica in the container", View::whole);
        more(&control);
        drop(stop);
        counter.join().expect("the client failed")
    });
    assert!(tally.broke.is_none(), "{tally:?}");
    let view = cluster.settle();
    let right = check_everywhere(&cluster, &[tally]);
    let data = cluster.data();
    let taken = crate::harness::finish(&[
        "checkpoint",
        "now",
        "--data",
        data.to_str().unwrap(),
        "--node",
        &node.to_string(),
    ]);
    assert_eq!(taken.code, Some(0), "{taken:?}");
    say(&format!("{name}: {right} replies right, {}", view.hashes()));
    cluster.stop();
}
