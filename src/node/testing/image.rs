//! Real servers in containers, dumped and brought back. The test plays the node: it feeds a tape,
//! hashes what comes back, and lets a server that was brought back repeat what the first one did
//! after the dump.
//!
//! Needs root and a CRIU that works; skipped loudly otherwise.

use crate::server::process::{Process, ServerHost, WrappedServer, seed};
use crate::server::tape::ServerTape;
use brolga_checkpoint::criu::Criu;
use brolga_checkpoint::{Checkpointer, Position};
use brolga_config::{Containment, NodeConfig};
use brolga_os::sys;
use brolga_tape::ConnId;
use brolga_tape::entry::EntryBuilder;
use brolga_tape::entry::Event;
use brolga_tape::record::{Record, decode};
use brolga_tape::ring::{Parameters, object_bytes};
use mio::{Poll, Token};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const CLOCKS: u32 = 1000;
const SECOND_NS: u64 = 1_000_000_000;
/// More entries than any server needs to come up.
const ENTRIES_MAX: usize = 20_000;

/// Whether the machine can do it; says why not.
fn is_possible(test: &str) -> bool {
    match Criu::probe() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("{test}: SKIPPED, {error}");
            false
        }
    }
}

fn config(dir: &Path, command: &[&str]) -> NodeConfig {
    let path = dir.join("config.toml");
    let text = format!(
        "cluster = \"00112233445566778899aabbccddeeff\"\nnode = 1\ndata_dir = \".\"\n\
         command = {command:?}\n\
         [[members]]\nid = 1\naddress = \"127.0.0.1\"\npeer = \"127.0.0.1:1\"\n\
         sidecar = \"127.0.0.1:2\"\n"
    );
    std::fs::write(&path, text).unwrap();
    let mut config = NodeConfig::load(&path).unwrap();
    config.container = Containment::Required;
    config.pin_cpu = Some(0);
    config
}

fn parameters(config: &NodeConfig) -> Parameters {
    Parameters {
        seed: seed(config),
        input_bytes: 1 << 20,
        output_bytes: 1 << 20,
        quantum: config.quantum_ticks,
        perturb_us: 0,
        cpus: 1,
        keep_fsync: 0,
        host_loopback: 0,
        parallel: 0,
        syscall_filter: u32::from(config.syscall_filter),
        trace: 0,
        unix: brolga_tape::unix::Paths::NONE,
    }
}

/// A server, and all that a node knows of it.
struct Player {
    _poll: Poll,
    process: Option<Process>,
    tape: ServerTape,
    slot: u64,
    /// Of all records so far.
    output_hash: u64,
    schedule_hash: u64,
    idle: bool,
    deadline_ns: u64,
    time_ns: u64,
    listeners: Vec<u32>,
    answers: BTreeMap<u64, Vec<u8>>,
}

impl Player {
    fn start(host: &mut WrappedServer, parameters: &Parameters) -> Self {
        let objects = host.objects(object_bytes(parameters)).unwrap();
        let tape = ServerTape::create_on(objects, parameters).unwrap();
        let started = host.start(tape.object(), tape.doorbell()).unwrap();
        let poll = Poll::new().unwrap();
        let process = Process::watch(started, poll.registry(), Token(1)).unwrap();
        Self {
            _poll: poll,
            process: Some(process),
            tape,
            slot: 0,
            output_hash: 0,
            schedule_hash: 0,
            idle: false,
            deadline_ns: u64::MAX,
            time_ns: 1_700_000_000 * SECOND_NS,
            listeners: Vec::new(),
            answers: BTreeMap::new(),
        }
    }

    /// The same server, brought back from `image`, where this one was then.
    fn restore(&self, host: &mut WrappedServer, parameters: &Parameters, image: &Path) -> Self {
        let (objects, started) = host.restore(image, object_bytes(parameters)).unwrap();
        let tape = ServerTape::create_on(objects, parameters).unwrap();
        let poll = Poll::new().unwrap();
        let process = Process::watch(started, poll.registry(), Token(1)).unwrap();
        Self {
            _poll: poll,
            process: Some(process),
            tape,
            listeners: self.listeners.clone(),
            answers: BTreeMap::new(),
            ..*self
        }
    }

