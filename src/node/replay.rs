//! A recorded log once more, from the start, without a node: a server on a fresh tape, fed with what the
//! log says, and its hashes compared with those that were recorded when the log was written.
//!
//! There is no consensus, no frontend and no clock here: what the server opens, sends and waits for
//! goes nowhere. A debugger may sit on the server meanwhile: the server waits for its first entry,
//! before `main`, until it is traced, and gets a SIGTRAP when the last slot is done. Nothing ends
//! before the debugger does.

use super::error::NodeError;
use super::feeder::{Feeder, Log};
use super::life::parameters;
use super::output::{Output, Sink, SlotHashes};
use super::server::{Process, ServerHost};
use super::sys;
use super::tape_map::TapeMap;
use super::trail;
use crate::config::NodeConfig;
use brolga_consensus::journal::LogReader;
use brolga_tape::record::Record;
use brolga_tape::ring::object_bytes;
use bytes::Bytes;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

const DOORBELL: Token = Token(0);
const PROCESS: Token = Token(1);
const DEBUGGER: Token = Token(2);

/// What is to be replayed.
#[derive(Debug)]
pub struct Recording {
    /// The node's configuration; its data directory is the scratch directory of the replay.
    pub config: NodeConfig,
    /// The log.
    pub log: LogReader,
    /// The last slot that the server is given.
    pub upto: u64,
    /// The recorded hashes, in the order of slots.
    pub hashes: Vec<SlotHashes>,
}

/// What came of it.
#[derive(Debug)]
pub struct Replayed {
    /// Slots that the server has done, without the empty ones.
    pub slots: u64,
    /// The hashes after the last of them.
    pub last: SlotHashes,
    /// From the start of the server to its answer to the last slot.
    pub took: Duration,
    /// Slots whose hashes were recorded and are the same.
    pub equal: u64,
    /// The first slot that is not: as it was recorded, and as it is now.
    pub difference: Option<(SlotHashes, SlotHashes)>,
    /// How the server ended, if it did so before it was stopped.
    pub ended: Option<String>,
    /// How the debugger ended.
    pub debugger: Option<ExitStatus>,
}

/// The hashes that a node has recorded, given its data directory.
///
/// # Errors
/// The file is there and cannot be read.
pub fn recorded_hashes(data_dir: &Path) -> io::Result<Vec<SlotHashes>> {
    trail::read(&trail::path(data_dir))
}

/// Runs a recording. `attach` is called with the process of the server and starts
/// a debugger.
///
/// # Errors
/// See [`NodeError`].
pub fn replay(
    recording: Recording,
    host: &mut impl ServerHost,
    attach: Option<impl FnOnce(i32) -> io::Result<Child>>,
) -> Result<Replayed, NodeError> {
    let started = Instant::now();
    let mut run = Run::start(recording, host)?;
    if let Some(attach) = attach {
        run.attach(attach)?;
    }
    let mut events = Events::with_capacity(8);
    while !run.turn(started)? {
        match run.poll.poll(&mut events, run.patience()) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(NodeError::doing("cannot poll")(error));
            }
            _ => {}
        }
    }
    Ok(run.result)
}

/// A debugger at work.
#[derive(Debug)]
struct Debugger {
    child: Child,
    _handle: OwnedFd,
    /// The server is traced; it was not fed before.
    at_work: bool,
    /// It was told that the last slot is done.
    told: bool,
}

/// How often it is looked whether the debugger traces the server: the kernel does not tell.
const TRACED_EVERY: Duration = Duration::from_millis(10);

/// Lets the debugger take over. One that does not want the signal ends the server by it, which has
/// done all it was to do.
fn interrupt(process: Option<&Process>) {
    if let Some(process) = process.filter(|process| is_traced(process.pid())) {
        // It may have ended just now.
        let _ = kill(Pid::from_raw(process.pid()), Signal::SIGTRAP);
    }
}

fn is_traced(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|pid| pid.trim() != "0")
}

struct Run {
    poll: Poll,
    log: Bounded,
    feeder: Feeder,
    output: Output,
    hashes: std::iter::Peekable<std::vec::IntoIter<SlotHashes>>,
    // Before the tape: it is killed before its memory goes.
    process: Option<Process>,
    tape: TapeMap,
    debugger: Option<Debugger>,
    has_more: bool,
    result: Replayed,
}

impl Run {
    fn start(recording: Recording, host: &mut impl ServerHost) -> Result<Self, NodeError> {
        let Recording {
            config,
            log,
            upto,
            hashes,
        } = recording;
        let poll = Poll::new().map_err(NodeError::doing("cannot create a poll"))?;
        let parameters = parameters(&config);
        let objects = host.objects(object_bytes(&parameters));
        let tape = TapeMap::create_on(objects.map_err(NodeError::Start)?, &parameters);
        let tape = tape.map_err(NodeError::doing("cannot make a tape"))?;
        let mut doorbell = SourceFd(&tape.doorbell().as_raw_fd());
        poll.registry()
            .register(&mut doorbell, DOORBELL, Interest::READABLE)
            .map_err(NodeError::doing("cannot watch the doorbell"))?;
        let started = host
            .start(tape.object(), tape.doorbell())
            .map_err(NodeError::Start)?;
        let process = Process::watch(started, poll.registry(), PROCESS)
            .map_err(NodeError::doing("cannot watch the server"))?;
        let perturb = Duration::from_micros(u64::from(config.perturb_us));
        let chance = sys::random_u64().map_err(NodeError::doing("cannot get random bytes"))?;
        Ok(Self {
            poll,
            log: Bounded { log, upto },
            feeder: Feeder::new(perturb, chance),
            output: Output::new(),
            hashes: hashes.into_iter().peekable(),
            process: Some(process),
            tape,
            debugger: None,
            has_more: false,
            result: Replayed {
                slots: 0,
                last: SlotHashes::default(),
                took: Duration::ZERO,
                equal: 0,
                difference: None,
                ended: None,
                debugger: None,
            },
        })
    }

