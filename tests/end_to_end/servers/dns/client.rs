//! A DNS client that knows the answers, and stock ones.
//!
//! As resolvers do, it asks again when no answer comes over UDP. Over TCP every answer must come, on the
//! connection that was opened at the start.

use crate::fixture::settings::random_bytes;
use crate::servers::recipe::{Load, LoadControl, Target, stock};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const A: u16 = 1;
const TXT: u16 = 16;
const NAME_ERROR: u8 = 3;
/// A resolver asks again after this long.
const TRY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);
const HOSTS: usize = 200;
/// Questions that are sent before the first answer is awaited.
const PIPELINED: usize = 8;
/// The most bytes of an answer over UDP without extensions.
const PLAIN_BYTES_MAX: usize = 512;

/// The data that a server is given: hosts with an address and a text, of which some are too long for UDP.
#[derive(Debug)]
pub struct Hosts {
    texts: Vec<Vec<String>>,
}

/// A question and its right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    name: String,
    kind: u16,
    /// The data of the one record of the answer; none where there is no such name.
    answer: Option<Vec<u8>>,
}

impl Hosts {
    pub fn new(rng: &mut Rng) -> Self {
        let text = |host: usize, rng: &mut Rng| {
            let letters = random_bytes(rng, 200);
            let letters = letters.iter().map(|byte| char::from(b'a' + byte % 26));
            format!("host {host} {}", letters.collect::<String>())
        };
        let texts = (0..HOSTS).map(|host| {
            let count = if host % 10 == 0 { 6 } else { 1 };
            (0..count).map(|_| text(host, rng)).collect()
        });
        Self {
            texts: texts.collect(),
        }
    }

    fn address(host: usize) -> [u8; 4] {
        [192, 0, 2, (host % 250) as u8]
    }

    /// Records in the format of zone files, with absolute names.
    pub fn records(&self) -> Vec<String> {
        let mut records = Vec::new();
        for (host, texts) in self.texts.iter().enumerate() {
            let name = format!("h{host}.example.test. 3600 IN");
            let [a, b, c, d] = Self::address(host);
            records.push(format!("{name} A {a}.{b}.{c}.{d}"));
            let mut text = format!("{name} TXT");
            for part in texts {
                write!(text, " \"{part}\"").unwrap();
            }
            records.push(text);
        }
        records
    }

    fn question(&self, rng: &mut Rng) -> Question {
        let host = rng.usize(..HOSTS);
        match rng.u64(..4) {
            0 => {
                let strings = self.texts[host].iter().flat_map(|text| {
                    let length = u8::try_from(text.len()).unwrap();
                    [&[length], text.as_bytes()].concat()
                });
                Question {
                    name: format!("h{host}.example.test"),
                    kind: TXT,
                    answer: Some(strings.collect()),
                }
            }
            1 => Question {
                name: format!("nobody{host}.example.test"),
                kind: A,
                answer: None,
            },
            _ => Question {
                name: format!("h{host}.example.test"),
                kind: A,
                answer: Some(Self::address(host).into()),
            },
        }
    }

