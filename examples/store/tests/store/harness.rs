//! Runs the real program, and a client that speaks to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A running store; killed when dropped.
pub struct Store {
    pub process: Child,
    pub address: SocketAddr,
    pub announcement: String,
}

pub fn command(directory: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brolga-store"));
    command.arg("--data").arg(directory).args(options);
    if !options.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a store that is expected to fail, and returns what it said.
pub fn failure(mut command: Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stdout.is_empty());
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

impl Store {
    pub fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    pub fn start_with(directory: &Path, options: &[&str]) -> Self {
        Self::spawn(command(directory, options))
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut process = command.spawn().unwrap();
        let mut announcement = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        stdout.read_line(&mut announcement).unwrap();
        let address = announcement
            .strip_prefix("ready on ")
            .and_then(|rest| rest.split(',').next());
        let address = address.unwrap_or_else(|| panic!("announced {announcement:?}"));
        Store {
            process,
            address: address.parse().unwrap(),
            announcement,
        }
    }

    pub fn connect(&self) -> Client {
        Client::new(self.address)
    }

    /// SIGKILL, and wait for the end.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub struct Client {
    pub stream: BufReader<TcpStream>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Client {
            stream: BufReader::new(stream),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes), "the connection was closed");
    }

    /// Whether the connection took it.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).is_ok()
    }

    /// Sends a request, its arguments being the words of `line`, and returns the reply.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(&request(line));
        self.reply()
    }

    /// The next reply, elements of an array separated by spaces.
    pub fn reply(&mut self) -> String {
        self.try_reply().expect("the connection was closed")
    }

    /// As [`Client::reply`]; `None` if the connection is at its end.
    pub fn try_reply(&mut self) -> Option<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        let (kind, rest) = line.split_at(1);
        match (kind, rest) {
            ("$", "-1") => Some("nil".to_owned()),
            ("$", length) => {
                let mut bytes = vec![0; length.parse::<usize>().unwrap() + 2];
                self.stream.read_exact(&mut bytes).ok()?;
                bytes.truncate(bytes.len() - 2);
                Some(String::from_utf8(bytes).unwrap())
            }
            ("*", count) => {
                let replies: Option<Vec<_>> = (0..count.parse::<usize>().unwrap())
                    .map(|_| self.try_reply())
                    .collect();
                Some(format!("[{}]", replies?.join(" ")))
            }
            _ => Some(line),
        }
    }
}

/// The words of `line` as a RESP array.
pub fn request(line: &str) -> Vec<u8> {
    let words: Vec<_> = line.split(' ').collect();
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes += &format!("${}\r\n{word}\r\n", word.len());
    }
    bytes.into_bytes()
}
