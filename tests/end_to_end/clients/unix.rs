//! UNIX sockets of the server that clients outside of its tree use: `--unix`.

use crate::checkpoints::faults::is_possible;
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::scaled;
use crate::harness::{finish, free_port, store};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

const PYTHON: &str = "/usr/bin/python3";
const NAME: &str = "door.sock";

fn door(cluster: &Cluster, node: u64) -> PathBuf {
    cluster.node_dir(node).join("sockets").join(NAME)
}

/// A client of a published socket.
struct Caller(BufReader<UnixStream>);

impl Caller {
    fn at(path: &Path) -> Self {
        // The path may be too long for an address.
        let directory = fs::File::open(path.parent().unwrap()).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
        let short = PathBuf::from(format!("/proc/self/fd/{number}/{NAME}"));
        Self(BufReader::new(UnixStream::connect(short).unwrap()))
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.0.get_mut(), "{question}").unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

/// The credentials that the server sees of a client: somebody who is nobody, which it may be
/// itself.
fn stranger() -> &'static str {
    match nix::unistd::geteuid().as_raw() {
        65_534 => "own",
        _ => "65534",
    }
}

fn setup(name: &str) -> Option<Setup> {
    if !Path::new(PYTHON).exists() {
        say(&format!(
            "{name}: SKIPPED, {PYTHON} is not installed (tests/setup.sh)"
        ));
        return None;
    }
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/python/door.py");
    let words = |port: u16| {
        [PYTHON, server, &port.to_string(), NAME]
            .map(str::to_owned)
            .to_vec()
    };
    Some(Setup::new(words).option("--unix", NAME).perturbed(200))
}

#[test]
fn clients_use_a_unix_socket_of_any_replica() {
    let name = "clients_use_a_unix_socket_of_any_replica";
    let Some(setup) = setup(name) else { return };
    let cluster = Cluster::start(setup);
    let view = cluster.settle();
    let (leader, homes) = (view.leader(), view.followers());
    let mut caller = Caller::at(&door(&cluster, homes[0]));
    let seen = |number: usize, word: &str| {
        format!("{number} {word}: 'door.sock' '' 1 user {}", stranger())
    };
    assert_eq!(caller.ask("first"), seen(1, "first"));
    // The tree itself may use the path as well, and is known.
    assert_eq!(
        caller.ask("talk"),
        "2 talk: '' 'door.sock' got 3 hello: 'door.sock' '' 1 user own"
    );
    let mut other = Caller::at(&door(&cluster, homes[1]));
    assert_eq!(other.ask("second"), seen(4, "second"));
    cluster.kill(&view, leader);
    let rounds = scaled(50);
    for round in 0..rounds {
        assert_eq!(caller.ask("more"), seen(5 + 2 * round, "more"));
        assert_eq!(other.ask("more"), seen(6 + 2 * round, "more"));
    }
    let hashes = cluster.settle().hashes();
    // The one that came back publishes it again.
    let mut third = Caller::at(&door(&cluster, leader));
    assert_eq!(third.ask("third"), seen(5 + 2 * rounds, "third"));
    drop((caller, other, third));
    cluster.settle();
    // The server's own file leads nowhere: that would be round the log.
    let own = UnixStream::connect(cluster.node_dir(leader).join("work").join(NAME));
    assert!(own.is_err(), "{own:?}");
    say(&format!("{name}: {} answers, {hashes}", 5 + 2 * rounds));
    cluster.stop();
}

#[test]
fn a_published_socket_comes_back_from_a_checkpoint() {
    let name = "a_published_socket_comes_back_from_a_checkpoint";
    if !is_possible(name) {
        return;
    }
    let Some(setup) = setup(name) else { return };
    let cluster = Cluster::start(setup.option("--container", "required"));
    let view = cluster.settle();
    let homes = view.followers();
    let mut caller = Caller::at(&door(&cluster, homes[0]));
    let answer = |number: usize| format!("{number} more: 'door.sock' '' 1 user {}", stranger());
    assert_eq!(caller.ask("more"), answer(1));
    let data = cluster.data();
    let taken = finish(&["checkpoint", "now", "--data", data.to_str().unwrap()]);
    assert_eq!(taken.code, Some(0), "{taken:?}");
    assert_eq!(caller.ask("more"), answer(2));
    let victim = homes[1];
    cluster.kill(&view, victim);
    assert_eq!(caller.ask("more"), answer(3));
    cluster.wait_for("the follower", |now| {
        now.node(victim)
            .is_some_and(|it| it.restored_from.is_some())
    });
    cluster.settle();
    let mut other = Caller::at(&door(&cluster, victim));
    assert_eq!(other.ask("more"), answer(4));
    assert_eq!(caller.ask("more"), answer(5));
    say(&format!("{name}: {}", cluster.settle().hashes()));
    cluster.stop();
}

#[test]
fn redis_cli_uses_the_published_socket() {
    let name = "redis_cli_uses_the_published_socket";
    let Some(setup) = Setup::redis(name, &["--unixsocket", NAME, "--unixsocketperm", "700"]) else {
        return;
    };
    let cluster = Cluster::start(setup.option("--unix", NAME));
    let homes = cluster.settle().followers();
    let ask = |node: u64, words: &[&str]| {
        let socket = door(&cluster, node);
        let told = Command::new("redis-cli")
            .current_dir(socket.parent().unwrap())
            .args(["-s", NAME])
            .args(words)
            .output()
            .unwrap();
        String::from_utf8(told.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    };
    assert_eq!(ask(homes[0], &["SET", "key", "value"]), "OK");
    assert_eq!(ask(homes[1], &["GET", "key"]), "value");
    let info = ask(homes[1], &["CLIENT", "INFO"]);
    assert!(info.contains("door.sock:0"), "{info}");
    let hashes = cluster.settle().hashes();
    say(&format!("{name}: {info}; {hashes}"));
    cluster.stop();
}

#[test]
fn paths_that_cannot_be_published_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    let server = store(free_port());
    let told = |options: &[&str], words: &[&str]| {
        let all = [&["run", "--data", data], options, &["--"]].concat();
        let server = server.iter().map(String::as_str);
        let all: Vec<&str> = all.into_iter().chain(server).collect();
        let finished = finish(&all);
        assert_ne!(finished.code, Some(0), "{finished:?}");
        for word in words {
            assert!(finished.stderr.contains(word), "{word}: {finished:?}");
        }
    };
    let long = format!("/{}", "x".repeat(200));
    told(&["--unix", &long], &["at most 107 bytes", "unix_sockets ="]);
    told(&["--unix", "/"], &["names of the published sockets"]);
    let twice = ["--unix", "/a/door.sock", "--unix", "/b/door.sock"];
    told(&twice, &["/b/door.sock", "one of its own"]);
}
