//! A stand-in for a wrapped server: a thread on the other side of the tape that listens on one port
//! and echoes, connections and datagrams, with the interposer's bookkeeping done by the book. Its
//! process is a `sleep`, so that it can be killed like a real one.

use crate::clients::connection_table::{ConnectionTable, Progress};
use crate::clients::saved::{self, SavedConns};
use crate::server::process::{Dumper, Objects, ServerHost, Started};
use crate::server::start_error::StartError;
use crate::server::tape::ServerTape;
use brolga_checkpoint::CheckpointError;
use brolga_os::sys;
use brolga_tape::entry::{CloseHow, Entry, Event};
use brolga_tape::record::{NO_DEADLINE, Record, Transport};
use brolga_tape::{CONSUMED_REPORT_BYTES, ConnId, OUTPUT_WINDOW_BYTES, StreamStep, stream_step};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
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

/// Name of an image's only file.
const IMAGE: &str = "echoes";

/// Where an image is to be written (`None`: the dump is broken off), and who is told when it is.
type Dump = (Option<PathBuf>, Sender<()>);

/// What a server knows.
#[derive(Default)]
struct State {
    conns: ConnectionTable,
    echoes: BTreeMap<ConnId, Echo>,
    /// Datagrams for each frontend.
    answers: BTreeMap<u64, u64>,
    clock: u64,
}

/// The same on disk.
#[derive(Serialize, Deserialize)]
struct Image {
    conns: SavedConns,
    echoes: Vec<((u64, u64), Echo)>,
    answers: BTreeMap<u64, u64>,
    clock: u64,
}

impl State {
    fn save(&self, path: &Path) {
        let echoes = self.echoes.iter();
        let image = Image {
            conns: self.conns.save(),
            echoes: echoes
                .map(|(conn, echo)| (saved::id(*conn), echo.clone()))
                .collect(),
            answers: self.answers.clone(),
            clock: self.clock,
        };
        std::fs::write(path, serde_json::to_vec(&image).unwrap()).unwrap();
    }

    fn load(path: &Path) -> io::Result<Self> {
        let image: Image = serde_json::from_slice(&std::fs::read(path)?)?;
        let echoes = image.echoes.into_iter();
        Ok(Self {
            conns: ConnectionTable::load(&image.conns),
            echoes: echoes
                .map(|(id, echo)| (saved::conn_of(id), echo))
                .collect(),
            answers: image.answers,
            clock: image.clock,
        })
    }
}

/// The dumps of all servers of a cluster.
#[derive(Debug, Default)]
pub struct Dumps {
    /// Every dump fails.
    pub fail: AtomicBool,
    /// The next one is broken off in the middle.
    pub interrupt: AtomicBool,
    /// The nodes that have begun one, in order.
    pub begun: Mutex<Vec<u64>>,
    under_way: AtomicU8,
    /// How many were under way at once, at most.
    pub most: AtomicU8,
}

impl Dumps {
    fn note(&self, node: u64) -> Result<(), CheckpointError> {
        self.begun.lock().unwrap().push(node);
        let at_once = 1 + self.under_way.fetch_add(1, Ordering::AcqRel);
        self.most.fetch_max(at_once, Ordering::AcqRel);
        match self.fail.load(Ordering::Acquire) {
            true => Err(CheckpointError::Failed("the test says so".into())),
            false => Ok(()),
        }
    }
}

