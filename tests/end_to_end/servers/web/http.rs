//! An exact HTTP/1.1 client, which keeps its connection, and stock ones.

use crate::fixture::settings::random_bytes;
use crate::servers::recipe::{Load, LoadControl, Target, ended, stock};
use fastrand::Rng;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const REPLY_PATIENCE: Duration = Duration::from_secs(30);

/// A connection. Where a server says that it closes it, which is its right, there is a new one.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names are in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[track_caller]
fn connected(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(REPLY_PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

impl Client {
    /// To the recipe's first port.
    #[track_caller]
    pub fn connect(at: &Target) -> Self {
        let address = at.address(0);
        Self {
            stream: connected(address),
            address,
        }
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Reply {
        self.ask("GET", path, &[])
    }

    /// A body that must be served with status 200.
    #[track_caller]
    pub fn body(&mut self, path: &str) -> Vec<u8> {
        let reply = self.get(path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.body
    }

    #[track_caller]
    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Reply {
        let (host, size) = (self.address, body.len());
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n");
        let request = [head.as_bytes(), body].concat();
        let sent = self.stream.get_mut().write_all(&request);
        sent.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let reply = self.reply(&format!("{method} {path}"));
        if reply.field("connection") == Some("close") {
            self.stream = connected(self.address);
        }
        reply
    }

    #[track_caller]
    fn reply(&mut self, asked: &str) -> Reply {
        let first = self.line(asked);
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{asked}: not a status: {first}"));
        let mut reply = Reply {
            status,
            fields: self.fields(asked),
            body: Vec::new(),
        };
        if reply.field("transfer-encoding") == Some("chunked") {
            self.chunks(asked, &mut reply.body);
        } else if let Some(size) = reply.field("content-length") {
            let size = size.parse().unwrap();
            self.bytes(asked, size, &mut reply.body);
        } else if status != 204 && status != 304 {
            let read = self.stream.read_to_end(&mut reply.body);
            read.unwrap_or_else(|error| panic!("{asked}: {error}"));
        }
        reply
    }

    #[track_caller]
    fn fields(&mut self, asked: &str) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        loop {
            let line = self.line(asked);
            if line.is_empty() {
                return fields;
            }
            let (name, value) = line.split_once(':').expect("a field");
            fields.push((name.to_lowercase(), value.trim().to_owned()));
        }
    }

    #[track_caller]
    fn chunks(&mut self, asked: &str, body: &mut Vec<u8>) {
        loop {
            let size = usize::from_str_radix(&self.line(asked), 16).expect("a chunk's size");
            self.bytes(asked, size, body);
            assert_eq!(self.line(asked), "", "a chunk is longer than it says");
            if size == 0 {
                return;
            }
        }
    }

    #[track_caller]
    fn bytes(&mut self, asked: &str, size: usize, body: &mut Vec<u8>) {
        let before = body.len();
        body.resize(before + size, 0);
        let read = self.stream.read_exact(&mut body[before..]);
        read.unwrap_or_else(|error| panic!("{asked}: {size} bytes: {error}"));
    }

    #[track_caller]
    fn line(&mut self, asked: &str) -> String {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        read.unwrap_or_else(|error| panic!("{asked}: {error}"));
        assert!(line.ends_with("\r\n"), "{asked}: closed after {line:?}");
        line.truncate(line.len() - 2);
        line
    }
}

/// Files of random content in `files`, below the directory that a server serves.
#[derive(Debug)]
pub struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    pub fn new(rng: &mut Rng, sizes: &[usize]) -> Self {
        let make = |size: &usize| (format!("files/{size}"), random_bytes(rng, *size));
        Self(sizes.iter().map(make).collect())
    }

    pub fn write(&self, root: &Path) {
        fs::create_dir(root.join("files")).unwrap();
        for (path, bytes) in &self.0 {
            fs::write(root.join(path), bytes).unwrap();
        }
    }

    /// `curl` and `ab` for the first, and some connections that are kept for all of them.
    pub fn load(&self, kept: usize) -> Vec<Load<'_>> {
        let (path, bytes) = &self.0[0];
        let stock: [Load<'_>; 2] = [
            Box::new(|at, control| curl(path, bytes, at, control)),
            Box::new(|at, control| bench(path, at, control)),
        ];
        let kept = (0..kept).map(|first| -> Load<'_> {
            Box::new(move |at, control| fetch(&self.0, first, at, control))
        });
        stock.into_iter().chain(kept).collect()
    }

    /// Lists the directory that they are in, which must name all of them.
    pub fn list(&self, at: &Target, control: &LoadControl) {
        loop {
            // Some servers close after a listing.
            let listing = Client::connect(at).body("/files/");
            let listing = String::from_utf8(listing).unwrap();
            for (path, _) in &self.0 {
                let name = path.trim_start_matches("files/");
                assert!(listing.contains(name), "{name} is not in {listing}");
            }
            if !control.step() {
                return;
            }
        }
    }
}

/// Fetches files over one connection, in rising order and around again.
pub fn fetch(files: &[(String, Vec<u8>)], first: usize, at: &Target, control: &LoadControl) {
    let mut client = Client::connect(at);
    for (path, bytes) in files.iter().cycle().skip(first) {
        let body = client.body(&format!("/{path}"));
        assert!(body == *bytes, "{path} from {at:?} is not what it was");
        if !control.step() {
            return;
        }
    }
}

/// Fetches a file again and again with `curl`, a connection each.
pub fn curl(path: &str, bytes: &[u8], at: &Target, control: &LoadControl) {
    let url = format!("http://{}/{path}", at.address(0));
    loop {
        let mut command = Command::new("curl");
        let output = ended(command.args(["--silent", "--show-error", "--fail", &url]));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{url}: {}: {told}", output.status);
        assert!(
            output.stdout == bytes,
            "{path} from {at:?} is not what it was"
        );
        if !control.step() {
            return;
        }
    }
}

/// Asks for a page again and again with `ab`, several connections at a time.
pub fn bench(path: &str, at: &Target, control: &LoadControl) {
    let url = format!("http://{}/{path}", at.address(0));
    loop {
        let size = ["-q", "-k", "-n", "20", "-c", "4", "-s", "30"];
        let said = stock(Command::new("ab").args(size).arg(&url));
        let whole = said.contains("Failed requests:        0\n")
            && said.contains("Complete requests:      20\n");
        assert!(whole && !said.contains("Non-2xx"), "{said}");
        if !control.step() {
            return;
        }
    }
}
