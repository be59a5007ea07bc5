//! A stand-in for a wrapped server: a thread on the other side of the tape that listens on one port
//! and echoes, connections and datagrams, with the interposer's bookkeeping done by the book. Its
//! process is a `sleep`, so that it can be killed like a real one.

use super::conns::{Conns, Progress};
use super::server::{ServerHost, Started};
use super::sys;
use super::tape_map::TapeMap;
use brolga_tape::entry::{CloseHow, Entry, Event};
use brolga_tape::record::{NO_DEADLINE, Record, Transport};
use brolga_tape::{CONSUMED_REPORT_BYTES, ConnId, OUTPUT_WINDOW_BYTES, StreamStep, stream_step};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a lying server changes in a byte.
pub const LIE: u8 = 0x20;
/// Values of a host's `lies`: it never lies, its first server does, all do.
pub const NEVER: u8 = 0;
pub const FIRST: u8 = 1;
pub const ALL: u8 = 2;

struct Lies {
    which: Arc<AtomicU8>,
    is_first: bool,
}

impl Lies {
    fn now(&self) -> bool {
        match self.which.load(Ordering::Acquire) {
            NEVER => false,
            FIRST => self.is_first,
            _ => true,
        }
    }
}

/// Starts echo servers.
#[derive(Debug)]
pub struct FakeHost {
    port: u16,
    /// Whether pieces that are echoed begin with another byte.
    lies: Arc<AtomicU8>,
    starts: u64,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeHost {
    /// Servers that listen on `port`.
    pub fn new(port: u16) -> Self {
        Self::lying(port, Arc::default())
    }

    /// As [`FakeHost::new`], but wrong when `lies` says so.
    pub fn lying(port: u16, lies: Arc<AtomicU8>) -> Self {
        Self {
            port,
            lies,
            starts: 0,
            stop: Arc::default(),
            thread: None,
        }
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl ServerHost for FakeHost {
    #[expect(clippy::zombie_processes, reason = "the node collects it by number")]
    fn start(&mut self, tape: BorrowedFd<'_>, doorbell: BorrowedFd<'_>) -> Result<Started, String> {
        self.stop();
        let tape = TapeMap::attach(tape, doorbell).unwrap();
        self.stop = Arc::default();
        self.starts += 1;
        let stop = Arc::clone(&self.stop);
        let lies = Lies {
            which: Arc::clone(&self.lies),
            is_first: self.starts == 1,
        };
        let address = SocketAddr::new("0.0.0.0".parse().unwrap(), self.port);
        self.thread = Some(std::thread::spawn(move || {
            FakeServer::new(tape, stop, lies, address).run();
        }));
        let child = Command::new("sleep").arg("1000000").spawn().unwrap();
        Ok(Started {
            pid: i32::try_from(child.id()).unwrap(),
            lifeline: None,
            container: None,
        })
    }

    fn last_words(&self) -> String {
        String::new()
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Default)]
struct Echo {
    input: u64,
    consumed: u64,
    reported: u64,
    output: u64,
    credit: u64,
    waiting: VecDeque<u8>,
    fin: bool,
}

struct FakeServer {
    tape: TapeMap,
    stop: Arc<AtomicBool>,
    lies: Lies,
    address: SocketAddr,
    cursor: u64,
    conns: Conns,
    echoes: BTreeMap<ConnId, Echo>,
    /// Datagrams for each frontend.
    answers: BTreeMap<u64, u64>,
    clock: u64,
}

impl FakeServer {
    fn new(tape: TapeMap, stop: Arc<AtomicBool>, lies: Lies, address: SocketAddr) -> Self {
        Self {
            tape,
            stop,
            lies,
            address,
            cursor: 0,
            conns: Conns::new(),
            echoes: BTreeMap::new(),
            answers: BTreeMap::new(),
            clock: 0,
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn run(&mut self) {
        while !self.stopped() {
            let Some((slot, bytes, next)) = self.tape.tape().next_entry(self.cursor) else {
                self.ring();
                if self.tape.tape().mark_asleep(self.cursor) {
                    let word = self.tape.tape().input_futex();
                    sys::futex_wait(word, 1, Duration::from_millis(50));
                }
                continue;
            };
            let bytes = bytes.to_vec();
            self.cursor = next;
            self.tape.tape().release_input(next);
            if self.clock == 0 {
                for (listener, transport) in [(1, Transport::Stream), (2, Transport::Datagram)] {
                    self.say(&Record::Listen {
                        listener,
                        address: self.address,
                        transport,
                        chosen: false,
                    });
                }
            }
            self.admit(&bytes);
            self.clock += 1;
            self.say(&Record::Done {
                slot,
                schedule_hash: self.clock,
                deadline_ns: NO_DEADLINE,
                clock: self.clock,
                idle: true,
                operation: 0,
            });
        }
    }

    fn admit(&mut self, bytes: &[u8]) {
        let entry = Entry::parse(bytes).unwrap();
        for event in entry.events() {
            let event = event.unwrap();
            let progress = self.conns.apply(&event);
            if progress == Progress::Nothing {
                continue;
            }
            match event {
                Event::Open { conn, .. } => drop(self.echoes.insert(conn, Echo::default())),
                Event::Data {
                    conn,
                    offset,
                    bytes,
                } => {
                    let echo = self.echoes.get_mut(&conn).unwrap();
                    let StreamStep::Take(seen) = stream_step(echo.input, offset, bytes.len())
                    else {
                        panic!("the table said that it was new");
                    };
                    echo.input += (bytes.len() - seen) as u64;
                    echo.waiting.extend(&bytes[seen..]);
                    self.echo(conn);
                }
                Event::Credit { conn, upto } => {
                    if let Some(echo) = self.echoes.get_mut(&conn) {
                        echo.credit = upto;
                        self.echo(conn);
                    }
                }
                Event::Close {
                    conn,
                    how: CloseHow::Fin,
                    ..
                } => {
                    self.echoes.get_mut(&conn).unwrap().fin = true;
                    self.echo(conn);
                }
                Event::Close { conn, .. } => drop(self.echoes.remove(&conn)),
                Event::Datagram {
                    frontend,
                    peer,
                    local,
                    bytes,
                    ..
                } => {
                    let number = self.answers.entry(frontend).or_default();
                    *number += 1;
                    let number = *number;
                    self.say(&Record::Datagram {
                        frontend,
                        number,
                        local,
                        peer,
                        bytes,
                    });
                }
                Event::FrontendUp { .. } | Event::FrontendGone { .. } => {
                    let conns = &self.conns;
                    self.echoes.retain(|conn, _| conns.get(*conn).is_some());
                }
                Event::Connected { .. } | Event::Signal { .. } => {}
            }
        }
    }

    /// Answers what the window allows; only that counts as consumed.
    fn echo(&mut self, conn: ConnId) {
        let mut echo = self.echoes.remove(&conn).unwrap();
        let room = echo.credit + OUTPUT_WINDOW_BYTES - echo.output;
        let most = echo.waiting.len().min(usize::try_from(room).unwrap());
        let mut bytes: Vec<u8> = echo.waiting.drain(..most).collect();
        if self.lies.now()
            && let Some(first) = bytes.first_mut()
        {
            *first ^= LIE;
        }
        for bytes in bytes.chunks(16 * 1024) {
            self.say(&Record::Data {
                conn,
                offset: echo.output,
                bytes,
            });
            echo.output += bytes.len() as u64;
            echo.consumed += bytes.len() as u64;
            if echo.consumed - echo.reported >= CONSUMED_REPORT_BYTES {
                echo.reported = echo.consumed;
                self.say(&Record::Consumed {
                    conn,
                    upto: echo.consumed,
                });
            }
        }
        if echo.fin && echo.waiting.is_empty() {
            self.conns.closed_by_server(conn);
            self.say(&Record::Closed {
                conn,
                offset: echo.output,
                reset: false,
            });
        } else {
            self.echoes.insert(conn, echo);
        }
    }

    fn say(&self, record: &Record<'_>) {
        while !self.tape.tape().push_record(record) {
            if self.stopped() {
                return;
            }
            self.ring();
            if self.tape.tape().mark_full(64 * 1024) {
                let word = self.tape.tape().output_full_futex();
                sys::futex_wait(word, 1, Duration::from_millis(50));
            }
        }
    }

    fn ring(&self) {
        if self.tape.tape().take_doorbell() {
            sys::ring_counter(self.tape.doorbell().as_fd());
        }
    }
}
