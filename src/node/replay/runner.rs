//! Replay of a recorded log, without a node: a server in its genesis state, or restored from a
//! checkpoint, is fed with what the log says, and its hashes are compared with those that were
//! recorded when the log was written. The result may be kept as a checkpoint.
//!
//! There is no consensus, no frontend and no clock here: what the server opens, sends and waits for
//! goes nowhere. A debugger may sit on the server meanwhile: the server waits for its first entry,
//! before `main`, until it is traced, and gets a SIGTRAP when the last slot is done. Nothing ends
//! before the debugger does.

use crate::checkpoint::node_state::{HASHES_KEPT, NodeState, SERVER_DIR};
use crate::divergence::hash_log;
use crate::error::NodeError;
use crate::replay::replayed_state::ReplayedState;
use crate::server::feeder::{Feeder, Log, LogError};
use crate::server::hashes::SlotHashes;
use crate::server::lifecycle::parameters;
use crate::server::output::{Output, Sink};
use crate::server::process::{Objects, Process, ServerHost, Started};
use crate::server::tape::ServerTape;
use brolga_checkpoint::{
    Checkpoint, CheckpointError, Directory, Position, Provenance, ServerFingerprint,
};
use brolga_config::NodeConfig;
use brolga_consensus::journal::LogReader;
use brolga_os::sys;
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

/// The recording that is to be replayed.
#[derive(Debug)]
pub struct Recording {
    /// The node's configuration; its data directory is the scratch directory of the replay.
    pub config: NodeConfig,
    /// The start, if not the genesis: a checkpoint that was verified, of a slot up
    /// to `upto`, which the log continues.
    pub from: Option<Checkpoint>,
    /// The log; `None`: there is none, and the checkpoint is all.
    pub log: Option<LogReader>,
    /// The last slot that the server is given.
    pub upto: u64,
    /// The recorded hashes, in the order of slots.
    pub hashes: Vec<SlotHashes>,
    /// The place where the server is kept as it is at the end.
    pub keep: Option<Keep>,
}

/// The place and the identity of a server that is kept.
#[derive(Debug)]
pub struct Keep {
    /// The directory.
    pub directory: Directory,
    /// The identity of the nodes that may restore the checkpoint.
    pub identity: ServerFingerprint,
}

/// The reason why a server was not kept as a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// The server has ended.
    #[error("the server has ended")]
    ServerEnded,
    /// The server is not at rest after the last slot.
    #[error(
        "after slot {slot} the server is in the middle of its work, and can be kept only at rest, as \
         after slot {rested}"
    )]
    Busy {
        /// The last slot.
        slot: u64,
        /// The last slot after which it was at rest.
        rested: u64,
    },
    /// The server says that it is idle, and does not sleep.
    #[error("the server does not come to rest")]
    Restless,
    /// The checkpoint cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// The result of a replay.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Slots that the server has done, without the empty ones.
    pub slots: u64,
    /// The hashes after the last of them.
    pub last: SlotHashes,
    /// The last slot after which the server was at rest; only there it can be kept.
    pub rested: u64,
    /// The slot of the checkpoint that was kept, or why there is none, if one was wanted.
    pub kept: Option<Result<u64, NotKept>>,
    /// Until the server was started, or restored.
    pub began: Duration,
    /// From then to its answer to the last slot.
    pub took: Duration,
    /// Bytes of the entries that it was given.
    pub bytes: u64,
    /// Slots whose hashes were recorded and are the same.
    pub equal: u64,
    /// The first slot that is not: as it was recorded, and as it is now.
    pub difference: Option<(SlotHashes, SlotHashes)>,
    /// The way the server ended, if it did so before it was stopped.
    pub ended: Option<String>,
    /// The exit status of the debugger.
    pub debugger: Option<ExitStatus>,
}

/// The hashes that a node has recorded, given its data directory.
///
/// # Errors
/// The file is there and cannot be read.
pub fn recorded_hashes(data_dir: &Path) -> io::Result<Vec<SlotHashes>> {
    hash_log::read(&hash_log::path(data_dir))
}

/// Runs a recording. `attach` is called with the process of the server and starts
/// a debugger; `told` is given the last slot that was done, now and then.
///
/// # Errors
/// See [`NodeError`].
pub fn replay(
    recording: Recording,
    host: &mut impl ServerHost,
    attach: Option<impl FnOnce(i32) -> io::Result<Child>>,
    told: &mut dyn FnMut(u64),
) -> Result<Replayed, NodeError> {
    let asked = Instant::now();
    let mut run = Run::start(recording, host)?;
    let started = Instant::now();
    run.result.began = started - asked;
    if let Some(attach) = attach {
        run.attach(attach)?;
    }
    let mut events = Events::with_capacity(8);
    while !run.iterate(started)? {
        told(run.result.last.slot);
        match run.poll.poll(&mut events, run.patience()) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(NodeError::doing("cannot poll")(error));
            }
            _ => {}
        }
    }
    run.keep(host);
    Ok(run.result)
}