    fn attach(&mut self, attach: impl FnOnce(i32) -> io::Result<Child>) -> Result<(), NodeError> {
        let pid = self.process.as_ref().map_or(0, Process::pid);
        let child = attach(pid).map_err(NodeError::doing("cannot start the debugger"))?;
        let pid = child.id().cast_signed();
        let watch = || -> io::Result<OwnedFd> {
            let handle = sys::process_handle(pid)?;
            let mut source = SourceFd(&handle.as_raw_fd());
            let registry = self.poll.registry();
            registry.register(&mut source, DEBUGGER, Interest::READABLE)?;
            Ok(handle)
        };
        let handle = watch().map_err(NodeError::doing("cannot watch the debugger"))?;
        self.debugger = Some(Debugger {
            child,
            _handle: handle,
            at_work: false,
            told: false,
        });
        Ok(())
    }

    /// Does what can be done now; true when the replay is over.
    fn turn(&mut self, started: Instant) -> Result<bool, NodeError> {
        let now = Instant::now();
        self.tape.tape_mut().cancel_doorbell();
        sys::drain_counter(self.tape.doorbell());
        // Asked before the output is read, so that a server's last words are not missed.
        let ended = self.process_ended()?;
        self.drain(now, started)?;
        if let Some(how) = ended {
            self.end(how, started);
        }
        let fed = self.may_be_fed();
        if fed {
            self.feeder.observe(&mut self.log, |_, _| {})?;
            self.feeder.feed(&mut self.log, &mut self.tape, now)?;
        }
        let more_to_feed = fed && self.feeder.has_more(self.log.upto);
        self.has_more = more_to_feed || self.tape.tape_mut().ask_for_doorbell();
        let over = self.is_over();
        match &mut self.debugger {
            Some(debugger) => {
                if over && !debugger.told {
                    debugger.told = true;
                    interrupt(self.process.as_ref());
                }
                let ended = debugger.child.try_wait();
                let ended = ended.map_err(NodeError::doing("cannot await the debugger"))?;
                self.result.debugger = ended;
                Ok(ended.is_some())
            }
            None => Ok(over),
        }
    }

    fn may_be_fed(&mut self) -> bool {
        let Some(process) = &self.process else {
            return false;
        };
        let Some(debugger) = &mut self.debugger else {
            return true;
        };
        debugger.at_work = debugger.at_work || is_traced(process.pid());
        debugger.at_work
    }

    fn is_over(&self) -> bool {
        let all_seen = self.feeder.seen() >= self.log.upto;
        let all_done = all_seen && self.result.last.slot >= self.feeder.last_entry();
        all_done || self.process.is_none() || self.result.difference.is_some()
    }

    fn process_ended(&mut self) -> Result<Option<String>, NodeError> {
        let Some(process) = &mut self.process else {
            return Ok(None);
        };
        let status = process.ended();
        let status = status.map_err(NodeError::doing("cannot await the server"))?;
        Ok(status.map(sys::describe_status))
    }

    fn end(&mut self, how: String, started: Instant) {
        self.process = None;
        self.output.end();
        self.compare(started);
        self.result.ended.get_or_insert(how);
    }

    fn drain(&mut self, now: Instant, started: Instant) -> Result<(), NodeError> {
        let mut faults = Faults::default();
        let bytes = self.tape.tape().output();
        let used = self.output.take(bytes, now, &mut faults);
        let used = used.map_err(NodeError::Tape)?;
        self.tape.release_output(used);
        if self.result.ended.is_none() {
            self.result.ended = faults.0;
        }
        self.compare(started);
        Ok(())
    }

    fn compare(&mut self, started: Instant) {
        for hashes in self.output.drain_fresh() {
            if self.result.difference.is_some() {
                return;
            }
            self.result.slots += 1;
            self.result.last = hashes;
            self.result.took = started.elapsed();
            while self.hashes.next_if(|it| it.slot < hashes.slot).is_some() {}
            match self.hashes.next_if(|it| it.slot == hashes.slot) {
                Some(recorded) if recorded == hashes => self.result.equal += 1,
                Some(recorded) => self.result.difference = Some((recorded, hashes)),
                None => {}
            }
        }
    }

    fn patience(&self) -> Option<Duration> {
        if self.has_more {
            return Some(Duration::ZERO);
        }
        if self.debugger.as_ref().is_some_and(|it| !it.at_work) {
            return Some(TRACED_EVERY);
        }
        let wakeup = self.feeder.wakeup()?;
        Some(wakeup.saturating_duration_since(Instant::now()))
    }
}

/// What the server could not do.
#[derive(Debug, Default)]
struct Faults(Option<String>);

impl Sink for Faults {
    fn record(&mut self, record: &Record<'_>, _: &[u8]) {
        if let Record::Fault { message } = record {
            self.0 = Some(String::from_utf8_lossy(message).into_owned());
        }
    }

    fn done(&mut self, _: u64) {}
}

/// A log up to some slot.
#[derive(Debug)]
struct Bounded {
    log: LogReader,
    upto: u64,
}

impl Log for Bounded {
    fn chosen_upto(&self) -> u64 {
        self.upto
    }

    fn read_chosen(
        &mut self,
        from: u64,
        max_bytes: usize,
        out: &mut Vec<(u64, Bytes)>,
    ) -> Result<(), String> {
        let mut bytes = 0;
        for slot in from..=self.upto {
            let value = self.log.read(slot).map_err(|error| error.to_string())?;
            bytes += value.len();
            out.push((slot, value));
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(())
    }
}
