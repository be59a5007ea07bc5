//! One connection: reads input, runs every complete request in it, and sends all replies at once.
//!
//! The requests of one read are one run on the store: one lock, at most one transaction to wait
//! for, one write to the socket. Pipelined requests are therefore cheap. A run ends early only if
//! its replies get large.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::command::Command;
use crate::resp::{self, ProtocolError, REQUEST_BYTES_MAX};
use crate::server_state::Shared;
use crate::view::View;

/// Size of the input buffer of a connection that sends no large requests.
const INPUT_BYTES: usize = 16 << 10;
/// Most requests in one run.
const RUN_REQUESTS_MAX: usize = 1024;
/// A run ends early when its replies reach this size.
const RUN_REPLY_BYTES: usize = 256 << 10;
/// Time limit for sending a client the message that the store stops.
const STOPPING_TIMEOUT: Duration = Duration::from_secs(1);

/// The continuation of a connection after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Close,
    Shutdown,
}

/// Serves `stream` until either side closes it.
pub(crate) fn serve(stream: TcpStream, id: u64, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session {
        stream,
        id,
        shared,
        input: Input::new(),
        out: Vec::new(),
    };
    while session.input.fill(&mut session.stream)? > 0 {
        if session.run_all()? == Flow::Close {
            break;
        }
    }
    Ok(())
}

struct Session<'s> {
    stream: TcpStream,
    id: u64,
    shared: &'s Shared,
    input: Input,
    out: Vec<u8>,
}

/// A request, and the position in the input where it ends.
struct Request<'a> {
    command: Command<'a>,
    end: usize,
}

impl Session<'_> {
    /// Runs all complete requests in the input.
    fn run_all(&mut self) -> io::Result<Flow> {
        loop {
            let before = self.input.start;
            let flow = self.run_some()?;
            if flow != Flow::Continue || self.input.start == before {
                return Ok(flow);
            }
        }
    }

    fn run_some(&mut self) -> io::Result<Flow> {
        let (requests, taken, malformed) = scan(self.input.received());
        let (id, shared, out) = (self.id, self.shared, &mut self.out);
        let ran = match requests.is_empty() {
            true => Ok((Flow::Continue, taken)),
            false => shared
                .store
                .run(|view| run(&requests, view, shared, id, out)),
        };
        let Ok((mut flow, done)) = ran else {
            return self.halted();
        };
        let cut_short = requests.last().is_some_and(|last| done < last.end);
        let consumed = if cut_short { done } else { taken };
        if let (Some(error), Flow::Continue, false) = (malformed, flow, cut_short) {
            resp::error(&mut self.out, &format!("ERR {error}"));
            flow = Flow::Close;
        }
        drop(requests);
        self.input.consume(consumed);
        self.send()?;
        if flow == Flow::Shutdown {
            shared.stop.raise();
            flow = Flow::Close;
        }
        Ok(flow)
    }

    /// Discards the replies of a run, which reveal what is not durable and may never be, and ends
    /// the connection. The client gets a message before the store stops, because the process may
    /// end first. A client that does not read delays that only briefly.
    fn halted(&mut self) -> io::Result<Flow> {
        self.out.clear();
        resp::error(
            &mut self.out,
            "ERR the store is stopping; the request may not have happened",
        );
        let told = self
            .stream
            .set_write_timeout(Some(STOPPING_TIMEOUT))
            .and_then(|()| self.send());
        self.shared.stop.raise();
        told.map(|()| Flow::Close)
    }

    fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        self.out.shrink_to(RUN_REPLY_BYTES);
        Ok(())
    }
}

/// Finds the complete requests in `input`, up to one that ends the connection. Returns them, the
/// number of bytes that they and empty lines between them take, and the error in what follows, if
/// any.
fn scan(input: &[u8]) -> (Vec<Request<'_>>, usize, Option<ProtocolError>) {
    let (mut requests, mut arguments, mut taken) = (Vec::new(), Vec::new(), 0);
    while requests.len() < RUN_REQUESTS_MAX {
        match resp::parse(&input[taken..], &mut arguments) {
            Ok(None) => break,
            Ok(Some(length)) => taken += length,
            Err(error) => return (requests, taken, Some(error)),
        }
        if arguments.is_empty() {
            continue;
        }
        let command = Command::parse(&arguments);
        let last = matches!(command, Command::Quit | Command::Shutdown);
        requests.push(Request {
            command,
            end: taken,
        });
        if last {
            break;
        }
    }
    (requests, taken, None)
}

