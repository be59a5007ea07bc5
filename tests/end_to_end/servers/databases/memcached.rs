//! memcached with four worker threads.

use crate::servers::recipe::{Load, LoadControl, Recipe, Target, stock};
use crate::servers::scenario::{come_back, survive};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

const CLIENTS: usize = 4;
const KEYS: usize = 40;
const REPLY_PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn memcached_comes_back_from_a_checkpoint() {
    come_back("memcached_comes_back_from_a_checkpoint", |_| {
        Memcached::default()
    });
}

#[test]
fn memcached_survives_its_leader() {
    survive("memcached_survives_its_leader", |_| Memcached::default());
}

/// The state that the clients expect.
#[derive(Debug, Default)]
pub struct Memcached {
    /// Every number that the shared counter has given out.
    counted: Mutex<BTreeSet<u64>>,
    /// The values that must be there at the end, by key.
    kept: Mutex<Vec<(String, Vec<u8>)>>,
}

impl Recipe for Memcached {
    fn name(&self) -> &'static str {
        "memcached"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("memcached", "memcached"),
            ("memccapable", "libmemcached-tools"),
            ("memcslap", "libmemcached-tools"),
        ]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("memcached");
        command.arg("--version");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[11211]
    }

    /// Ready when it has passed, once, the stock test of conformance, which removes all items.
    fn ready(&self, at: &Target) -> bool {
        let listens = TcpStream::connect(at.address(0)).is_ok();
        if listens && at.node == 1 {
            let address = ["-h", &at.host(), "-p", &at.port()];
            stock(Command::new("memccapable").args(address));
        }
        listens
    }

    fn load(&self) -> Vec<Load<'_>> {
        let own = (0..CLIENTS).map(|number| -> Load<'_> {
            Box::new(move |at, control| self.keep(number, at, control))
        });
        let slap: Load<'_> = Box::new(slap);
        own.chain([slap]).collect()
    }

    fn dump(&self, at: &Target) -> String {
        let mut client = Client::connect(at);
        for (key, value) in self.kept.lock().unwrap().iter() {
            assert_eq!(client.get(key).as_ref(), Some(value), "{key}");
        }
        let counted = self.counted.lock().unwrap();
        let (least, most) = (counted.first().unwrap(), counted.last().unwrap());
        assert_eq!(
            most - least + 1,
            counted.len() as u64,
            "a number is missing"
        );
        assert_eq!(client.get("shared"), Some(most.to_string().into_bytes()));
        client.send(b"lru_crawler metadump all\r\n");
        let mut items: Vec<String> = client
            .until("END")
            .iter()
            .map(|item| lasting(item))
            .collect();
        items.sort();
        items.concat()
    }
}

impl Memcached {
    /// Sets, replaces, deletes, counts; every reply is known beforehand.
    fn keep(&self, number: usize, at: &Target, control: &LoadControl) {
        let mut client = Client::connect(at);
        client.ask("add shared 0 0 1\r\n0\r\n");
        let mut values = vec![None; KEYS];
        for round in 0.. {
            let key = format!("client{number}:{}", round % KEYS);
            let value = format!("{number}/{round};").repeat(1 + round * 7 % 300);
            let known = &mut values[round % KEYS];
            match round % 11 {
                10 if known.is_some() => {
                    assert_eq!(client.ask(&format!("delete {key}\r\n")), "DELETED\r\n");
                    *known = None;
                }
                _ => {
                    let set = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
                    assert_eq!(client.ask(&set), "STORED\r\n");
                    *known = Some(value.into_bytes());
                }
            }
            assert_eq!(client.get(&key), *known, "{key}");
            let count = client.ask("incr shared 1\r\n").trim_end().parse();
            let fresh = self.counted.lock().unwrap().insert(count.unwrap());
            assert!(fresh, "a number was given out twice");
            if round % 50 == 0 {
                client.statistics();
            }
            if !control.step() {
                break;
            }
        }
        let keys = (0..).map(|at| format!("client{number}:{at}"));
        let kept = keys
            .zip(values)
            .filter_map(|(key, value)| Some((key, value?)));
        self.kept.lock().unwrap().extend(kept);
    }
}

/// The line about an item, but for when it was read last: reading it for a dump changes that.
fn lasting(item: &str) -> String {
    let words = item.split(' ').filter(|word| !word.starts_with("la="));
    words.collect::<Vec<_>>().join(" ")
}

/// A stock client, again and again.
fn slap(at: &Target, control: &LoadControl) {
    let server = format!("--servers={}", at.address(0));
    loop {
        for test in ["--test=set", "--test=get"] {
            let size = [
                "--concurrency=4",
                "--execute-number=20",
                "--initial-load=50",
            ];
            let said = stock(Command::new("memcslap").args([&server, test]).args(size));
            assert!(!said.to_lowercase().contains("fail"), "{said}");
        }
        if !control.step() {
            return;
        }
    }
}

/// A connection, in the text protocol.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(at: &Target) -> Self {
        let stream = TcpStream::connect(at.address(0)).unwrap();
        stream.set_read_timeout(Some(REPLY_PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "closed after {line:?}");
        line
    }

    fn ask(&mut self, request: &str) -> String {
        self.send(request.as_bytes());
        self.line()
    }

    /// Lines up to one that is `end`, without it.
    fn until(&mut self, end: &str) -> Vec<String> {
        let lines = std::iter::from_fn(|| Some(self.line()));
        lines.take_while(|line| line.trim_end() != end).collect()
    }

    fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        let head = self.ask(&format!("get {key}\r\n"));
        if head == "END\r\n" {
            return None;
        }
        let size = head.trim_end().rsplit(' ').next().unwrap();
        let mut value = vec![0; size.parse::<usize>().unwrap() + 2];
        self.stream.read_exact(&mut value).unwrap();
        assert!(value.ends_with(b"\r\n"));
        value.truncate(value.len() - 2);
        assert_eq!(self.line(), "END\r\n");
        Some(value)
    }

    /// Process id, times, counters: equal everywhere, or the hashes of the replicas differ.
    fn statistics(&mut self) {
        self.send(b"stats\r\n");
        let lines = self.until("END");
        assert!(
            lines.contains(&"STAT threads 4\r\n".to_owned()),
            "{lines:?}"
        );
    }
}
