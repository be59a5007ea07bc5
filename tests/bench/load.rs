//! A lean closed-loop client: one thread, `connections` connections, `pipeline` requests in
//! flight on each; the same for every system under test.

use super::http;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A load: the requests and how they are sent.
#[derive(Clone, Debug)]
pub struct Load {
    /// The address of the server.
    pub address: SocketAddr,
    /// Connections, each with its own requests in flight.
    pub connections: usize,
    /// Requests in flight on each.
    pub pipeline: usize,
    /// One request, encoded; `WAIT` behind a write makes it two commands.
    pub request: Vec<u8>,
    /// Replies that belong to one request.
    pub replies_per_request: usize,
    /// The form of the replies, which tells where one ends.
    pub replies: Replies,
    /// The time for which the load goes on.
    pub time: Duration,
}

/// The form of the replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// Redis's protocol.
    Resp,
    /// All of the same length, and alike up to there.
    Fixed(usize),
    /// HTTP's, each with its own length.
    Http,
}

impl Replies {
    /// Counts whole replies at the start of `bytes`; returns them and the bytes they took.
    fn count(self, bytes: &[u8]) -> (usize, usize) {
        match self {
            Self::Resp => count_replies(bytes),
            Self::Fixed(length) => (bytes.len() / length, bytes.len() / length * length),
            Self::Http => http::count_replies(bytes),
        }
    }
}

/// Asks once, and finds out how long the reply is: it has ended when nothing more comes for a while.
///
/// # Errors
/// A refused or broken connection.
pub fn reply_to(address: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    const SILENCE: Duration = Duration::from_millis(200);
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(request)?;
    let mut reply = vec![0; 1 << 20];
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut length = stream.read(&mut reply)?;
    stream.set_read_timeout(Some(SILENCE))?;
    while let Ok(more) = stream.read(&mut reply[length..]) {
        if more == 0 {
            break;
        }
        length += more;
    }
    reply.truncate(length);
    Ok(reply)
}

/// Sends a request on a connection of its own and reads until the server closes it.
///
/// # Errors
/// A refused or broken connection.
pub fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(request)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}

/// The result of a load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests answered.
    pub requests: u64,
    /// Seconds from the first request to the last answer.
    pub seconds: f64,
    /// Latencies of batches of `pipeline` requests, microseconds, sorted.
    pub latencies_us: Vec<u32>,
}

impl Outcome {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// A quantile of the latencies, microseconds.
    pub fn quantile_us(&self, quantile: f64) -> u32 {
        let last = self.latencies_us.len().saturating_sub(1);
        let at = (last as f64 * quantile).round() as usize;
        self.latencies_us.get(at).copied().unwrap_or(0)
    }
}

/// Encodes a command.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Counts whole replies at the start of `bytes`; returns them and the bytes they took. Errors in
/// replies end the benchmark: a rate of refusals means nothing.
fn count_replies(bytes: &[u8]) -> (usize, usize) {
    let (mut count, mut used) = (0, 0);
    while let Some(end) = bytes[used..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[used..used + end + 1];
        assert_ne!(
            line[0],
            b'-',
            "error reply: {}",
            String::from_utf8_lossy(line)
        );
        let mut next = used + end + 1;
        if line[0] == b'$' {
            let digits = std::str::from_utf8(&line[1..line.len() - 2]).expect("length in digits");
            let len: i64 = digits.parse().expect("length in digits");
            if len >= 0 {
                next += len as usize + 2;
            }
        }
        if next > bytes.len() {
            break;
        }
        used = next;
        count += 1;
    }
    (count, used)
}

struct Connection {
    stream: TcpStream,
    unparsed: Vec<u8>,
    replies_due: usize,
    sent_at: Instant,
}

impl Connection {
    fn send(&mut self, batch: &[u8], replies: usize) -> io::Result<()> {
        self.sent_at = Instant::now();
        self.replies_due = replies;
        // A batch is far smaller than a socket buffer that is empty, so it goes at once.
        self.stream.write_all(batch)
    }

    /// Reads what is there; true when all replies of the batch have come.
    fn receive(&mut self, buffer: &mut [u8], form: Replies) -> io::Result<bool> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.unparsed.extend_from_slice(&buffer[..count]);
                    let (replies, used) = form.count(&self.unparsed);
                    self.unparsed.drain(..used);
                    self.replies_due -= replies;
                    if self.replies_due == 0 {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Runs a load to its end.
///
/// # Errors
/// A refused or broken connection.
pub fn run(load: &Load) -> io::Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut connections = Vec::new();
    for token in 0..load.connections {
        let plain = std::net::TcpStream::connect(load.address)?;
        plain.set_nodelay(true)?;
        plain.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(plain);
        poll.registry()
            .register(&mut stream, Token(token), Interest::READABLE)?;
        let (unparsed, sent_at) = (Vec::new(), Instant::now());
        connections.push(Connection {
            stream,
            unparsed,
            replies_due: 0,
            sent_at,
        });
    }
    let batch = load.request.repeat(load.pipeline);
    let replies = load.pipeline * load.replies_per_request;
    let start = Instant::now();
    for connection in &mut connections {
        connection.send(&batch, replies)?;
    }
    let mut outcome = Outcome {
        requests: 0,
        seconds: 0.0,
        latencies_us: Vec::new(),
    };
    let mut running = connections.len();
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Events::with_capacity(1024);
    while running > 0 {
        poll.poll(&mut events, Some(Duration::from_secs(10)))?;
        if events.is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for event in &events {
            let connection = &mut connections[event.token().0];
            if connection.replies_due == 0 || !connection.receive(&mut buffer, load.replies)? {
                continue;
            }
            let latency = connection.sent_at.elapsed().as_micros();
            outcome
                .latencies_us
                .push(u32::try_from(latency).unwrap_or(u32::MAX));
            outcome.requests += load.pipeline as u64;
            if start.elapsed() < load.time {
                connection.send(&batch, replies)?;
            } else {
                running -= 1;
            }
        }
    }
    outcome.seconds = start.elapsed().as_secs_f64();
    outcome.latencies_us.sort_unstable();
    Ok(outcome)
}
