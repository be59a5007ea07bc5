//! The systems under test: processes, addresses, processor time.

use super::load::command;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BROLGA: &str = env!("CARGO_BIN_EXE_brolga");

/// A running system; it ends when this is dropped.
pub struct System {
    /// Name in the tables.
    pub name: &'static str,
    /// The address for its clients.
    pub address: SocketAddr,
    /// Writes are followed by `WAIT 1 0`.
    pub waits: bool,
    children: Vec<Child>,
    data: Option<PathBuf>,
}

impl Drop for System {
    fn drop(&mut self) {
        for child in &mut self.children {
            let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

/// A port that nobody listens at on any address.
pub fn free_port() -> u16 {
    brolga_os::ports::reserve(&[Ipv4Addr::UNSPECIFIED.into()]).expect("a free port")
}

pub fn await_answer(address: SocketAddr, request: &[u8], wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut reply = [0; 4096];
        let answer = TcpStream::connect(address).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(request)?;
            let count = stream.read(&mut reply)?;
            Ok(String::from_utf8_lossy(&reply[..count]).into_owned())
        });
        if answer.as_ref().is_ok_and(|answer| answer.contains(wanted)) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{address} does not answer: {answer:?}"
        );
        std::thread::yield_now();
    }
}

/// Waits until something listens.
pub fn await_listener(address: SocketAddr, patience: Duration) {
    let deadline = Instant::now() + patience;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "{address} does not listen");
        std::thread::yield_now();
    }
}

fn redis(port: u16, dir: &Path, more: &[String]) -> Child {
    let log = std::fs::File::create(dir.join(format!("redis-{port}.log"))).expect("a log file");
    std::fs::create_dir_all(dir.join(port.to_string())).expect("a directory");
    Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .args(more)
        .current_dir(dir.join(port.to_string()))
        .stdout(log)
        .spawn()
        .expect("redis-server runs (apt-get install redis-server)")
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// One Redis, in memory.
pub fn native(dir: &Path) -> System {
    let port = free_port();
    let children = vec![redis(port, dir, &[])];
    await_answer(local(port), &command(&[b"PING"]), "PONG");
    System {
        name: "native",
        address: local(port),
        waits: false,
        children,
        data: None,
    }
}

/// A primary and two replicas that append and flush every write; every write waits for one replica.
pub fn primary_and_replicas(dir: &Path) -> System {
    let durable = ["--appendonly", "yes", "--appendfsync", "always"].map(String::from);
    let port = free_port();
    let mut children = vec![redis(port, dir, &durable)];
    for _ in 0..2 {
        let mut more = durable.to_vec();
        more.extend(["--replicaof".into(), "127.0.0.1".into(), port.to_string()]);
        children.push(redis(free_port(), dir, &more));
    }
    let info = command(&[b"INFO", b"replication"]);
    await_answer(local(port), &info, "slave1:ip=127.0.0.1");
    let wait = command(&[b"WAIT", b"2", b"1000"]);
    await_answer(local(port), &wait, ":2");
    System {
        name: "WAIT 1 + AOF always",
        address: local(port),
        waits: true,
        children,
        data: None,
    }
}

/// Redis under `brolga run`; clients connect to the leader's node.
pub fn brolga(name: &'static str, dir: &Path, replicas: usize) -> System {
    let port = free_port().to_string();
    let data = dir.join(format!("brolga-{replicas}"));
    let command = ["redis-server", "--port", &port, "--save", ""].map(str::to_owned);
    let system = wrapped(name, &data, replicas, None, &command);
    await_answer(system.address, &super::load::command(&[b"PING"]), "PONG");
    system
}

/// Any server under `brolga run`; clients connect to the leader's node.
pub fn wrapped(
    name: &'static str,
    data: &Path,
    replicas: usize,
    genesis: Option<&Path>,
    command: &[String],
) -> System {
    let mut run = Command::new(BROLGA);
    run.args(["run", "--replicas", &replicas.to_string(), "--data"])
        .arg(data);
    if let Some(genesis) = genesis {
        run.arg("--genesis").arg(genesis);
    }
    let mut child = run
        .arg("--")
        .args(command)
        .stdout(Stdio::piped())
        .spawn()
        .expect("brolga runs");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut leader = None;
    for line in stdout.lines() {
        let line = line.expect("text");
        let address = line
            .split_whitespace()
            .find_map(|word| word.parse::<SocketAddr>().ok());
        if line.contains("leader") || leader.is_none() {
            leader = address.or(leader);
        }
        if line.contains("Ctrl-C") {
            break;
        }
    }
    let address = leader.expect("brolga run says where it listens");
    System {
        name,
        address,
        waits: false,
        children: vec![child],
        data: Some(data.to_owned()),
    }
}

/// Any server by itself, in a directory of its own; on one processor or on all of them.
pub fn unwrapped(
    name: &'static str,
    dir: &Path,
    address: SocketAddr,
    command: &[String],
    cpu: Option<usize>,
) -> System {
    let log = std::fs::File::create(dir.join("bench.log")).expect("a log file");
    let mut start = match cpu {
        None => Command::new(&command[0]),
        Some(cpu) => {
            let mut start = Command::new("taskset");
            start.args(["--cpu-list", &cpu.to_string(), &command[0]]);
            start
        }
    };
    let child = start
        .args(&command[1..])
        .current_dir(dir)
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log)
        .spawn()
        .expect("the server runs (tests/setup.sh installs it)");
    System {
        name,
        address,
        waits: false,
        children: vec![child],
        data: None,
    }
}

impl System {
    /// The processes that do the work, by kernel id.
    fn processes(&self) -> Vec<u32> {
        let Some(data) = &self.data else {
            return self.children.iter().map(Child::id).collect();
        };
        // The servers are below their nodes.
        let status = status_of(data);
        let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
        let pid = |replica: &serde_json::Value| replica["status"]["pid"].as_u64();
        let pids = replicas.iter().filter_map(pid);
        pids.filter_map(|pid| u32::try_from(pid).ok()).collect()
    }

    /// Processor seconds used so far by all processes of the system.
    pub fn cpu_seconds(&self) -> f64 {
        self.processes()
            .iter()
            .map(|pid| tree_cpu_seconds(*pid))
            .sum()
    }

    /// Entries of the log so far; 0 without one.
    pub fn entries(&self) -> u64 {
        let Some(data) = &self.data else { return 0 };
        let status = status_of(data);
        let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
        let chosen = |replica: &serde_json::Value| replica["status"]["chosen"].as_u64();
        replicas.iter().filter_map(chosen).max().unwrap_or(0)
    }
}

fn status_of(data: &Path) -> serde_json::Value {
    let output = Command::new(BROLGA)
        .args(["status", "--json", "--data"])
        .arg(data)
        .output()
        .expect("brolga status runs");
    serde_json::from_slice(&output.stdout).expect("brolga status --json prints JSON")
}

/// Processor seconds of a process, of what it has waited for, and of all below it.
fn tree_cpu_seconds(pid: u32) -> f64 {
    let children = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let below: f64 = children
        .flat_map(|line| {
            let pids = line.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .map(tree_cpu_seconds)
        .sum();
    process_cpu_seconds(pid) + below
}

/// User and system time of a process and of the children it has waited for (fields 14 to 17 of its
/// stat file, in 1/100 s).
fn process_cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or("");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    (11..15).filter_map(ticks).sum::<f64>() / 100.0
}
