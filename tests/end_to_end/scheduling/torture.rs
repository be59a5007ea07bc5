//! Threads, processes and locks under torture: natively and wrapped the same results, on all replicas
//! the same schedule, and the same again when a replica repeats it all from the log with other delays.

use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::native::{Native, build};
use crate::fixture::settings::{random, setting};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
/// About the operations of each thread in one iteration.
const COUNT: u64 = 20;
const PERTURB_US: u32 = 200;

/// A conversation with the torture server.
struct Torture {
    stream: TcpStream,
    lines: Lines<BufReader<TcpStream>>,
}

impl Torture {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        Self { stream, lines }
    }

    #[track_caller]
    fn ask(&mut self, request: &str) -> String {
        self.stream
            .write_all(format!("{request}\n").as_bytes())
            .unwrap();
        self.line(request)
    }

    #[track_caller]
    fn line(&mut self, request: &str) -> String {
        match self.lines.next() {
            Some(Ok(line)) => line,
            other => panic!("no answer to `{request}`: {other:?}"),
        }
    }

    /// An answer of many lines.
    #[track_caller]
    fn ask_all(&mut self, request: &str) -> Vec<String> {
        let mut answer = vec![self.ask(request)];
        while answer.last().is_some_and(|line| line != "end") {
            answer.push(self.line(request));
        }
        answer.pop();
        answer
    }

    /// The names of all that it can do of a kind.
    fn names(&mut self, kind: &str) -> Vec<String> {
        let lines = self.ask_all("list");
        let names = lines.iter().filter_map(|line| line.strip_prefix(kind));
        names.map(|name| name.trim().to_owned()).collect()
    }
}

fn setup(program: &Path) -> Setup {
    let program = program.to_str().unwrap().to_owned();
    Setup::new(|port| vec![program, port.to_string()]).perturbed(PERTURB_US)
}

/// Line by line the same, where a line is a call and its result.
#[track_caller]
fn assert_same(what: &str, wrapped: &[String], native: &[String]) {
    let differing = wrapped.iter().zip(native).find(|(a, b)| a != b);
    if let Some((wrapped, native)) = differing {
        panic!("{what}: wrapped `{wrapped}`, natively `{native}`");
    }
    assert_eq!(wrapped.len(), native.len(), "{what}: {wrapped:?}");
}

#[test]
fn calls_return_what_they_return_natively() {
    let name = "calls_return_what_they_return_natively";
    let program = build("torture");
    let native = Native::start(&program, &[]);
    let mut native = Torture::connect(native.address);
    let cluster = Cluster::start(setup(&program));
    let mut wrapped = Torture::connect(cluster.address(2));
    let mut calls = 0;
    for behaviour in native.names("behaviour") {
        let request = format!("trace {behaviour}");
        let expected = native.ask_all(&request);
        assert!(expected.len() > 5, "{behaviour}: {expected:?}");
        assert_same(&behaviour, &wrapped.ask_all(&request), &expected);
        calls += expected.len();
    }
    let hashes = cluster.settle().hashes();
    say(&format!("{name}: {calls} results as natively, {hashes}"));
    cluster.stop();
}

/// Requests with what a native run answers.
type Expected = BTreeMap<String, String>;

/// An answer without the part that tells of the schedule.
fn independent(answer: &str) -> &str {
    let (kept, order) = answer.split_once(" order=").unwrap_or_else(|| {
        panic!("the scenario failed: {answer}");
    });
    assert_eq!(order.len(), 16, "{answer}");
    kept
}

fn natively(program: &Path, iterations: u64, seed: u64, suits: impl Fn(&str) -> bool) -> Expected {
    let native = Native::start(program, &[]);
    let mut torture = Torture::connect(native.address);
    let mut scenarios = torture.names("scenario");
    scenarios.retain(|scenario| suits(scenario));
    assert!(scenarios.len() > 10, "{scenarios:?}");
    let request = |at: u64| {
        let scenario = &scenarios[(at % scenarios.len() as u64) as usize];
        format!("{scenario} {} {COUNT}", seed.wrapping_add(at))
    };
    let requests = (0..iterations).map(request);
    requests
        .map(|request| {
            let answer = torture.ask(&request);
            (request, independent(&answer).to_owned())
        })
        .collect()
}

/// A share of the requests, in an order of its own.
fn torture(address: SocketAddr, expected: &Expected, share: u64, rng: &mut Rng) {
    let all = expected.iter().zip(0..);
    let mine = all.filter(|(_, number)| number % 3 == share);
    let mut mine: Vec<_> = mine.map(|(each, _)| each).collect();
    let mut torture = Torture::connect(address);
    while !mine.is_empty() {
        let (request, answer) = mine.swap_remove(rng.usize(..mine.len()));
        assert_eq!(independent(&torture.ask(request)), answer);
    }
}

#[test]
fn tortured_replicas_agree_with_each_other_and_with_a_native_run() {
    let name = "tortured_replicas_agree_with_each_other_and_with_a_native_run";
    torture_replicas(name, "serial", |_| true);
}

fn torture_replicas(name: &str, policy: &str, suits: impl Fn(&str) -> bool) {
    let program = build("torture");
    let iterations = setting("BROLGA_E2E_TORTURE", 84);
    let mut rng = random(name);
    let expected = natively(&program, iterations, rng.u64(..), suits);
    let setup = setup(&program).option("--policy", policy);
    let cluster = Cluster::start(match policy {
        "serial" => setup,
        _ => setup.option("--env", "TORTURE_ORDERED=1"),
    });
    thread::scope(|scope| {
        for share in 0..3 {
            let address = cluster.address(1 + share);
            let mut rng = Rng::with_seed(rng.u64(..));
            let expected = &expected;
            scope.spawn(move || torture(address, expected, share, &mut rng));
        }
    });
    let view = cluster.settle();
    let before = view.hashes();
    // It repeats everything, with other delays.
    let follower = view.followers()[0];
    cluster.kill(&view, follower);
    cluster.wait_for("the follower", |now| {
        now.node(follower).is_some() && now.pid(follower) != view.pid(follower)
    });
    let hashes = cluster.settle().hashes();
    say(&format!(
        "{name}: {iterations} iterations as natively, {before}; repeated from the log: {hashes}"
    ));
    cluster.stop();
}

/// The results of these depend on data races: they are about atomics, raw futexes and plain words.
const RACY: [&str; 4] = ["futexes", "atomics", "yields", "lost"];

#[test]
fn tortured_replicas_agree_in_policy_parallel() {
    let name = "tortured_replicas_agree_in_policy_parallel";
    torture_replicas(name, "parallel", |scenario| !RACY.contains(&scenario));
}