    /// One entry, until the server is done with it.
    fn feed(&mut self, events: &[Event<'_>]) {
        let mut entry = EntryBuilder::new();
        for event in events {
            entry.push(event);
        }
        self.time_ns += SECOND_NS / 1000;
        self.slot += 1;
        let entry = entry.finish(self.time_ns, CLOCKS);
        self.tape.tape_mut().push_entry(self.slot, &entry).unwrap();
        self.tape.wake_server();
        // The end of an entry is reported when the server asks for the next one.
        while !self.take_output() {
            if !self.tape.tape_mut().ask_for_doorbell() {
                self.await_doorbell();
            }
            self.tape.tape_mut().cancel_doorbell();
            sys::drain_counter(self.tape.doorbell());
        }
    }

    fn await_doorbell(&mut self) {
        let mut wait = libc::pollfd {
            fd: self.tape.doorbell().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one live element.
        let ready = unsafe { libc::poll(&raw mut wait, 1, 60_000) };
        let ended = self.process.as_mut().map(Process::ended);
        assert_eq!(
            ready, 1,
            "the server says nothing at slot {}: {ended:?}",
            self.slot
        );
    }

    /// Takes what there is; true when the last entry is done with.
    fn take_output(&mut self) -> bool {
        let bytes = self.tape.tape().output().to_vec();
        let mut at = 0;
        let mut done = false;
        while at < bytes.len() {
            let (record, used) = decode(&bytes[at..]).unwrap();
            if !record.is_about_watching() {
                self.output_hash = xxh3_64_with_seed(&bytes[at..at + used], self.output_hash);
            }
            at += used;
            match record {
                Record::Done {
                    slot,
                    schedule_hash,
                    deadline_ns,
                    idle,
                    ..
                } => {
                    self.schedule_hash = schedule_hash;
                    (self.idle, self.deadline_ns) = (idle, deadline_ns);
                    done = slot == self.slot;
                }
                Record::Listen { listener, .. } => self.listeners.push(listener),
                Record::Data { conn, bytes, .. } => {
                    self.answers.entry(conn.counter).or_default().extend(bytes);
                }
                Record::Fault { message } => panic!("{}", String::from_utf8_lossy(message)),
                Record::Exit { status } => panic!("the server has ended: {status}"),
                _ => {}
            }
        }
        self.tape.release_output(at);
        done
    }

    /// Feeds bubbles until `reached`.
    fn go_on(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        for _ in 0..ENTRIES_MAX {
            if reached(self) {
                return;
            }
            // Time goes on to the next timer if nothing else does.
            if self.idle && self.deadline_ns != u64::MAX {
                self.time_ns = self.time_ns.max(self.deadline_ns);
            }
            self.feed(&[]);
        }
        panic!("{what} does not come");
    }

    fn connect(&mut self, number: u64) {
        let conn = ConnId {
            frontend: 77,
            counter: number,
        };
        let (peer, local) = (
            "10.0.0.9:4000".parse().unwrap(),
            "10.0.0.1:4001".parse().unwrap(),
        );
        let listener = self.listeners[0];
        self.feed(&[Event::Open {
            conn,
            listener,
            peer,
            local,
        }]);
    }

    /// Sends to a connection and waits for an answer that ends so.
    fn ask(&mut self, number: u64, sent: &mut u64, request: &str, end: &str) -> String {
        let conn = ConnId {
            frontend: 77,
            counter: number,
        };
        let (offset, bytes) = (*sent, request.as_bytes());
        *sent += bytes.len() as u64;
        self.answers.remove(&number);
        self.feed(&[Event::Data {
            conn,
            offset,
            bytes,
        }]);
        let answer = |it: &Self| {
            let bytes = it.answers.get(&number).cloned().unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        self.go_on(request, |it| answer(it).ends_with(end));
        self.go_on("rest", |it| it.idle);
        answer(self)
    }

    fn hashes(&self) -> (u64, u64, u64) {
        (self.slot, self.output_hash, self.schedule_hash)
    }

    fn dump(&self, host: &mut WrappedServer, parameters: &Parameters, image: &Path) {
        assert!(self.idle, "a server is dumped at rest");
        std::fs::create_dir_all(image).unwrap();
        let mut imager = host.imager(object_bytes(parameters)).unwrap();
        let position = Position {
            slot: self.slot,
            output_hash: self.output_hash,
            schedule_hash: self.schedule_hash,
        };
        let pid = self.process.as_ref().unwrap().pid().cast_unsigned();
        imager.dump(pid, position, image).unwrap();
    }
}

/// Requests on one connection, before and after the dump, and how their answers end.
struct Scenario<'a> {
    command: &'a [&'a str],
    before: &'a [(&'a str, &'a str)],
    after: &'a [(&'a str, &'a str)],
    /// Done before it is brought back, while nothing of it is there.
    moved: &'a dyn Fn(),
}

impl Scenario<'_> {
    /// Dumps, goes on, restores, repeats, dumps again, restores again, repeats.
    fn run(&self) {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), self.command);
        let parameters = parameters(&config);
        let mut host = WrappedServer::new(&config);
        let mut first = Player::start(&mut host, &parameters);
        first.go_on("a port", |it| !it.listeners.is_empty() && it.idle);
        first.connect(1);
        let mut sent = 0;
        for (request, end) in self.before {
            first.ask(1, &mut sent, request, end);
        }
        let image = dir.path().join("image");
        first.dump(&mut host, &parameters, &image);
        let at_dump = Player {
            _poll: Poll::new().unwrap(),
            process: None,
            tape: ServerTape::create(&parameters).unwrap(),
            listeners: first.listeners.clone(),
            answers: BTreeMap::new(),
            ..first
        };
        let mut told = sent;
        let expected: Vec<String> = self
            .after
            .iter()
            .map(|(request, end)| first.ask(1, &mut told, request, end))
            .collect();
        let hashes = first.hashes();
        drop(first);
        for round in 0..2 {
            (self.moved)();
            let mut again = at_dump.restore(&mut host, &parameters, &image);
            let mut told = sent;
            if round == 0 {
                // An image of what came from an image.
                let second = dir.path().join("second");
                again.dump(&mut host, &parameters, &second);
                drop(again);
                (self.moved)();
                again = at_dump.restore(&mut host, &parameters, &second);
            }
            for ((request, end), expected) in self.after.iter().zip(&expected) {
                assert_eq!(&again.ask(1, &mut told, request, end), expected);
            }
            assert_eq!(again.hashes(), hashes, "after {:?}", self.command);
        }
    }
}

