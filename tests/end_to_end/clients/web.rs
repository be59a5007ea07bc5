//! Python's web server, a thread for each connection, with files from a genesis directory.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::{random, random_bytes, scaled};
use fastrand::Rng;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// Not the one of a version manager, which is a shell script.
const PYTHON: &str = "/usr/bin/python3";
const FETCHERS: usize = 8;
const BIG: usize = 5_000_000;
const READ_PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn files_are_served_alike_by_all_replicas() {
    serve("files_are_served_alike_by_all_replicas", 0);
}

#[test]
fn files_are_served_alike_when_delayed_at_random() {
    serve("files_are_served_alike_when_delayed_at_random", 300);
}

fn serve(name: &str, perturb_us: u32) {
    let files = files(&mut random(name));
    let Some((setup, genesis)) = setup(name, &files) else {
        return;
    };
    let cluster = Cluster::start(setup.perturbed(perturb_us));
    drop(genesis);
    let addresses: Vec<SocketAddr> = (1..=3).map(|node| cluster.address(node)).collect();
    let bytes: usize = thread::scope(|scope| {
        let fetchers: Vec<_> = (0..FETCHERS)
            .map(|number| {
                let (files, addresses) = (&files, &addresses);
                scope.spawn(move || fetch_all(number, files, addresses))
            })
            .collect();
        let fetched = fetchers.into_iter().map(|fetcher| fetcher.join());
        fetched.map(|bytes| bytes.expect("a client failed")).sum()
    });
    let (hashes, megabytes) = (cluster.settle().hashes(), bytes / 1_000_000);
    say(&format!(
        "{name}: {FETCHERS} clients got {megabytes} MB, {hashes}"
    ));
    cluster.stop();
}

/// The server in a directory with these files, which must be there when it starts for the first time;
/// `None`, and said so, when it is not installed.
pub fn setup(name: &str, files: &[(String, Vec<u8>)]) -> Option<(Setup, TempDir)> {
    if !Path::new(PYTHON).exists() {
        say(&format!(
            "{name}: SKIPPED, {PYTHON} is not installed (tests/setup.sh)"
        ));
        return None;
    }
    let genesis = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        fs::write(genesis.path().join(path), bytes).unwrap();
    }
    let setup = Setup::new(|port| {
        let port = port.to_string();
        let words = [PYTHON, "-m", "http.server", &port, "--bind", "0.0.0.0"];
        words.map(str::to_owned).to_vec()
    });
    let setup = setup.option("--genesis", genesis.path().to_str().unwrap());
    Some((setup, genesis))
}

fn files(rng: &mut Rng) -> Vec<(String, Vec<u8>)> {
    let sizes = [
        ("empty", 0),
        ("small", 100),
        ("page.html", 20_000),
        ("big", BIG),
    ];
    let make = |(name, size): (&str, usize)| (name.to_owned(), random_bytes(rng, size));
    sizes.map(make).into()
}

/// Small files through every node, the big one through one of them. Returns how much it was.
fn fetch_all(number: usize, files: &[(String, Vec<u8>)], addresses: &[SocketAddr]) -> usize {
    let mut fetched = 0;
    for round in 0..scaled(1) * addresses.len() {
        let address = addresses[(number + round) % addresses.len()];
        for (path, bytes) in files {
            if bytes.len() < BIG || round % addresses.len() == 0 {
                let body = fetch(address, path);
                assert!(body == *bytes, "{path} from {address} is not what it was");
                fetched += body.len();
            }
        }
    }
    fetched
}

pub fn fetch(address: SocketAddr, path: &str) -> Vec<u8> {
    let (mut reply, outcome) = try_fetch(address, path);
    outcome.unwrap_or_else(|error| panic!("{path} from {address}: {error}"));
    let end = reply.windows(4).position(|it| it == b"\r\n\r\n");
    let body = reply.split_off(end.expect("a header") + 4);
    let header = String::from_utf8(reply).unwrap();
    assert!(header.contains(" 200 "), "{header}");
    body
}

/// Everything that was received, also when the connection broke.
pub fn try_fetch(address: SocketAddr, path: &str) -> (Vec<u8>, io::Result<()>) {
    let mut reply = Vec::new();
    let mut fetch = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(READ_PATIENCE))?;
        let request = format!("GET /{path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        stream.read_to_end(&mut reply).map(drop)
    };
    let outcome = fetch();
    (reply, outcome)
}
