//! What is measured: servers with the loads that the field measures them with.

use super::load::{self, Load, Outcome, Replies};
use super::systems::{self, System, free_port};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A server under a load.
pub struct Subject {
    /// Name in the table.
    pub name: &'static str,
    /// Puts what the server starts with into a directory; `port` is its port.
    prepare: fn(dir: &Path, port: u16),
    /// The server's command line.
    command: fn(port: u16) -> Vec<String>,
    /// Runs the load for a while.
    pub load: fn(SocketAddr, Duration) -> Outcome,
}

/// All of them.
pub fn all() -> Vec<Subject> {
    vec![
        Subject {
            name: "memcached -t 4, get",
            prepare: |_, _| {},
            command: memcached,
            load: memcached_get,
        },
        Subject {
            name: "memcached -t 4, set",
            prepare: |_, _| {},
            command: memcached,
            load: memcached_set,
        },
        Subject {
            name: "nginx 1 KiB",
            prepare: |dir, port| {
                copy_recipe("nginx", dir, port);
                let config = dir.join("nginx.conf");
                let text = fs::read_to_string(&config).expect("the configuration");
                // The client counts bytes; a connection that ends in between is not its business.
                let text =
                    text.replace("sendfile on;", "sendfile on; keepalive_requests 100000000;");
                fs::write(config, text).expect("the configuration");
                fs::write(dir.join("html/1k"), [b'x'; 1024]).expect("a file");
            },
            command: |_| words("nginx -p . -c nginx.conf -e error.log"),
            load: |address, time| http("/1k", 64, address, time),
        },
        Subject {
            name: "Apache page of 70 ms",
            prepare: |dir, port| {
                copy_recipe("apache", dir, port);
                let config = dir.join("apache.conf");
                let text = fs::read_to_string(&config).expect("the configuration");
                fs::write(config, text + "MaxKeepAliveRequests 0\n").expect("the configuration");
            },
            command: |_| words("apache2 -d . -f apache.conf -DFOREGROUND"),
            load: |address, time| http("/cgi/page.php?1", 8, address, time),
        },
        Subject {
            name: "MariaDB read_write, 8 threads",
            prepare: prepare_mariadb,
            command: mariadb,
            load: sysbench,
        },
        Subject {
            name: "clamd scans",
            prepare: |dir, port| {
                copy_recipe("clamd", dir, port);
                prepare_scans(dir);
            },
            command: |_| words("clamd --config-file=clamd.conf"),
            load: scans,
        },
    ]
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

impl Subject {
    /// The three systems, started and answering.
    pub fn systems(&self, dir: &Path) -> Vec<System> {
        let patience = Duration::from_secs(60);
        let native_dir = dir.join("native");
        fs::create_dir(&native_dir).expect("a directory");
        let port = free_port(Ipv4Addr::LOCALHOST);
        (self.prepare)(&native_dir, port);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let native = systems::unwrapped("native", &native_dir, address, &(self.command)(port));
        systems::await_listener(address, patience);
        let mut all = vec![native];
        for (name, replicas) in [("brolga 1 replica", 1), ("brolga 3 replicas", 3)] {
            let genesis = dir.join(format!("genesis-{replicas}"));
            fs::create_dir(&genesis).expect("a directory");
            let port = free_port(Ipv4Addr::LOCALHOST);
            (self.prepare)(&genesis, port);
            let data = dir.join(format!("brolga-{replicas}"));
            let command = (self.command)(port);
            let system = systems::wrapped(name, &data, replicas, Some(&genesis), &command);
            systems::await_listener(system.address, patience);
            all.push(system);
        }
        for system in &all {
            // Warms up, and fills tables.
            (self.load)(system.address, Duration::from_millis(500));
        }
        all
    }
}

/// Copies the recipe that users have, with another port.
fn copy_recipe(name: &str, to: &Path, port: u16) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/recipes")
        .join(name)
        .join("genesis");
    copy(&from, to, port);
}