    /// Clients of our own and stock ones.
    pub fn load(&self, rng: &mut Rng) -> Vec<Load<'_>> {
        let seeded = Rng::with_seed(rng.u64(..));
        let mut load = self.load_udp(rng);
        load.push(Box::new(move |at, control| {
            self.one_connection(seeded, at, control);
        }));
        load.push(Box::new(|at, control| self.dig(at, control)));
        load
    }

    /// Only those that need no connection.
    pub fn load_udp(&self, rng: &mut Rng) -> Vec<Load<'_>> {
        let [one, two] = [1, 2].map(|_| Rng::with_seed(rng.u64(..)));
        vec![
            Box::new(move |at, control| self.one_port(one, at, control)),
            Box::new(move |at, control| self.many_ports(two, at, control)),
            Box::new(perf),
        ]
    }

    /// Several questions at a time from one port.
    fn one_port(&self, mut rng: Rng, at: &Target, control: &LoadControl) {
        let mut client = Client::new(at.address(0));
        while control.step() {
            let questions: Vec<_> = (0..PIPELINED).map(|_| self.question(&mut rng)).collect();
            client.ask(&questions);
        }
    }

    fn many_ports(&self, mut rng: Rng, at: &Target, control: &LoadControl) {
        while control.step() {
            let question = self.question(&mut rng);
            Client::new(at.address(0)).ask(&[question]);
        }
    }

    fn one_connection(&self, mut rng: Rng, at: &Target, control: &LoadControl) {
        let mut stream = TcpStream::connect(at.address(0)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut id = 0u16;
        while control.step() {
            let mut open = BTreeMap::new();
            let mut bytes = Vec::new();
            for _ in 0..PIPELINED {
                id = id.wrapping_add(1);
                let question = self.question(&mut rng);
                bytes.extend(framed(&question.encode(id)));
                open.insert(id, question);
            }
            stream.write_all(&bytes).unwrap();
            while !open.is_empty() {
                let message = read_framed(&mut stream);
                let question = open.remove(&id_of(&message)).expect("an open question");
                assert!(question.is_answered_by(&message), "truncated over TCP");
            }
        }
    }

    /// `dig`, over UDP and, where the answer is too long or it is told to, over TCP.
    fn dig(&self, at: &Target, control: &LoadControl) {
        let mut host = 0;
        while control.step() {
            host = (host + 7) % HOSTS;
            let name = format!("h{host}.example.test");
            let [a, b, c, d] = Self::address(host);
            for way in ["+notcp", "+tcp"] {
                let said = stock(&mut dig(at, &["+short", way, &name, "A"]));
                assert_eq!(said.trim(), format!("{a}.{b}.{c}.{d}"));
            }
            let said = stock(&mut dig(at, &["+short", &name, "TXT"]));
            let texts = self.texts[host].iter().map(|text| format!("\"{text}\""));
            assert_eq!(said.trim(), texts.collect::<Vec<_>>().join(" "));
        }
    }
}

/// `dig` at a node, which asks again as often as it takes.
pub fn dig(at: &Target, arguments: &[&str]) -> Command {
    let mut command = Command::new("dig");
    command.args([&format!("@{}", at.host()), "-p", &at.port()]);
    command.args(["+tries=30", "+time=1"]).args(arguments);
    command
}

/// `dnsperf`, again and again. It may miss answers, but none may be wrong.
fn perf(at: &Target, control: &LoadControl) {
    let questions = tempfile::NamedTempFile::new().unwrap();
    let names = (0..HOSTS).map(|host| format!("h{host}.example.test A\n"));
    std::fs::write(&questions, names.collect::<String>()).unwrap();
    let file = questions.path().to_str().unwrap();
    while control.step() {
        let (host, port) = (at.host(), at.port());
        let place = ["-s", &host, "-p", &port, "-d", file];
        let said = stock(
            Command::new("dnsperf")
                .args(place)
                .args(["-n", "1", "-c", "4", "-q", "20", "-t", "2"]),
        );
        let codes = said.lines().find(|line| line.contains("Response codes:"));
        let codes = codes.unwrap_or_else(|| panic!("{said}"));
        assert!(
            codes.contains("NOERROR") && codes.contains("(100.00%)"),
            "{said}"
        );
    }
}

/// A DNS server that is not wrapped: it has an address for every name.
#[derive(Debug)]
pub struct Elsewhere {
    at: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Elsewhere {
    /// Answers at this address until it is dropped.
    pub fn start(at: SocketAddr) -> Self {
        let socket = UdpSocket::bind(at).unwrap();
        let asked = Arc::default();
        let count = Arc::clone(&asked);
        thread::spawn(move || serve_elsewhere(&socket, &count));
        Self { at, asked }
    }

    /// The number of questions that came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn address(name: &str) -> [u8; 4] {
        let sum = name.bytes().fold(7u16, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(byte.into())
        });
        let [high, low] = sum.to_be_bytes();
        [198, 18, high, low]
    }

    /// Asks the wrapped server for names that it has to ask us for.
    pub fn load(mut rng: Rng, at: &Target, control: &LoadControl) {
        let mut client = Client::new(at.address(0));
        while control.step() {
            let questions = (0..PIPELINED).map(|_| {
                let name = format!("n{}.elsewhere.test", rng.u64(..10_000));
                Question {
                    answer: Some(Self::address(&name).into()),
                    kind: A,
                    name,
                }
            });
            client.ask(&questions.collect::<Vec<_>>());
        }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // An empty datagram ends it. Should it get lost, the thread ends with the process.
        let socket = UdpSocket::bind((self.at.ip(), 0)).unwrap();
        let _ = socket.send_to(&[], self.at);
    }
}

