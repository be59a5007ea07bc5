//! The systems under test: processes, addresses, processor time.

use super::load::command;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BROLGA: &str = env!("CARGO_BIN_EXE_brolga");

/// A running system; it ends when this is dropped.
pub struct System {
    /// Name in the tables.
    pub name: &'static str,
    /// Where its clients connect.
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

fn free_port(host: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((host, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn await_answer(address: SocketAddr, request: &[u8], wanted: &str) {
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
    let port = free_port(Ipv4Addr::LOCALHOST);
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
    let port = free_port(Ipv4Addr::LOCALHOST);
    let mut children = vec![redis(port, dir, &durable)];
    for _ in 0..2 {
        let mut more = durable.to_vec();
        more.extend(["--replicaof".into(), "127.0.0.1".into(), port.to_string()]);
        children.push(redis(free_port(Ipv4Addr::LOCALHOST), dir, &more));
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
    let port = free_port(Ipv4Addr::LOCALHOST);
    let data = dir.join(format!("brolga-{replicas}"));
    let mut child = Command::new(BROLGA)
        .args(["run", "--replicas", &replicas.to_string(), "--data"])
        .arg(&data)
        .args([
            "--",
            "redis-server",
            "--port",
            &port.to_string(),
            "--save",
            "",
        ])
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
    await_answer(address, &command(&[b"PING"]), "PONG");
    System {
        name,
        address,
        waits: false,
        children: vec![child],
        data: Some(data),
    }
}

impl System {
    /// The processes that do the work, by kernel id.
    fn processes(&self) -> Vec<u32> {
        let Some(data) = &self.data else {
            return self.children.iter().map(Child::id).collect();
        };
        let output = Command::new(BROLGA)
            .args(["status", "--json", "--data"])
            .arg(data)
            .output()
            .expect("brolga status runs");
        let status: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("brolga status --json prints JSON");
        let mut found = Vec::new();
        collect_pids(&status, &mut found);
        found
    }

    /// Processor seconds used so far by all processes of the system.
    pub fn cpu_seconds(&self) -> f64 {
        self.processes()
            .iter()
            .map(|pid| process_cpu_seconds(*pid))
            .sum()
    }
}

/// Every `pid` and `server_pid` anywhere in a status.
fn collect_pids(value: &serde_json::Value, found: &mut Vec<u32>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_u64().and_then(|pid| u32::try_from(pid).ok()) {
                    Some(pid) if name == "pid" || name == "server_pid" => found.push(pid),
                    _ => collect_pids(field, found),
                }
            }
        }
        serde_json::Value::Array(items) => {
            items.iter().for_each(|item| collect_pids(item, found));
        }
        _ => {}
    }
}

/// User and system time of a process (fields 14 and 15 of its stat file, in 1/100 s).
fn process_cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or("");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}