/// Runs `requests` until one ends the connection or the replies get large. Returns the position
/// where it stopped.
fn run(
    requests: &[Request<'_>],
    view: &mut View,
    shared: &Shared,
    id: u64,
    out: &mut Vec<u8>,
) -> (Flow, usize) {
    let mut done = 0;
    for request in requests {
        let flow = answer(&request.command, view, shared, id, out);
        done = request.end;
        if flow != Flow::Continue {
            return (flow, done);
        }
        if out.len() >= RUN_REPLY_BYTES {
            break;
        }
    }
    (Flow::Continue, done)
}

fn answer(
    command: &Command<'_>,
    view: &mut View,
    shared: &Shared,
    id: u64,
    out: &mut Vec<u8>,
) -> Flow {
    match command {
        Command::Get(key) => view.get(key, out),
        Command::Set {
            key,
            value,
            condition,
        } => view.set(key, value, *condition, out),
        Command::Del(keys) => view.del(keys, out),
        Command::Exists(keys) => view.exists(keys, out),
        Command::Incr(key) => view.incr(key, out),
        Command::Cas { key, old, new } => view.cas(key, old, new, out),
        Command::Keys { prefix } => view.keys(prefix, out),
        Command::DbSize => view.dbsize(out),
        Command::Info => resp::bulk(out, shared.info(view.len()).as_bytes()),
        Command::Ping(None) => resp::status(out, "PONG"),
        Command::Ping(Some(message)) | Command::Echo(message) => resp::bulk(out, message),
        Command::Time => time(out),
        Command::Hello => hello(id, out),
        Command::ClientId => resp::number(out, id as i64),
        Command::ConfigGet(names) => config_get(names, out),
        Command::Fixed(reply) => out.extend_from_slice(reply),
        Command::Refused(text) => resp::error(out, text),
        Command::Quit => {
            resp::ok(out);
            return Flow::Close;
        }
        Command::Shutdown => return Flow::Shutdown,
    }
    Flow::Continue
}

/// Answers with the seconds since the epoch, and the microseconds within the second.
fn time(out: &mut Vec<u8>) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    resp::array(out, 2);
    resp::bulk(out, now.as_secs().to_string().as_bytes());
    resp::bulk(out, now.subsec_micros().to_string().as_bytes());
}

fn hello(id: u64, out: &mut Vec<u8>) {
    resp::array(out, 14);
    for (name, value) in [
        ("server", env!("CARGO_PKG_NAME")),
        ("version", env!("CARGO_PKG_VERSION")),
        ("mode", "standalone"),
        ("role", "master"),
    ] {
        resp::bulk(out, name.as_bytes());
        resp::bulk(out, value.as_bytes());
    }
    resp::bulk(out, b"proto");
    resp::number(out, 2);
    resp::bulk(out, b"id");
    resp::number(out, id as i64);
    resp::bulk(out, b"modules");
    resp::array(out, 0);
}

/// Answers with the two settings that redis-benchmark asks for. There are no others.
fn config_get(names: &[&[u8]], out: &mut Vec<u8>) {
    let settings: [(&[u8], &[u8]); 2] = [(b"save", b""), (b"appendonly", b"yes")];
    let asked = |setting: &&(&[u8], &[u8])| {
        names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(setting.0) || *name == b"*")
    };
    resp::array(out, 2 * settings.iter().filter(asked).count());
    for (name, value) in settings.iter().filter(asked) {
        resp::bulk(out, name);
        resp::bulk(out, value);
    }
}

/// Received bytes that are not run yet.
struct Input {
    /// Received bytes are at `start..end`; free space follows.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn new() -> Self {
        Input {
            bytes: vec![0; INPUT_BYTES],
            start: 0,
            end: 0,
        }
    }

    fn received(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        assert!(
            count <= self.end - self.start,
            "consumed more than was received"
        );
        self.start += count;
    }

    /// Reads once. Returns the number of bytes, 0 at the end of the stream.
    fn fill(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        loop {
            match stream.read(&mut self.bytes[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
            }
        }
    }

    /// Moves the remaining bytes to the front, and doubles the buffer if it is full. A large buffer
    /// is freed once it is empty.
    fn make_room(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.bytes.len() {
            // The parser takes or refuses a request before it gets this long.
            assert!(self.end <= 2 * REQUEST_BYTES_MAX, "a request without end");
            self.bytes.resize(self.end * 2, 0);
        } else if self.end == 0 && self.bytes.len() > INPUT_BYTES * 4 {
            *self = Input::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_grows_while_a_request_is_incomplete_and_shrinks_after() {
        let mut input = Input::new();
        let data = vec![7; INPUT_BYTES * 9];
        let mut source = &data[..];
        while input.fill(&mut source).unwrap() > 0 {}
        assert_eq!(input.received(), data);
        input.consume(data.len() - 1);
        input.make_room();
        assert_eq!(input.received(), [7]);
        input.consume(1);
        input.make_room();
        assert_eq!(input.bytes.len(), INPUT_BYTES);
    }

    #[test]
    fn scan_stops_at_a_command_that_ends_the_connection_and_at_an_error() {
        let (requests, taken, error) = scan(b"PING\r\n\r\nQUIT\r\n*nonsense\r\n");
        assert_eq!((requests.len(), taken, error), (2, 14, None));
        let (requests, taken, error) = scan(b"PING\r\n*x\r\nPING\r\n");
        assert_eq!((requests.len(), taken, error.is_some()), (1, 6, true));
        let (requests, taken, error) = scan(b"PING\r\n\r\nPIN");
        assert_eq!((requests.len(), taken, error), (1, 8, None));
    }

    #[test]
    fn scan_takes_a_limited_number_of_requests() {
        let input = b"PING\r\n".repeat(RUN_REQUESTS_MAX + 1);
        let (requests, taken, _) = scan(&input);
        assert_eq!((requests.len(), taken), (RUN_REQUESTS_MAX, input.len() - 6));
    }
}