fn serve_elsewhere(socket: &UdpSocket, asked: &AtomicUsize) {
    let mut buffer = [0; 2048];
    loop {
        let Ok((len, peer)) = socket.recv_from(&mut buffer) else {
            return;
        };
        if len == 0 {
            return;
        }
        asked.fetch_add(1, Ordering::Relaxed);
        let (name, end) = name_in(&buffer[..len]);
        let mut answer = buffer[..end].to_vec();
        // An answer, authoritative as asked, with one record and without extensions.
        answer[2..12].copy_from_slice(&[0x84 | buffer[2] & 1, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        answer.extend([0xC0, 12, 0, A as u8, 0, 1, 0, 0, 0x0E, 0x10, 0, 4]);
        answer.extend(Elsewhere::address(&name));
        // Whoever has asked may be dead.
        let _ = socket.send_to(&answer, peer);
    }
}

/// The name in a question, and where the question ends.
fn name_in(message: &[u8]) -> (String, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while message[at] != 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..end]).into_owned());
        at = end;
    }
    (labels.join("."), at + 5)
}

/// One port that questions are asked from.
struct Client {
    socket: UdpSocket,
    last_id: u16,
    /// Everything that was ever asked from here: late answers must be right too.
    asked: BTreeMap<u16, Question>,
}

impl Client {
    fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
        socket.connect(server).unwrap();
        Self {
            socket,
            last_id: 0,
            asked: BTreeMap::new(),
        }
    }

    /// Asks until each question is answered.
    fn ask(&mut self, questions: &[Question]) {
        let started = Instant::now();
        let mut open: Vec<&Question> = questions.iter().collect();
        while !open.is_empty() {
            assert!(started.elapsed() < PATIENCE, "no answer to {open:?}");
            for question in &open {
                self.last_id = self.last_id.wrapping_add(1);
                let id = self.last_id;
                // Refused while the port is closed; that is as good as lost.
                let _ = self.socket.send(&question.encode(id));
                self.asked.insert(id, (*question).clone());
            }
            let deadline = Instant::now() + TRY;
            while !open.is_empty()
                && let Some(answered) = self.answer(deadline)
            {
                open.retain(|question| **question != answered);
            }
        }
    }

    /// The question to which the next answer came.
    fn answer(&mut self, deadline: Instant) -> Option<Question> {
        let left = deadline.checked_duration_since(Instant::now())?;
        let left = left.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(left)).unwrap();
        let mut buffer = [0; 2048];
        let len = self.socket.recv(&mut buffer).ok()?;
        let message = &buffer[..len];
        let question = self.asked.get(&id_of(message));
        let question = question.expect("an answer to a question").clone();
        if !question.is_answered_by(message) {
            let len = question.encoded_answer_len();
            assert!(len > PLAIN_BYTES_MAX, "{question:?}");
        }
        Some(question)
    }
}

impl Question {
    fn encode(&self, id: u16) -> Vec<u8> {
        let mut bytes = id.to_be_bytes().to_vec();
        // One question, and whoever is asked may ask others.
        bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in self.name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.bytes());
        }
        bytes.push(0);
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(1u16.to_be_bytes());
        bytes
    }

    fn encoded_answer_len(&self) -> usize {
        // A record with a compressed name has 12 bytes beside its data.
        self.encode(0).len() + 12 + self.answer.as_ref().map_or(0, Vec::len)
    }

    /// False: the answer is cut, and wants to be asked for over TCP. Panics if it is wrong.
    fn is_answered_by(&self, message: &[u8]) -> bool {
        let asked = self.encode(id_of(message));
        assert!(message[2] & 0x80 != 0, "not an answer: {message:?}");
        assert_eq!(message[12..asked.len()], asked[12..], "to another question");
        if message[2] & 2 != 0 {
            return false;
        }
        let (code, records) = (
            message[3] & 15,
            u16::from_be_bytes([message[6], message[7]]),
        );
        let Some(data) = &self.answer else {
            assert_eq!((code, records), (NAME_ERROR, 0), "{self:?}");
            return true;
        };
        assert_eq!((code, records), (0, 1), "{self:?}");
        // A compressed name, kind, class, time to live, length, data.
        let record = &message[asked.len()..];
        assert_eq!(record[..2], [0xC0, 12], "{self:?}");
        assert_eq!(record[2..4], self.kind.to_be_bytes(), "{self:?}");
        let length = usize::from(u16::from_be_bytes([record[10], record[11]]));
        assert_eq!(record[12..12 + length], data[..], "{self:?}");
        true
    }
}

fn id_of(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes(), message].concat()
}

fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message
}
