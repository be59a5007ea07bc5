//! The loads of the servers: closed loops, of our own clients or of stock ones.

use super::load::{self, Load, Outcome, Replies};
use fastrand::Rng;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

/// A closed loop of one request, on connections that stay.
fn closed_loop(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    time: Duration,
    replies: Replies,
) -> Outcome {
    let load = Load {
        address,
        connections,
        pipeline: 1,
        request: request.to_vec(),
        replies_per_request: 1,
        replies,
        time,
    };
    load::run(&load).unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// The form of the replies to a request that are all as long as the first one, which `holds` something.
fn alike(address: SocketAddr, request: &[u8], holds: &str) -> Replies {
    let reply = load::reply_to(address, request).expect("a reply");
    let text = String::from_utf8_lossy(&reply);
    assert!(text.contains(holds), "unexpected reply: {text}");
    Replies::Fixed(reply.len())
}

/// Clients that open a connection for every request; each reply has to hold something.
fn connection_each(
    address: SocketAddr,
    request: &[u8],
    clients: usize,
    time: Duration,
    holds: &str,
) -> Outcome {
    let start = Instant::now();
    let one = || {
        let mut latencies = Vec::new();
        loop {
            let sent_at = Instant::now();
            let reply = load::exchange(address, request).expect("a reply");
            let told = sent_at.elapsed().as_micros();
            latencies.push(u32::try_from(told).unwrap_or(u32::MAX));
            let text = String::from_utf8_lossy(&reply);
            assert!(text.contains(holds), "unexpected reply: {text}");
            if start.elapsed() >= time {
                return latencies;
            }
        }
    };
    let mut latencies_us = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
        let each = clients.into_iter().map(|client| client.join());
        each.flat_map(|latencies| latencies.expect("a client"))
            .collect::<Vec<u32>>()
    });
    let seconds = start.elapsed().as_secs_f64();
    latencies_us.sort_unstable();
    Outcome {
        requests: latencies_us.len() as u64,
        seconds,
        latencies_us,
    }
}

// ---- memcached ----

const MEMCACHED_CONNECTIONS: usize = 50;

fn set_request() -> Vec<u8> {
    format!("set key:000001 0 0 64\r\n{}\r\n", "v".repeat(64)).into_bytes()
}

/// 64 bytes to one key.
pub fn memcached_set(address: SocketAddr, time: Duration) -> Outcome {
    let request = set_request();
    let replies = alike(address, &request, "STORED");
    closed_loop(address, &request, MEMCACHED_CONNECTIONS, time, replies)
}

/// The same bytes back.
pub fn memcached_get(address: SocketAddr, time: Duration) -> Outcome {
    load::reply_to(address, &set_request()).expect("a reply");
    let request = b"get key:000001\r\n";
    let replies = alike(address, request, "vvvv");
    closed_loop(address, request, MEMCACHED_CONNECTIONS, time, replies)
}

// ---- web servers ----

fn get_request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes()
}

/// A file, on connections that stay.
pub fn file(path: &str, connections: usize, address: SocketAddr, time: Duration) -> Outcome {
    let request = get_request(path);
    let replies = alike(address, &request, "200 OK");
    closed_loop(address, &request, connections, time, replies)
}

/// A page that a program makes: whether it comes in chunks depends on how fast that was.
pub fn page(path: &str, connections: usize, address: SocketAddr, time: Duration) -> Outcome {
    closed_loop(
        address,
        &get_request(path),
        connections,
        time,
        Replies::Http,
    )
}

// ---- clamd ----

const SCANNED_BYTES: usize = 110_000;
const SCANNED_SEED: u64 = 1;

/// Bytes with nothing in them that a signature knows, and nothing that repeats.
fn scanned() -> Vec<u8> {
    let mut bytes = vec![0; SCANNED_BYTES];
    Rng::with_seed(SCANNED_SEED).fill(&mut bytes);
    bytes
}

/// The scanner scans itself, for four clients at a time.
pub fn scan_file(address: SocketAddr, time: Duration) -> Outcome {
    connection_each(address, b"zSCAN /usr/sbin/clamd\0", 4, time, ": OK")
}

/// The same with bytes that the clients send.
pub fn scan_stream(address: SocketAddr, time: Duration) -> Outcome {
    let bytes = scanned();
    let length = u32::try_from(bytes.len()).expect("a short file");
    let mut request = b"zINSTREAM\0".to_vec();
    request.extend(length.to_be_bytes());
    request.extend(bytes);
    request.extend([0; 4]);
    connection_each(address, &request, 4, time, "stream: OK")
}

// ---- MariaDB ----

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

/// Stock sysbench. The first, short run makes the table.
pub fn sysbench(address: SocketAddr, time: Duration) -> Outcome {
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
