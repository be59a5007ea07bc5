//! Redis forks to save: the child's work and its end are the same on every replica, and so are the
//! files, byte for byte. A replica that is killed afterwards repeats all of it, forks included.

use crate::clients::resp::{Client, request};
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::harness::eventually;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const KEYS: usize = 3000;

#[test]
fn a_background_save_is_the_same_on_every_replica() {
    let name = "a_background_save_is_the_same_on_every_replica";
    let Some(setup) = Setup::redis(name, &[]) else {
        return;
    };
    let cluster = Cluster::start(setup.perturbed(100));
    let mut clients = clients(&cluster);
    fill(&mut clients[1]);
    let before = clients[0].ask(&["LASTSAVE"]).integer();
    let moved = eventually(|| now(&mut clients[0]) > before);
    assert!(moved, "time stands still");
    clients[2].exchange(&["BGSAVE"], "+Background saving started\r\n");
    for client in &mut clients {
        wait_for_info(client, "rdb_bgsave_in_progress:0");
        wait_for_info(client, "rdb_last_bgsave_status:ok");
        let saved = client.ask(&["LASTSAVE"]).integer();
        assert!(saved > before, "{saved}, not after {before}");
    }
    let (hashes, files) = same_after_a_restart(&cluster);
    assert!(files.contains_key("dump.rdb"), "{:?}", files.keys());
    say(&format!("{name}: {hashes}; {}", sizes(&files)));
    cluster.stop();
}

/// FLUSHALL kills the saving child with SIGUSR1, and Redis refuses all writes from then on if it hears of
/// another signal. The child sleeps a millisecond for each key, so it cannot be done before.
#[test]
fn a_killed_background_save_is_no_failure() {
    let name = "a_killed_background_save_is_no_failure";
    let Some(setup) = Setup::redis(name, &["--save", "3600 1", "--rdb-key-save-delay", "1000"])
    else {
        return;
    };
    let cluster = Cluster::start(setup.perturbed(100));
    let mut clients = clients(&cluster);
    fill(&mut clients[1]);
    let both = [request(&["BGSAVE"]), request(&["FLUSHALL", "ASYNC"])].concat();
    clients[1].send(&both).unwrap();
    let replies = b"+Background saving started\r\n+OK\r\n";
    clients[1].expect(replies).unwrap();
    for client in &mut clients {
        wait_for_info(client, "rdb_bgsave_in_progress:0");
        wait_for_info(client, "rdb_last_bgsave_status:ok");
        client.exchange(&["SET", "after", "the kill"], "+OK\r\n");
    }
    say(&format!("{name}: {}", cluster.settle().hashes()));
    cluster.stop();
}

#[test]
fn a_rewritten_append_only_file_is_the_same_on_every_replica() {
    let name = "a_rewritten_append_only_file_is_the_same_on_every_replica";
    let Some(setup) = Setup::redis(name, &["--appendonly", "yes"]) else {
        return;
    };
    let cluster = Cluster::start(setup);
    let mut clients = clients(&cluster);
    fill(&mut clients[1]);
    let reply = "+Background append only file rewriting started\r\n";
    clients[2].exchange(&["BGREWRITEAOF"], reply);
    clients[0].exchange(&["SET", "during", "the rewrite"], "+OK\r\n");
    for client in &mut clients {
        wait_for_info(client, "aof_rewrite_in_progress:0");
        wait_for_info(client, "aof_rewrite_scheduled:0");
        wait_for_info(client, "aof_last_bgrewrite_status:ok");
        wait_for_info(client, "aof_last_write_status:ok");
    }
    let (hashes, files) = same_after_a_restart(&cluster);
    let rewritten = files.keys().any(|file| file.ends_with(".2.base.rdb"));
    assert!(rewritten, "{:?}", files.keys());
    say(&format!("{name}: {hashes}; {}", sizes(&files)));
    cluster.stop();
}

/// Hashes and files are equal, and still are when a follower has been killed and is back.
#[track_caller]
fn same_after_a_restart(cluster: &Cluster) -> (String, BTreeMap<String, Vec<u8>>) {
    let view = cluster.settle();
    let files = same_files(cluster);
    let follower = view.followers()[0];
    cluster.kill(&view, follower);
    cluster.wait_for("the follower", |now| {
        now.node(follower).is_some() && now.pid(follower) != view.pid(follower)
    });
    let hashes = cluster.settle().hashes();
    assert!(same_files(cluster) == files, "the replay left other files");
    (hashes, files)
}

fn clients(cluster: &Cluster) -> Vec<Client> {
    let nodes = cluster.settle().replicas;
    let connect = |node: u64| Client::connect(cluster.address(node));
    nodes.iter().map(|node| connect(node.id)).collect()
}

fn fill(client: &mut Client) {
    for number in 0..KEYS {
        let (key, value) = (format!("key{number}"), number.to_string().repeat(30));
        client.exchange(&["SET", &key, &value], "+OK\r\n");
    }
}

fn now(client: &mut Client) -> i64 {
    let time = client.ask(&["TIME"]);
    time.array()[0].number().try_into().unwrap()
}

#[track_caller]
fn wait_for_info(client: &mut Client, line: &str) {
    let mut text = String::new();
    let seen = eventually(|| {
        text = client.ask(&["INFO", "persistence"]).text();
        text.lines().any(|it| it == line)
    });
    assert!(seen, "no {line} in {text}");
}

/// All files under the server's working directory, equal on all replicas.
#[track_caller]
fn same_files(cluster: &Cluster) -> BTreeMap<String, Vec<u8>> {
    let of = |node: u64| {
        let mut files = BTreeMap::new();
        collect(&cluster.node_dir(node).join("work"), "", &mut files);
        files
    };
    let first = of(1);
    for node in 2..=3 {
        let other = of(node);
        assert!(
            first.keys().eq(other.keys()),
            "other files on replica {node}"
        );
        for (name, bytes) in &first {
            assert!(other[name] == *bytes, "{name} differs on replica {node}");
        }
    }
    first
}

fn collect(dir: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().expect("it has one").to_string_lossy();
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files);
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}

fn sizes(files: &BTreeMap<String, Vec<u8>>) -> String {
    let each = files.iter();
    let each = each.map(|(name, bytes)| format!("{name} ({} bytes)", bytes.len()));
    format!("equal files: {}", each.collect::<Vec<_>>().join(", "))
}
