//! Two that restore at once.

use super::{LogFrom, checkpoint_well, fill, is_possible};
use crate::clients::resp::{Client, request};
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::view::View;
use crate::harness::{brolga, eventually, runs};
use std::fs;
use std::process::Stdio;
use std::thread;

const MEGABYTES: usize = 4;

/// On one data directory one of them wins, and the other says why it does not.
#[test]
fn of_two_nodes_on_one_directory_one_restores() {
    let name = "of_two_nodes_on_one_directory_one_restores";
    let Some((mut cluster, node, mut client)) = prepared(name) else {
        return;
    };
    checkpoint_well(&cluster, "now", node);
    client.exchange(&["INCR", "counted"], ":1\r\n");
    for round in 2..=4 {
        cluster.kill(&cluster.view(), node);
        let log = LogFrom::now(&cluster.node_dir(node).join("node.log"));
        let other = thread::spawn({
            let config = cluster.node_dir(node).join("config.toml");
            move || {
                let mut command = brolga();
                command.args(["node", "--config"]).arg(config);
                command.stderr(Stdio::piped()).spawn().unwrap()
            }
        });
        let pid = cluster.start_node(node);
        let mut other = other.join().unwrap();
        let mut ended = [false; 2];
        let one_is_over = eventually(|| {
            ended = [!runs(pid), other.try_wait().unwrap().is_some()];
            ended.contains(&true)
        });
        assert!(one_is_over && ended != [true; 2], "{ended:?}");
        let said = if ended[1] {
            let output = other.wait_with_output().unwrap();
            String::from_utf8_lossy(&output.stderr).into_owned()
        } else {
            cluster.keep(other);
            fs::read_to_string(cluster.node_dir(node).join("node.err")).unwrap()
        };
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("in use by a node"), "{said}");
        cluster.wait_for("the dead node", View::whole);
        client.exchange(&["INCR", "counted"], &format!(":{round}\r\n"));
        cluster.settle();
        let back = log.text().matches("restored from a checkpoint").count();
        assert_eq!(back, 1, "{}", log.text());
        checkpoint_well(&cluster, "verify", node);
        say(&format!("{name}: {}", said.trim()));
    }
    cluster.stop();
}

/// Different replicas on one machine have nothing to do with each other.
#[test]
fn two_replicas_restore_at_once() {
    let name = "two_replicas_restore_at_once";
    let Some((mut cluster, node, mut client)) = prepared(name) else {
        return;
    };
    let stays = cluster.view().leader();
    let goes: Vec<u64> = (1..=3).filter(|node| *node != stays).collect();
    assert!(goes.contains(&node));
    for node in &goes {
        checkpoint_well(&cluster, "now", *node);
    }
    client.exchange(&["INCR", "counted"], ":1\r\n");
    for round in 2..=4 {
        let view = cluster.settle();
        for node in &goes {
            cluster.kill(&view, *node);
        }
        // Nobody can order it now; it is not lost.
        client.send(&request(&["INCR", "counted"])).unwrap();
        for node in &goes {
            cluster.start_node(*node);
        }
        client.expect(format!(":{round}\r\n").as_bytes()).unwrap();
        let view = cluster.wait_for("the dead nodes", View::whole);
        for node in &goes {
            let from = view.node(*node).and_then(|it| it.restored_from);
            assert!(from.is_some(), "{node} has repeated everything");
        }
    }
    say(&format!("{name}: {}", cluster.settle().hashes()));
    cluster.stop();
}

/// A cluster, a follower of it, and a client of its leader.
fn prepared(name: &str) -> Option<(Cluster, u64, Client)> {
    if !is_possible(name) {
        return None;
    }
    let setup = Setup::redis(name, &[])?.option("--container", "required");
    let setup = setup.option("--checkpoint-log-mib", "0").never_restarting();
    let cluster = Cluster::start(setup);
    let view = cluster.settle();
    fill(&cluster, view.leader(), MEGABYTES);
    let client = Client::connect(cluster.address(view.leader()));
    Some((cluster, view.followers()[0], client))
}
