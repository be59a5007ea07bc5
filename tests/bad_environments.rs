//! Configurations, directories and ports that are wrong: one clear line each, and no cluster.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;

use harness::{Client, Cluster, finish, free_port, refused, replica, store};
use std::fs;
use std::net::TcpListener;
use std::path::Path;

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// `brolga run` with the store in `data` must fail with `words`.
#[track_caller]
fn run_refused(data: &Path, port: u16, words: &[&str]) {
    let (data, command) = (text(data), store(port));
    let mut arguments = vec!["run", "--data", &data, "--"];
    arguments.extend(command.iter().map(String::as_str));
    refused(&arguments, words);
}

#[test]
fn unknown_key_in_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    fs::write(&file, "node = 1\nheart_beat_ms = 50\n").unwrap();
    refused(
        &["node", "--config", &text(&file)],
        &["node.toml:2: unknown field `heart_beat_ms`"],
    );
    refused(
        &["node", "--config", "/no/such.toml"],
        &["cannot read", "/no/such.toml"],
    );
}

#[test]
fn unwritable_data_directory() {
    // Not even root can make files there.
    run_refused(
        Path::new("/proc/brolga"),
        1,
        &["cannot create /proc/brolga"],
    );
    refused(&["status", "--data", "/proc"], &["/proc holds no cluster"]);
}

#[test]
fn foreign_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let (data, port) = (dir.path().join("data"), free_port());
    let cluster = Cluster::start(&data, &["--replicas", "1"], &store(port));
    assert_eq!(cluster.stop(), Some(0));

    let config = data.join("node-1/config.toml");
    let ours = fs::read_to_string(&config).unwrap();
    let id = ours
        .lines()
        .find(|line| line.starts_with("cluster"))
        .unwrap();
    let foreign = format!("cluster = \"{}\"", "12".repeat(16));
    fs::write(&config, ours.replace(id, &foreign)).unwrap();
    let other_cluster = ["belongs to the cluster", &"12".repeat(16)];
    refused(&["node", "--config", &text(&config)], &other_cluster);

    fs::write(&config, ours.replace("store\"", "elsewhere\"")).unwrap();
    refused(
        &["node", "--config", &text(&config)],
        &["the command", "changed"],
    );
}

#[test]
fn another_command_for_the_same_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let (data, port) = (dir.path().join("data"), free_port());
    let cluster = Cluster::start(&data, &["--replicas", "1"], &store(port));
    let busy = finish(&[
        "run",
        "--replicas",
        "1",
        "--data",
        &text(&data),
        "--",
        "cat",
    ]);
    assert!(
        busy.stderr.contains("in use by another brolga run"),
        "{busy:?}"
    );
    assert_eq!(cluster.stop(), Some(0));
    let arguments = [
        "run",
        "--replicas",
        "1",
        "--data",
        &text(&data),
        "--",
        "cat",
    ];
    refused(
        &arguments,
        &["holds a cluster with the command", "not `cat`"],
    );
}

#[test]
fn port_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _taken = TcpListener::bind(replica(2, port)).unwrap();
    run_refused(
        &dir.path().join("data"),
        port,
        &[&port.to_string(), "127.0.0.2", "already in use"],
    );
}

#[test]
fn server_that_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo no luck today >&2; exit 3";
    let data = text(&dir.path().join("data"));
    let finished = finish(&["run", "--data", &data, "--", "sh", "-c", script]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(
        finished.stderr.starts_with("brolga: replica "),
        "{finished:?}"
    );
    for words in ["ended before it listened", "status 3", "no luck today"] {
        assert!(finished.stderr.contains(words), "{words}: {finished:?}");
    }
}

#[test]
fn log_that_is_corrupt_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let (data, port) = (dir.path().join("data"), free_port());
    let cluster = Cluster::start(&data, &[], &store(port));
    let mut client = Client::connect(replica(1, port));
    for count in 1..=100 {
        assert_eq!(client.ask(&["INCR", "counter"]), format!(":{count}"));
    }
    cluster.wait_until_equal();
    assert_eq!(cluster.stop(), Some(0));

    let segment = data.join("node-2/log/0000000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 2] ^= 0x40;
    fs::write(&segment, bytes).unwrap();
    run_refused(
        &data,
        port,
        &["replica 2", "corrupt log", "0000000001.log", "offset"],
    );
}