fn copy(from: &Path, to: &Path, port: u16) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("the recipe") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to, port);
            continue;
        }
        fs::copy(&from, &to).expect("a copy");
        if let Ok(text) = fs::read_to_string(&from) {
            let text = text
                .replace("8080", &port.to_string())
                .replace("3310", &port.to_string());
            fs::write(&to, text).expect("a copy");
        }
    }
}

/// A closed loop of requests whose replies are all alike.
fn closed_loop(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    time: Duration,
    holds: &str,
) -> Outcome {
    let reply = load::reply_to(address, request).expect("a reply");
    let text = String::from_utf8_lossy(&reply);
    assert!(text.contains(holds), "unexpected reply: {text}");
    let load = Load {
        address,
        connections,
        pipeline: 1,
        request: request.to_vec(),
        replies_per_request: 1,
        replies: Replies::Fixed(reply.len()),
        time,
    };
    load::run(&load).unwrap_or_else(|error| panic!("{address}: {error}"))
}

// ---- memcached ----

fn memcached(port: u16) -> Vec<String> {
    words(&format!(
        "memcached --listen 0.0.0.0 --port {port} --threads 4 --user nobody"
    ))
}

fn memcached_set(address: SocketAddr, time: Duration) -> Outcome {
    let request = format!("set key:000001 0 0 64\r\n{}\r\n", "v".repeat(64));
    closed_loop(address, request.as_bytes(), 50, time, "STORED")
}

fn memcached_get(address: SocketAddr, time: Duration) -> Outcome {
    let request = format!("set key:000001 0 0 64\r\n{}\r\n", "v".repeat(64));
    load::reply_to(address, request.as_bytes()).expect("a reply");
    closed_loop(address, b"get key:000001\r\n", 50, time, "vvvv")
}

// ---- web servers ----

fn http(path: &str, connections: usize, address: SocketAddr, time: Duration) -> Outcome {
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
    closed_loop(address, request.as_bytes(), connections, time, "200 OK")
}

// ---- MariaDB ----

/// A server with a user and a database for sysbench. What it starts with is made by itself, natively.
fn prepare_mariadb(dir: &Path, _: u16) {
    let data = dir.join("data");
    let made = Command::new("mariadb-install-db")
        .args(["--no-defaults", "--auth-root-authentication-method=normal"])
        .arg("--skip-test-db")
        .arg(format!("--datadir={}", data.display()))
        .arg("--user=root")
        .output()
        .expect("mariadb-install-db runs (tests/setup.sh installs it)");
    assert!(made.status.success(), "mariadb-install-db failed: {made:?}");
    let statements =
        "CREATE DATABASE sbtest; CREATE USER bench@'%'; GRANT ALL ON *.* TO bench@'%';";
    let boot = dir.join("users.sql");
    fs::write(&boot, statements).expect("a file");
    let input = fs::File::open(&boot).expect("a file");
    let mut bootstrap = Command::new("mariadbd");
    bootstrap
        .args(["--no-defaults", "--bootstrap", "--user=root"])
        .arg(format!("--datadir={}", data.display()))
        .stdin(input);
    // Accounts can't be made before the tables of privileges are loaded.
    fs::write(
        &boot,
        format!("FLUSH PRIVILEGES; {statements}").replace("; ", ";\n"),
    )
    .expect("a file");
    let output = bootstrap.output().expect("mariadbd runs");
    assert!(output.status.success(), "bootstrap failed: {output:?}");
}

fn mariadb(port: u16) -> Vec<String> {
    words(&format!(
        "mariadbd --no-defaults --user=root --datadir=./data --port={port} \
         --socket=./mysqld.sock --bind-address=0.0.0.0 --skip-name-resolve"
    ))
}

const TABLE_ROWS: u32 = 10_000;
const SYSBENCH_THREADS: u32 = 8;

