//! clamd, ClamAV's daemon: streams over TCP, and directories that it scans with several threads.

use super::recipe::{Load, LoadControl, Recipe, Target, ended, said};
use super::scenario::{come_back, survive, survive_in};
use crate::fixture::settings::random_bytes;
use fastrand::Rng;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The recipe's database knows it.
const BAD: &[u8] = b"BROLGA-TEST-SIGNATURE";
const NAME: &str = "Brolga.Test.UNOFFICIAL";
const FILES: usize = 16;
const REPLY_PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn clamd_comes_back_from_a_checkpoint() {
    come_back("clamd_comes_back_from_a_checkpoint", Clamd::new);
}

#[test]
fn clamd_survives_its_leader() {
    survive("clamd_survives_its_leader", Clamd::new);
}

#[test]
fn clamd_survives_its_leader_in_policy_parallel() {
    let test = "clamd_survives_its_leader_in_policy_parallel";
    survive_in("parallel", test, Clamd::new);
}

#[derive(Debug)]
pub struct Clamd {
    files: Vec<Vec<u8>>,
}

/// Every fourth is infected.
fn file(number: usize, rng: &mut Rng) -> Vec<u8> {
    let size = 1 + rng.usize(..60_000);
    let mut bytes = random_bytes(rng, size);
    if infected(number) {
        let at = rng.usize(..bytes.len());
        bytes.splice(at..at, BAD.iter().copied());
    }
    bytes
}

fn infected(number: usize) -> bool {
    number % 4 == 3
}

/// A connection, in clamd's protocol.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(at: &Target) -> Self {
        let stream = TcpStream::connect(at.address(0)).unwrap();
        stream.set_read_timeout(Some(REPLY_PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    fn send(&mut self, command: &str) {
        let stream = self.stream.get_mut();
        stream
            .write_all(format!("z{command}\0").as_bytes())
            .unwrap();
    }

    fn stream(&mut self, bytes: &[u8]) {
        self.send("INSTREAM");
        let stream = self.stream.get_mut();
        for piece in bytes.chunks(9000) {
            let size = u32::try_from(piece.len()).unwrap();
            stream.write_all(&size.to_be_bytes()).unwrap();
            stream.write_all(piece).unwrap();
        }
        stream.write_all(&[0; 4]).unwrap();
    }

    #[track_caller]
    fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        self.stream.read_until(0, &mut answer).unwrap();
        assert_eq!(answer.pop(), Some(0), "closed after {answer:?}");
        String::from_utf8(answer).unwrap()
    }

    fn all(mut self) -> String {
        let mut text = String::new();
        self.stream.read_to_string(&mut text).unwrap();
        text
    }
}

impl Clamd {
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            files: (0..FILES).map(|number| file(number, rng)).collect(),
        }
    }

    /// Streams over a connection that is kept.
    fn session(&self, first: usize, at: &Target, control: &LoadControl) {
        let mut client = Client::connect(at);
        client.send("IDSESSION");
        let files = self.files.iter().enumerate().cycle().skip(first);
        for (id, (number, bytes)) in (1..).zip(files) {
            client.stream(bytes);
            let verdict = if infected(number) {
                format!("{id}: stream: {NAME} FOUND")
            } else {
                format!("{id}: stream: OK")
            };
            assert_eq!(client.answer(), verdict, "file {number}");
            if !control.step() {
                break;
            }
        }
        client.send("END");
        assert_eq!(client.all(), "");
    }

    /// Has the server scan its own files, with several threads at once.
    fn multiscan(at: &Target, control: &LoadControl) {
        loop {
            let mut client = Client::connect(at);
            client.send("MULTISCAN /proc/self/fd/1003/files");
            let text = client.all();
            let mut found: Vec<&str> = text.split_terminator('\0').collect();
            found.sort_unstable();
            let mut expected: Vec<String> = (0..FILES)
                .filter(|number| infected(*number))
                .map(|number| format!("/proc/self/fd/1003/files/{number}: {NAME} FOUND"))
                .collect();
            expected.sort();
            assert_eq!(found, expected);
            if !control.step() {
                return;
            }
        }
    }

    /// The stock client, which sends files in parallel.
    fn clamdscan(&self, at: &Target, control: &LoadControl) {
        let here = tempfile::tempdir().unwrap();
        let config = here.path().join("client.conf");
        let (port, host) = (at.port(), at.host());
        fs::write(&config, format!("TCPSocket {port}\nTCPAddr {host}\n")).unwrap();
        let files = here.path().join("files");
        self.write(&files);
        loop {
            let mut command = Command::new("clamdscan");
            command.arg(format!("--config-file={}", config.display()));
            command.args(["--stream", "--multiscan", "--no-summary"]);
            let output = ended(command.arg(&files));
            let said = said(&output);
            assert_eq!(output.status.code(), Some(1), "{said}");
            let found = said.matches(&format!("{NAME} FOUND")).count();
            assert_eq!(found, FILES / 4, "{said}");
            if !control.step() {
                return;
            }
        }
    }

    fn write(&self, folder: &Path) {
        fs::create_dir(folder).unwrap();
        for (bytes, number) in self.files.iter().zip(0..) {
            fs::write(folder.join(format!("{number}")), bytes).unwrap();
        }
    }
}

impl Recipe for Clamd {
    fn name(&self) -> &'static str {
        "clamd"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[("clamd", "clamav-daemon"), ("clamdscan", "clamdscan")]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("/usr/sbin/clamd");
        command.arg("--version");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[3310]
    }

    fn prepare(&self, genesis: &Path) {
        self.write(&genesis.join("files"));
    }

    fn load(&self) -> Vec<Load<'_>> {
        let sessions = (0..2).map(|number| -> Load<'_> {
            Box::new(move |at, control| self.session(number * 5, at, control))
        });
        let others: [Load<'_>; 2] = [
            Box::new(Self::multiscan),
            Box::new(|at, control| self.clamdscan(at, control)),
        ];
        sessions.chain(others).collect()
    }

    /// A step is a directory for some of the clients.
    fn steps(&self) -> usize {
        30
    }

    /// The log: scans and their times, by the server's clock.
    fn dump(&self, at: &Target) -> String {
        let log = at.read("clamd.log");
        assert!(log.contains(NAME), "{log}");
        log
    }
}