/// A debugger at work.
#[derive(Debug)]
struct Debugger {
    child: Child,
    _handle: OwnedFd,
    /// The server is traced; it was not fed before.
    at_work: bool,
    /// The debugger was told that the last slot is done.
    told: bool,
}

/// Between looks at a server that is about to sleep.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// A server that says that it is idle has only some instructions to go.
const SLEEP_PATIENCE: Duration = Duration::from_secs(10);
/// Interval of checks whether the debugger traces the server: the kernel does not tell.
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
    config: NodeConfig,
    log: Bounded,
    feeder: Feeder,
    output: Output,
    state: ReplayedState,
    hashes: std::iter::Peekable<std::vec::IntoIter<SlotHashes>>,
    // Before the tape: it is killed before its memory goes.
    process: Option<Process>,
    tape: ServerTape,
    tape_bytes: u64,
    debugger: Option<Debugger>,
    has_more: bool,
    keep: Option<Keep>,
    result: Replayed,
}

impl Run {
    fn start(recording: Recording, host: &mut impl ServerHost) -> Result<Self, NodeError> {
        let Recording {
            config,
            from,
            log,
            upto,
            hashes,
            keep,
        } = recording;
        let poll = Poll::new().map_err(NodeError::doing("cannot create a poll"))?;
        let parameters = parameters(&config);
        let tape_bytes = object_bytes(&parameters);
        let (objects, restored) = match &from {
            None => (host.objects(tape_bytes)?, None),
            Some(checkpoint) => {
                let (snapshot, objects, started) = restore(checkpoint, host, tape_bytes)?;
                (objects, Some((snapshot, started)))
            }
        };
        let tape = ServerTape::create_on(objects, &parameters);
        let tape = tape.map_err(NodeError::doing("cannot make a tape"))?;
        watch_doorbell(&poll, &tape)?;
        let (snapshot, started) = match restored {
            Some((snapshot, started)) => (Some(snapshot), Ok(started)),
            None => (None, host.start(tape.object(), tape.doorbell())),
        };
        let process = Process::watch(started?, poll.registry(), PROCESS)
            .map_err(NodeError::doing("cannot watch the server"))?;
        let perturb = Duration::from_micros(u64::from(config.perturb_us));
        let chance = sys::random_u64().map_err(NodeError::doing("cannot get random bytes"))?;
        let mut run = Self {
            poll,
            config,
            log: Bounded { log, upto },
            feeder: Feeder::new(perturb, chance),
            output: Output::new(),
            state: ReplayedState::default(),
            hashes: hashes.into_iter().peekable(),
            process: Some(process),
            tape,
            tape_bytes,
            debugger: None,
            has_more: false,
            keep,
            result: Replayed::default(),
        };
        if let Some(snapshot) = snapshot {
            run.begin_after(snapshot);
        }
        Ok(run)
    }

