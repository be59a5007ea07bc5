//! Datagram sockets behave as the kernel's do, and datagrams reach a server through every frontend.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::native::{Native, ask, build};
use crate::fixture::settings::{random, scaled};
use crate::fixture::view::View;
use crate::harness::eventually;
use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const ROUNDS: usize = 3;
const KILLS: usize = 4;
/// A question that is not answered for this long is taken for lost.
const TRY: Duration = Duration::from_millis(500);

#[test]
fn datagram_sockets_do_what_they_do_natively() {
    let program = build("datagrams");
    let native = Native::start(&program, &[]);
    let expected = ask(native.address, "r");
    assert!(expected.ends_with("done\n"), "{expected}");
    assert_eq!(ask(native.address, "r"), expected, "native runs differ");
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
        "datagrams: {} rounds as native, {hashes}",
        scaled(ROUNDS)
    ));
    cluster.stop();
}

/// Questions are asked until they are answered, each time with another number, through a node that is not
/// killed and through a frontend alone, while leaders die. The server must see none twice, and what is
/// answered must be what it counts.
#[test]
fn no_datagram_comes_twice_while_leaders_die() {
    let name = "no_datagram_comes_twice_while_leaders_die";
    let mut rng = random(name);
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/python/once.py");
    let words = |port: u16| {
        let port = port.to_string();
        ["/usr/bin/python3", program, &port]
            .map(str::to_owned)
            .into()
    };
    let mut cluster = Cluster::start(Setup::new(words).perturbed(100));
    let survivor = cluster.settle().followers()[0];
    let addresses = [cluster.address(survivor), cluster.start_frontend()];
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let asked = thread::scope(|scope| {
        let askers = [0, 1, 2, 3].map(|asker| {
            let (address, over, answered) = (addresses[asker % 2], &over, &answered);
            scope.spawn(move || ask_on(asker, address, over, answered))
        });
        let more = |count: usize| {
            let before = answered.load(Ordering::Relaxed);
            let enough = || answered.load(Ordering::Relaxed) >= before + count;
            assert!(eventually(enough), "nobody is answered");
        };
        for _ in 0..scaled(KILLS) {
            more(100 + rng.usize(..100));
            let view = cluster.wait_for("all nodes", View::whole);
            match view.leader() {
                leader if leader == survivor => cluster.pause_until_deposed(&view, leader),
                leader => cluster.kill(&view, leader),
            }
        }
        more(100);
        over.store(true, Ordering::Relaxed);
        askers.map(|asker| asker.join().expect("an asker failed"))
    });
    cluster.settle();
    let said = ask(addresses[0], "");
    let (seen, doubled) = said.split_once(" seen, doubled: ").unwrap();
    assert_eq!(doubled, "\n", "datagrams came twice");
    let (asked, seen): (usize, usize) = (asked.iter().sum(), seen.parse().unwrap());
    let answered = answered.into_inner();
    assert!(
        answered <= seen && seen <= asked,
        "{answered} <= {seen} <= {asked}"
    );
    let hashes = cluster.settle().hashes();
    say(&format!(
        "{name}: {answered} answered of {asked} asked, {hashes}"
    ));
    cluster.stop();
}

/// Asks until it is over, and returns the number of questions.
fn ask_on(asker: usize, at: SocketAddr, over: &AtomicBool, answered: &AtomicUsize) -> usize {
    let socket = UdpSocket::bind((at.ip(), 0)).unwrap();
    socket.connect(at).unwrap();
    socket.set_read_timeout(Some(TRY)).unwrap();
    let (mut number, mut count_before) = (0, 0);
    let mut got = HashSet::new();
    while !over.load(Ordering::Relaxed) {
        number += 1;
        // Refused while the port is closed; that is as good as lost.
        let _ = socket.send(format!("{asker}:{number}").as_bytes());
        let mut buffer = [0; 100];
        while let Ok(len) = socket.recv(&mut buffer) {
            let answer = std::str::from_utf8(&buffer[..len]).unwrap();
            let (count, question) = answer.split_once(' ').unwrap();
            let (of, to) = question.split_once(':').unwrap();
            let (of, to, count): (usize, usize, usize) = (
                of.parse().unwrap(),
                to.parse().unwrap(),
                count.parse().unwrap(),
            );
            assert!(of == asker && to <= number, "{answer}");
            assert!(got.insert(to), "answered twice: {answer}");
            assert!(count > count_before, "{answer} after {count_before}");
            count_before = count;
            answered.fetch_add(1, Ordering::Relaxed);
            if to == number {
                break;
            }
        }
    }
    number
}