#[test]
fn redis_goes_on_where_it_was_dumped() {
    if !is_possible("redis_goes_on_where_it_was_dumped") {
        return;
    }
    Scenario {
        command: &[
            "redis-server",
            "--port",
            "7000",
            "--save",
            "",
            "--protected-mode",
            "no",
        ],
        before: &[("SET a 1\r\n", "+OK\r\n"), ("LPUSH l x y z\r\n", ":3\r\n")],
        after: &[
            ("INCR a\r\n", ":2\r\n"),
            ("TIME\r\n", "\r\n"),
            ("RPOP l\r\n", "x\r\n"),
            ("BGSAVE\r\n", "\r\n"),
            ("LASTSAVE\r\n", "\r\n"),
            ("DEBUG SLEEP 0\r\n", "\r\n"),
            ("SRANDMEMBER nothing\r\n", "\r\n"),
        ],
        moved: &|| (),
    }
    .run();
}

/// Tells the numbers of files, and where a named semaphore is mapped.
const LOOKER: &str = r#"
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
libc.sem_open.restype = ctypes.c_void_p
def look(word):
    if word.startswith("="):
        return hex(libc.sem_open(word[1:].encode(), os.O_CREAT, 0o600, 1))
    if word.startswith("+"):
        open(word[1:], "a").write("more")
        return str(os.stat(word[1:]).st_mtime)
    if word.startswith("@"):
        return str(os.fstat(os.open(word[1:], os.O_RDONLY)).st_ino)
    seen = os.lstat(word)
    return f"{seen.st_ino} {seen.st_dev}"
listener = socket.socket()
listener.bind(("127.0.0.1", 7000))
listener.listen()
peer, _ = listener.accept()
lines = peer.makefile("rwb", 0)
for line in lines:
    answer = " ".join(look(word) for word in line.decode().split())
    lines.write(answer.encode() + b"\r\n")