fn sysbench_command(address: SocketAddr, verb: &str, time: Duration) -> String {
    let output = Command::new("sysbench")
        .args(["oltp_read_write", "--mysql-user=bench", "--mysql-db=sbtest"])
        .args(["--tables=1", "--histogram=on", "--percentile=99"])
        .arg(format!("--table-size={TABLE_ROWS}"))
        .arg(format!("--threads={SYSBENCH_THREADS}"))
        .arg(format!("--mysql-host={}", address.ip()))
        .arg(format!("--mysql-port={}", address.port()))
        .arg(format!("--time={}", time.as_secs().max(1)))
        .arg(verb)
        .output()
        .expect("sysbench runs (tests/setup.sh installs it)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "sysbench {verb}: {said}");
    said
}

fn sysbench(address: SocketAddr, time: Duration) -> Outcome {
    if time < Duration::from_secs(1) {
        sysbench_command(address, "prepare", time);
    }
    let start = Instant::now();
    let said = sysbench_command(address, "run", time);
    outcome_of_sysbench(&said, start.elapsed().as_secs_f64())
}

/// Transactions, and their latencies from the histogram (`value -- **** count`).
fn outcome_of_sysbench(said: &str, fallback_seconds: f64) -> Outcome {
    let mut latencies_us = Vec::new();
    let mut seconds = fallback_seconds;
    for line in said.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let ["total", "time:", value] = fields[..] {
            seconds = value.trim_end_matches('s').parse().expect("seconds");
        }
        let Some((value, count)) = line.split_once('|') else {
            continue;
        };
        let count = count
            .split_whitespace()
            .last()
            .and_then(|count| count.parse().ok());
        if let (Ok(value), Some(count)) = (value.trim().parse::<f64>(), count) {
            let latency = (value * 1e3) as u32;
            latencies_us.extend(std::iter::repeat_n(latency, count));
        }
    }
    assert!(
        !latencies_us.is_empty(),
        "sysbench prints no histogram: {said}"
    );
    latencies_us.sort_unstable();
    Outcome {
        requests: latencies_us.len() as u64,
        seconds,
        latencies_us,
    }
}

// ---- clamd ----

const SCANNED_BYTES: usize = 110_000;

/// A file with nothing in it that a signature knows, and nothing that repeats.
fn prepare_scans(dir: &Path) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(SCANNED_BYTES)
    .collect();
    fs::write(dir.join("scanned.bin"), bytes).expect("a file");
}

/// Streams a file to the scanner, four clients at a time; a connection for each scan.
fn scans(address: SocketAddr, time: Duration) -> Outcome {
    let dir = tempfile::tempdir().expect("a directory");
    prepare_scans(dir.path());
    let bytes = fs::read(dir.path().join("scanned.bin")).expect("a file");
    let start = Instant::now();
    let latencies = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| scan_until(address, &bytes, start + time)))
            .collect();
        let each = clients
            .into_iter()
            .map(|client| client.join().expect("a client"));
        each.flatten().collect::<Vec<u32>>()
    });
    let seconds = start.elapsed().as_secs_f64();
    let mut latencies_us = latencies;
    latencies_us.sort_unstable();
    Outcome {
        requests: latencies_us.len() as u64,
        seconds,
        latencies_us,
    }
}

fn scan_until(address: SocketAddr, bytes: &[u8], end: Instant) -> Vec<u32> {
    let length = u32::try_from(bytes.len()).expect("a short file");
    let mut request = b"zINSTREAM\0".to_vec();
    request.extend(length.to_be_bytes());
    request.extend(bytes);
    request.extend([0; 4]);
    let mut latencies = Vec::new();
    loop {
        let start = Instant::now();
        let reply = load::exchange(address, &request).expect("a reply");
        assert_eq!(
            reply,
            b"stream: OK\0",
            "{}",
            String::from_utf8_lossy(&reply)
        );
        latencies.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
        if Instant::now() >= end {
            return latencies;
        }
    }
}