/// Starts echo servers.
#[derive(Debug)]
pub struct FakeHost {
    port: u16,
    /// Whether pieces that are echoed begin with another byte.
    lies: Arc<AtomicU8>,
    node: u64,
    dumps: Arc<Dumps>,
    starts: u64,
    /// To the running server.
    dumps_tx: Option<Sender<Dump>>,
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
            node: 0,
            dumps: Arc::default(),
            starts: 0,
            dumps_tx: None,
            stop: Arc::default(),
            thread: None,
        }
    }

    /// The same for a node, whose dumps are noted.
    pub fn noting(mut self, node: u64, dumps: Arc<Dumps>) -> Self {
        (self.node, self.dumps) = (node, dumps);
        self
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl ServerHost for FakeHost {
    fn start(
        &mut self,
        tape: BorrowedFd<'_>,
        doorbell: BorrowedFd<'_>,
    ) -> Result<Started, StartError> {
        self.stop();
        let tape = ServerTape::attach(tape, doorbell).unwrap();
        Ok(self.run(move || tape, State::default()))
    }

    fn dumper(&mut self, _: u64) -> Result<Dumper, CheckpointError> {
        let dumps_tx = self.dumps_tx.clone().unwrap();
        let (node, dumps) = (self.node, Arc::clone(&self.dumps));
        let dump = move |directory: &Path| {
            dumps.note(node)?;
            let interrupted = dumps.interrupt.swap(false, Ordering::AcqRel);
            let (done_tx, done_rx) = channel();
            let wish = (!interrupted).then(|| directory.join(IMAGE));
            let gone = |_| CheckpointError::Failed("the server is gone".into());
            dumps_tx.send((wish, done_tx)).map_err(|_| gone(()))?;
            done_rx.recv().map_err(|_| gone(()))?;
            match interrupted {
                true => Err(CheckpointError::Interrupted("it was broken off".into())),
                false => Ok(()),
            }
        };
        let dumps = Arc::clone(&self.dumps);
        Ok(Box::new(move |_, _, directory| {
            let done = dump(directory);
            dumps.under_way.fetch_sub(1, Ordering::AcqRel);
            done
        }))
    }

    fn restore(
        &mut self,
        directory: &Path,
        tape_bytes: u64,
    ) -> Result<(Objects, Started), CheckpointError> {
        self.stop();
        let state = State::load(&directory.join(IMAGE))?;
        let objects = Objects::of_memory(tape_bytes)?;
        let tape = objects.tape.try_clone()?;
        let doorbell = objects.doorbell.try_clone()?;
        let attach = move || loop {
            // As a real one it sleeps until there is a tape.
            match ServerTape::attach(tape.as_fd(), doorbell.as_fd()) {
                Ok(tape) => return tape,
                Err(_) => std::thread::yield_now(),
            }
        };
        Ok((objects, self.run(attach, state)))
    }

    fn stderr_tail(&self) -> String {
        String::new()
    }
}

impl FakeHost {
    #[expect(clippy::zombie_processes, reason = "the node collects it by number")]
    fn run(&mut self, tape: impl FnOnce() -> ServerTape + Send + 'static, state: State) -> Started {
        self.stop = Arc::default();
        self.starts += 1;
        let stop = Arc::clone(&self.stop);
        let lies = Lies {
            which: Arc::clone(&self.lies),
            is_first: self.starts == 1,
        };
        let address = SocketAddr::new("0.0.0.0".parse().unwrap(), self.port);
        let (dumps_tx, dumps_rx) = channel();
        self.dumps_tx = Some(dumps_tx);
        self.thread = Some(std::thread::spawn(move || {
            let mut server = FakeServer {
                tape: tape(),
                stop,
                lies,
                address,
                cursor: 0,
                state,
                dumps_rx,
            };
            server.run();
        }));
        let child = Command::new("sleep").arg("1000000").spawn().unwrap();
        Started {
            pid: i32::try_from(child.id()).unwrap(),
            lifeline: None,
            container: None,
        }
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
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
    tape: ServerTape,
    stop: Arc<AtomicBool>,
    lies: Lies,
    address: SocketAddr,
    cursor: u64,
    state: State,
    dumps_rx: Receiver<Dump>,
}

impl FakeServer {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn run(&mut self) {
        while !self.stopped() {
            let Some((slot, bytes, next)) = self.tape.tape().next_entry(self.cursor) else {
                self.ring();
                if let Ok((path, done_tx)) = self.dumps_rx.try_recv() {
                    match path {
                        Some(path) => self.state.save(&path),
                        // As one does that comes upon code of CRIU's.
                        None => self.say(&Record::Exit { status: 5 }),
                    }
                    self.ring();
                    let _ = done_tx.send(());
                }
                if self.tape.tape().mark_asleep(self.cursor) {
                    let word = self.tape.tape().input_futex();
                    sys::futex_wait(word, 1, Duration::from_millis(50));
                }
                continue;
            };
            let bytes = bytes.to_vec();
            self.cursor = next;
            self.tape.tape().release_input(next);
            if self.state.clock == 0 {
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
            self.state.clock += 1;
            self.say(&Record::Done {
                slot,
                schedule_hash: self.state.clock,
                deadline_ns: NO_DEADLINE,
                clock: self.state.clock,
                idle: true,
                operation: 0,
            });
        }
    }

    fn admit(&mut self, bytes: &[u8]) {
        let entry = Entry::parse(bytes).unwrap();
        for event in entry.events() {
            let event = event.unwrap();
            let progress = self.state.conns.apply(&event);
            if progress == Progress::Nothing {
                continue;
            }
            match event {
                Event::Open { conn, .. } => drop(self.state.echoes.insert(conn, Echo::default())),
                Event::Data {
                    conn,
                    offset,
                    bytes,
                } => {
                    let echo = self.state.echoes.get_mut(&conn).unwrap();
                    let StreamStep::Take(seen) = stream_step(echo.input, offset, bytes.len())
                    else {
                        panic!("the table said that it was new");
                    };
                    echo.input += (bytes.len() - seen) as u64;
                    echo.waiting.extend(&bytes[seen..]);
                    self.echo(conn);
                }
                Event::Credit { conn, upto } => {
                    if let Some(echo) = self.state.echoes.get_mut(&conn) {
                        echo.credit = upto;
                        self.echo(conn);
                    }
                }
                Event::Close {
                    conn,
                    how: CloseHow::Fin,
                    ..
                } => {
                    self.state.echoes.get_mut(&conn).unwrap().fin = true;
                    self.echo(conn);
                }
                Event::Close { conn, .. } => drop(self.state.echoes.remove(&conn)),
                Event::Datagram {
                    frontend,
                    peer,
                    local,
                    bytes,
                    ..
                } => {
                    let number = self.state.answers.entry(frontend).or_default();
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
                    let conns = &self.state.conns;
                    self.state
                        .echoes
                        .retain(|conn, _| conns.get(*conn).is_some());
                }
                Event::Connected { .. } | Event::Signal { .. } => {}
            }
        }
    }

    /// Answers what the window allows; only that counts as consumed.
    fn echo(&mut self, conn: ConnId) {
        let mut echo = self.state.echoes.remove(&conn).unwrap();
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
            self.state.conns.closed_by_server(conn);
            self.say(&Record::Closed {
                conn,
                offset: echo.output,
                reset: false,
            });
        } else {
            self.state.echoes.insert(conn, echo);
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