"#;

/// Makes files older than any server, so that looking at them does not stamp them.
fn age<'a>(paths: impl Iterator<Item = &'a Path>) {
    let old = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for path in paths {
        let file = std::fs::File::open(path).unwrap();
        file.set_modified(old).unwrap();
    }
}

/// Copies a file over itself. The old inode stays in use, so that the new one is another.
fn give_another_inode(file: &Path) {
    let (aside, kept) = (file.with_extension("aside"), file.with_extension("kept"));
    std::fs::copy(file, &aside).unwrap();
    std::fs::rename(file, &kept).unwrap();
    std::fs::rename(&aside, file).unwrap();
}

/// As on another machine: the files that the server has only looked at have other inodes.
#[test]
fn files_that_were_looked_at_keep_their_numbers_on_another_machine() {
    let test = "files_that_were_looked_at_keep_their_numbers_on_another_machine";
    if !is_possible(test) {
        return;
    }
    if std::process::Command::new("python3")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("{test}: SKIPPED, python3 is not installed (tests/setup.sh)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("inner")).unwrap();
    let files = ["one", "two", "inner/three"].map(|name| folder.join(name));
    for file in &files {
        std::fs::write(file, "content").unwrap();
    }
    std::os::unix::fs::symlink("one", folder.join("link")).unwrap();
    let [one, two, three] = files.each_ref().map(|file| file.to_str().unwrap());
    let link = folder.join("link");
    let link = link.to_str().unwrap();
    let inner = folder.join("inner");
    let inner = inner.to_str().unwrap();
    let seen = [
        format!("{one} {two} {link}\n"),
        format!("@{three} {inner} +own own\n"),
        "=counter\n".to_owned(),
    ];
    let again = [
        format!("{two} {one} {three} {inner} {link} own\n"),
        "=counter =other\n".to_owned(),
        format!("own +own /usr/bin/env {inner}/.. /etc/passwd {two}\n"),
    ];
    let before: Vec<(&str, &str)> = seen.iter().map(|it| (it.as_str(), "\r\n")).collect();
    let after: Vec<(&str, &str)> = again.iter().map(|it| (it.as_str(), "\r\n")).collect();
    let all: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let age = || age(all.iter().copied().chain([Path::new(inner), folder]));
    age();
    let other_inodes = || {
        files.iter().for_each(|file| give_another_inode(file));
        std::fs::rename(link, folder.join("kept-link")).unwrap();
        std::os::unix::fs::symlink("one", link).unwrap();
        age();
    };
    Scenario {
        command: &["python3", "-c", LOOKER],
        before: &before,
        after: &after,
        moved: &other_inodes,
    }
    .run();
}

/// Names of the contents of files in an image, by device and inode.
fn contents(image: &Path) -> BTreeSet<(u64, u64)> {
    let entries = std::fs::read_dir(image.join("files")).unwrap();
    let metadata = entries.map(|entry| entry.unwrap().metadata().unwrap());
    metadata.map(|it| (it.dev(), it.ino())).collect()
}

#[test]
fn a_second_dump_shares_the_files_that_have_not_changed() {
    if !is_possible("a_second_dump_shares_the_files_that_have_not_changed") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let genesis = dir.path().join("genesis");
    std::fs::create_dir(&genesis).unwrap();
    std::fs::write(genesis.join("large"), vec![7; 1 << 20]).unwrap();
    let command = ["redis-server", "--port", "7000", "--save", ""];
    let mut config = config(dir.path(), &command);
    config.genesis = Some(genesis);
    let parameters = parameters(&config);
    let mut host = WrappedServer::new(&config);
    let mut server = Player::start(&mut host, &parameters);
    server.go_on("a port", |it| !it.listeners.is_empty() && it.idle);
    // A file counts as unchanged once it was that for two seconds before a dump.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut before = BTreeSet::new();
    for number in 0.. {
        let image = dir.path().join(format!("image-{number}"));
        server.dump(&mut host, &parameters, &image);
        let now = contents(&image);
        if now.intersection(&before).next().is_some() {
            return;
        }
        assert!(Instant::now() < deadline, "nothing is shared");
        before = now;
    }
}
