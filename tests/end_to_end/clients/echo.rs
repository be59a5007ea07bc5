//! A server on tokio's multi-threaded runtime returns what it gets, also while a leader dies.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::{random, random_bytes, scaled};
use crate::harness::eventually;
use fastrand::Rng;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const CLIENTS: usize = 20;
pub const BYTES_EACH: usize = 1_000_000;
const READ_PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn every_byte_comes_back_while_the_leader_dies() {
    let name = "every_byte_comes_back_while_the_leader_dies";
    let program = echo_server();
    let mut rng = random(name);
    let cluster = Cluster::start(Setup::new(|port| {
        vec![program.to_str().unwrap().to_owned(), port.to_string()]
    }));
    let view = cluster.settle();
    let homes = view.followers();
    let back = AtomicUsize::new(0);
    let all = CLIENTS * scaled(BYTES_EACH);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let address = cluster.address(homes[number % homes.len()]);
            let rng = Rng::with_seed(rng.u64(..));
            let back = &back;
            scope.spawn(move || send_and_compare(address, rng, back));
        }
        let middle = eventually(|| back.load(Ordering::Relaxed) >= all / 3);
        assert!(middle, "the clients are stuck");
        cluster.kill(&view, view.leader());
    });
    assert_eq!(back.load(Ordering::Relaxed), all);
    let hashes = cluster.settle().hashes();
    say(&format!(
        "{name}: {CLIENTS} clients, {all} bytes right, {hashes}"
    ));
    cluster.stop();
}

/// Builds it if need be: `cargo test --test end_to_end` alone does not build examples.
fn echo_server() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_brolga"))
        .parent()
        .expect("a folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", "echo_server"]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    cargo
        .arg("--target-dir")
        .arg(folder.parent().expect("a target folder"));
    assert!(
        cargo.status().unwrap().success(),
        "cannot build the echo server"
    );
    folder.join("examples/echo_server")
}

/// One thread sends in pieces of random size, this one reads and compares.
pub fn send_and_compare(address: SocketAddr, mut rng: Rng, back: &AtomicUsize) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(READ_PATIENCE)).unwrap();
    stream.set_write_timeout(Some(READ_PATIENCE)).unwrap();
    let bytes = random_bytes(&mut rng, scaled(BYTES_EACH));
    let writer = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| send_in_pieces(writer, &bytes, &mut rng));
        let mut at = 0;
        let mut buffer = vec![0; 64 * 1024];
        while at < bytes.len() {
            let read = stream.read(&mut buffer).unwrap_or_else(|error| {
                panic!("after {at} bytes from {address}: {error}");
            });
            assert!(read > 0, "closed after {at} bytes");
            let right = bytes.get(at..at + read) == Some(&buffer[..read]);
            assert!(right, "other bytes between {at} and {}", at + read);
            at += read;
            back.fetch_add(read, Ordering::Relaxed);
        }
    });
    // The server sees the end and closes; nothing may come after the last byte.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(
        stream.read(&mut [0]).unwrap(),
        0,
        "something came after the end"
    );
}

fn send_in_pieces(mut stream: TcpStream, mut bytes: &[u8], rng: &mut Rng) {
    while !bytes.is_empty() {
        let size = (1 + rng.u64(..20_000)) as usize;
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        stream.write_all(piece).unwrap();
        bytes = rest;
    }
}
