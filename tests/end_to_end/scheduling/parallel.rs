//! Policy `parallel`: threads that really compute beside each other, and replicas that agree all
//! the same, with PARROT's hints and without; and what it gains.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::native::{Native, build};
use crate::fixture::settings::{random, scaled};
use crate::harness::eventually;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const PERTURB_US: u32 = 200;

/// A conversation with the server of jobs.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    fn ask(&mut self, request: &str) -> String {
        let mut answer = String::new();
        let line = format!("{request}\n");
        self.stream.get_mut().write_all(line.as_bytes()).unwrap();
        self.stream.read_line(&mut answer).unwrap();
        assert!(answer.contains(" same="), "{request}: {answer:?}");
        answer
    }
}

/// The part of an answer that does not depend on the schedule.
fn same(answer: &str) -> &str {
    answer.split_once(" order=").unwrap().0
}

fn setup(policy: &str) -> Setup {
    let program = build("parallel").to_str().unwrap().to_owned();
    Setup::new(|port| vec![program, port.to_string()]).option("--policy", policy)
}

/// Jobs natively and on three replicas with random delays, then once more from the log.
fn agree(name: &str, policy: &str, job: &str) {
    let mut rng = random(name);
    let program = build("parallel");
    let native = Native::start(&program, &[]);
    let mut native = Client::connect(native.address);
    let cluster = Cluster::start(setup(policy).perturbed(PERTURB_US));
    let mut clients = [1, 2, 3].map(|node| Client::connect(cluster.address(node)));
    let jobs = scaled(12);
    for number in 0..jobs {
        let (seed, threads) = (rng.u64(..), 2 + rng.u64(..3));
        let (rounds, work) = (10 + rng.u64(..40), rng.u64(..30_000));
        let request = format!("{job} {seed} {threads} {rounds} {work}");
        let answer = clients[number % 3].ask(&request);
        assert_eq!(same(&answer), same(&native.ask(&request)));
    }
    let view = cluster.settle();
    let before = view.hashes();
    let follower = view.followers()[0];
    cluster.kill(&view, follower);
    cluster.wait_for("the follower", |now| {
        now.node(follower).is_some() && now.pid(follower) != view.pid(follower)
    });
    let hashes = cluster.settle().hashes();
    say(&format!(
        "{name}: {jobs} jobs as natively, {before}; repeated from the log: {hashes}"
    ));
    cluster.stop();
}

#[test]
fn threads_that_share_locks_agree_while_they_compute() {
    let name = "threads_that_share_locks_agree_while_they_compute";
    agree(name, "parallel", "blocks");
}

#[test]
fn soft_barriers_change_no_result() {
    agree("soft_barriers_change_no_result", "parallel", "barriers");
}

#[test]
fn sections_change_no_result() {
    agree("sections_change_no_result", "parallel", "sections");
}

#[test]
fn hints_are_without_effect_in_policy_serial() {
    let name = "hints_are_without_effect_in_policy_serial";
    agree(name, "serial", "barriers");
    agree(name, "serial", "sections");
}

/// A program that is not fit for the policy: that is noticed.
#[test]
fn a_data_race_is_noticed() {
    let cluster = Cluster::start(setup("parallel"));
    let mut stream = TcpStream::connect(cluster.address(1)).unwrap();
    let mut seed = 0;
    let mut named = None;
    let noticed = eventually(|| {
        seed += 1;
        // No answer is waited for: it is held back once the replicas differ.
        let request = format!("races {seed} 4 100 10000\n");
        stream.write_all(request.as_bytes()).unwrap();
        named = cluster.any_view().alarm();
        named.is_some()
    });
    assert!(
        noticed,
        "after {seed} races the replicas are still the same"
    );
    say(&format!(
        "a_data_race_is_noticed: after {seed} races: {}",
        named.unwrap()
    ));
    cluster.stop();
}

/// Whoever has the turn could wait for the mutex for ever.
#[test]
fn an_ordered_operation_with_a_mutex_of_a_section_stops_the_server() {
    let cluster = Cluster::start(setup("parallel").never_restarting());
    let mut stream = TcpStream::connect(cluster.address(1)).unwrap();
    stream.write_all(b"mistakes 1 1 1 1\n").unwrap();
    let path = cluster.node_dir(1).join("server.err");
    let mut said = String::new();
    let stopped = eventually(|| {
        said = fs::read_to_string(&path).unwrap_or_default();
        said.contains("locked in a performance-critical section")
    });
    assert!(stopped, "{said}");
    cluster.stop();
}

/// Costs and gains of a policy: threads that compute, natively, in `serial` and in `parallel`, side
/// by side.
#[test]
#[ignore = "a measurement"]
fn policies_side_by_side() {
    const ROUNDS: usize = 5;
    let program = build("parallel");
    let native = Native::start(&program, &[]);
    let mut native = Client::connect(native.address);
    for (what, job) in [
        ("400 blocks of 0.3 ms", "blocks 1 2 200 200000"),
        ("with a soft barrier", "barriers 1 2 200 200000"),
        ("4000 of 30 us", "barriers 1 2 2000 20000"),
        ("40000 of 3 us", "barriers 1 2 20000 2000"),
        ("with a section of 100 locks", "sections 1 2 200 200000"),
    ] {
        let mut ratios = [Vec::new(), Vec::new()];
        let mut natively = Vec::new();
        for _ in 0..ROUNDS {
            let base = seconds(&mut native, job);
            natively.push(base);
            for (ratios, policy) in ratios.iter_mut().zip(["serial", "parallel"]) {
                let cluster = Cluster::start(setup(policy).option("--replicas", "1"));
                let mut client = Client::connect(cluster.address(1));
                client.ask("blocks 1 2 2 2");
                ratios.push(seconds(&mut client, job) / base);
                cluster.stop();
            }
        }
        let [serial, parallel] = ratios.map(spread);
        say(&format!(
            "{what}: native {} s; serial {serial}, parallel {parallel} of native",
            spread(natively)
        ));
    }
}

fn seconds(client: &mut Client, job: &str) -> f64 {
    let started = Instant::now();
    client.ask(job);
    started.elapsed().as_secs_f64()
}

/// Lowest/median/highest.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (first, middle) = (values[0], values[values.len() / 2]);
    format!("{first:.2}/{middle:.2}/{:.2}", values[values.len() - 1])
}