    /// The server has done everything up to the slot of the snapshot.
    fn begin_after(&mut self, snapshot: NodeState) {
        let applied = snapshot.applied;
        self.feeder.restart_after(applied.slot);
        self.feeder.resume(applied.slot, applied.slot);
        let (deadline_ns, hashes) = (snapshot.deadline_ns, &snapshot.hashes);
        self.output
            .resume(applied, deadline_ns, hashes, Instant::now());
        self.result.last = applied;
        self.result.rested = applied.slot;
        while self.hashes.next_if(|it| it.slot < applied.slot).is_some() {}
        // The same at the checkpoint itself, or it is another history.
        let recorded = self.hashes.next_if(|it| it.slot == applied.slot);
        if let Some(recorded) = recorded.filter(|recorded| *recorded != applied) {
            self.result.difference = Some((recorded, applied));
        }
        self.state = ReplayedState::load(snapshot);
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
    fn iterate(&mut self, started: Instant) -> Result<bool, NodeError> {
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
            let (state, fed) = (&mut self.state, &mut self.result.bytes);
            self.feeder.observe(&mut self.log, |slot, bytes| {
                *fed += bytes.len() as u64;
                state.entry(slot, bytes);
            })?;
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
        let mut sink = ReplaySink {
            state: &mut self.state,
            fault: None,
        };
        let bytes = self.tape.tape().output();
        let used = self.output.take(bytes, now, &mut sink);
        let fault = sink.fault;
        let used = used.map_err(NodeError::Tape)?;
        self.tape.release_output(used);
        if self.result.ended.is_none() {
            self.result.ended = fault;
        }
        if let Some(clock) = self.output.clock().filter(|clock| clock.idle) {
            self.result.rested = clock.slot;
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

    /// Keeps the server as it is, if that is wanted.
    fn keep(&mut self, host: &mut impl ServerHost) {
        if let Some(keep) = self.keep.take() {
            self.result.kept = Some(self.take_checkpoint(&keep, host));
        }
    }

    fn take_checkpoint(&self, keep: &Keep, host: &mut impl ServerHost) -> Result<u64, NotKept> {
        let Some(process) = self
            .process
            .as_ref()
            .filter(|_| self.result.ended.is_none())
        else {
            return Err(NotKept::ServerEnded);
        };
        let clock = self.output.clock();
        let Some(clock) = clock.filter(|it| it.idle && it.slot == self.result.last.slot) else {
            return Err(NotKept::Busy {
                slot: self.result.last.slot,
                rested: self.result.rested,
            });
        };
        self.await_sleep()?;
        let applied = self.output.applied();
        let oldest = applied.slot.saturating_sub(HASHES_KEPT);
        let hashes = self.output.history().between(oldest, applied.slot - 1);
        let snapshot = self.state.snapshot(applied, clock.deadline_ns, hashes);
        let about = Provenance {
            cluster: self.config.cluster.0,
            node: self.config.node,
            position: Position {
                slot: applied.slot,
                output_hash: applied.output_hash,
                schedule_hash: applied.schedule_hash,
            },
            fingerprint: keep.identity.clone(),
        };
        let pid = process.pid().unsigned_abs();
        let take = || -> Result<(), CheckpointError> {
            let staged = keep.directory.stage(applied.slot)?;
            let server = staged.path().join(SERVER_DIR);
            std::fs::create_dir(&server)?;
            host.dumper(self.tape_bytes)?(pid, about.position, &server)?;
            snapshot.save(staged.path())?;
            staged.commit(about, &mut |_| ()).map(drop)
        };
        match take() {
            Ok(()) | Err(CheckpointError::Exists(_)) => Ok(applied.slot),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the server sleeps: it says that it is idle a moment before, and can be restored
    /// only from there.
    fn await_sleep(&self) -> Result<(), NotKept> {
        let started = Instant::now();
        while !self.tape.tape().server_is_asleep() {
            if started.elapsed() > SLEEP_PATIENCE {
                return Err(NotKept::Restless);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

fn watch_doorbell(poll: &Poll, tape: &ServerTape) -> Result<(), NodeError> {
    let mut doorbell = SourceFd(&tape.doorbell().as_raw_fd());
    let registry = poll.registry();
    let registered = registry.register(&mut doorbell, DOORBELL, Interest::READABLE);
    registered.map_err(NodeError::doing("cannot watch the doorbell"))
}

/// Restores the server of a checkpoint, and reads the state of its node.
fn restore(
    checkpoint: &Checkpoint,
    host: &mut impl ServerHost,
    tape_bytes: u64,
) -> Result<(NodeState, Objects, Started), NodeError> {
    let snapshot = NodeState::load(&checkpoint.path).map_err(CheckpointError::from)?;
    let image = checkpoint.path.join(SERVER_DIR);
    let (objects, started) = host.restore(&image, tape_bytes)?;
    Ok((snapshot, objects, started))
}

/// Takes the output of the server, which goes nowhere.
struct ReplaySink<'a> {
    state: &'a mut ReplayedState,
    /// The fault that the server has reported.
    fault: Option<String>,
}

impl Sink for ReplaySink<'_> {
    fn record(&mut self, record: &Record<'_>, _: &[u8]) {
        self.state.record(record);
        if let Record::Fault { message } = record {
            self.fault = Some(String::from_utf8_lossy(message).into_owned());
        }
    }

    fn done(&mut self, _: u64) {}
}

/// A log up to some slot.
#[derive(Debug)]
struct Bounded {
    log: Option<LogReader>,
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
    ) -> Result<(), LogError> {
        let mut bytes = 0;
        for slot in from..=self.upto {
            let log = self.log.as_mut().ok_or(LogError::Missing)?;
            let value = log.read(slot)?;
            bytes += value.len();
            out.push((slot, value));
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(())
    }
}
