//! A client of servers that speak the Redis protocol: plain, blocking, exact.
//!
//! A reply that is not the expected one is a panic; a connection that breaks is an error, which
//! only a test that kills the client's own node may live with.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any failover; a reply that takes longer is lost.
const REPLY_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Reply>),
}

impl Reply {
    #[track_caller]
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("not an integer: {other:?}"),
        }
    }

    /// A string of any kind.
    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Self::Simple(text) => text.clone(),
            Self::Bulk(Some(bytes)) => String::from_utf8(bytes.clone()).unwrap(),
            other => panic!("not a string: {other:?}"),
        }
    }

    #[track_caller]
    pub fn number(&self) -> u64 {
        let text = self.text();
        text.parse()
            .unwrap_or_else(|_| panic!("not a number: {text}"))
    }

    #[track_caller]
    pub fn array(&self) -> &[Reply] {
        match self {
            Self::Array(replies) => replies,
            other => panic!("not an array: {other:?}"),
        }
    }
}

/// A request as its bytes.
pub fn request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
    bytes
}

#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| {
            panic!("cannot connect to {address}: {error}");
        });
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(REPLY_PATIENCE)).unwrap();
        stream.set_write_timeout(Some(REPLY_PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    #[track_caller]
    pub fn ask(&mut self, words: &[&str]) -> Reply {
        let reply = self.send(&request(words)).and_then(|()| self.reply());
        reply.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// A request of which every byte of the reply is known.
    #[track_caller]
    pub fn exchange(&mut self, words: &[&str], expected: &str) {
        let outcome = self
            .send(&request(words))
            .and_then(|()| self.expect(expected.as_bytes()));
        outcome.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }

    /// Reads as many bytes as are expected, which they must be.
    #[track_caller]
    pub fn expect(&mut self, expected: &[u8]) -> io::Result<()> {
        let mut bytes = vec![0; expected.len()];
        self.stream.read_exact(&mut bytes)?;
        let (is, should) = (bytes.escape_ascii(), expected.escape_ascii());
        assert!(bytes == expected, "the reply is `{is}`, not `{should}`");
        Ok(())
    }

    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let line = line
            .strip_suffix("\r\n")
            .unwrap_or_else(|| panic!("half a line: {line}"));
        let (kind, rest) = line.split_at_checked(1).expect("an empty line");
        Ok(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(count(rest)),
            "$" => Reply::Bulk(self.bulk(count(rest))?),
            "*" => {
                let replies = (0..count(rest)).map(|_| self.reply());
                Reply::Array(replies.collect::<io::Result<_>>()?)
            }
            _ => panic!("not a reply: {line}"),
        })
    }

    fn bulk(&mut self, length: i64) -> io::Result<Option<Vec<u8>>> {
        let Ok(length) = usize::try_from(length) else {
            return Ok(None);
        };
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        assert!(bytes.ends_with(b"\r\n"), "a string without its end");
        bytes.truncate(length);
        Ok(Some(bytes))
    }

    /// Nothing comes, neither a reply nor the end of the connection, for `patience`.
    #[track_caller]
    pub fn silent_for(&mut self, patience: Duration) {
        self.stream
            .get_ref()
            .set_read_timeout(Some(patience))
            .unwrap();
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(read) => panic!("{read} bytes came: {byte:?}"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("the connection broke: {error}"),
        }
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(REPLY_PATIENCE)).unwrap();
    }
}

fn count(text: &str) -> i64 {
    text.parse()
        .unwrap_or_else(|_| panic!("not a number: {text}"))
}
