//! Server process lifecycle: started on a fresh tape, watched, restarted after a crash, left
//! stopped after a clean exit.

use crate::clients::listeners::Published;
use crate::server::feeder::Feeder;
use crate::server::output::Output;
use crate::server::process::{Objects, Process, ServerHost, Started, seed};
use crate::server::stall::StallMonitor;
use crate::server::start_error::StartError;
use crate::server::syscall_filter::{CaughtSite, SyscallFilterStatus};
use crate::server::tape::ServerTape;
use crate::server::traces::TraceFile;
use brolga_config::{NodeConfig, Policy};
use brolga_tape::record::Record;
use brolga_tape::ring::{Parameters, object_bytes};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use serde::{Deserialize, Serialize};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of the input ring: several of the largest entries.
const INPUT_RING_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of the output ring.
const OUTPUT_RING_BYTES: u64 = 4 * 1024 * 1024;
/// A server that crashes this often in a row without getting any further is not restarted.
pub(crate) const CRASHES_MAX: u32 = 3;

/// The state of the wrapped server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ServerState {
    /// Started, and has not answered its first entry.
    Starting,
    /// Repeats the entries of the log.
    Replaying,
    /// Keeps up with the log.
    Running,
    /// The first process ended by itself; it does so on every replica.
    Exited {
        /// The way it ended, in words.
        how: String,
    },
    /// Stopped because of something that is not supported, or cannot be started.
    Faulted {
        /// The reason, in one line.
        message: String,
    },
}

/// A record about the server as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerEvent {
    Listen(Published),
    Unlisten(u32),
    Exit(i32),
    Fault(String),
    SyscallFilter(i32),
    Caught(CaughtSite),
}

impl ServerEvent {
    /// Returns the event of a record, if it is one about the server as a whole.
    pub(crate) fn of_record(record: &Record<'_>) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(match *record {
            Record::Listen {
                listener,
                address,
                transport,
                chosen,
            } => Self::Listen(Published {
                listener,
                address,
                transport,
                chosen,
            }),
            Record::Unlisten { listener } => Self::Unlisten(listener),
            Record::Exit { status } => Self::Exit(status),
            Record::Fault { message } => Self::Fault(text(message)),
            Record::SyscallFilter { errno } => Self::SyscallFilter(errno),
            Record::Caught {
                number,
                count,
                offset,
                object,
            } => Self::Caught(CaughtSite {
                object: text(object),
                offset,
                number,
                count,
            }),
            _ => return None,
        })
    }
}

/// The lifecycle of the server, over all of its runs.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    /// Gathered while records are read; handled right after.
    pub(crate) events: Vec<ServerEvent>,
    /// The state in which it ended, if it did for good.
    pub(crate) ended: Option<ServerState>,
    starts: u64,
    /// The slot of the checkpoint that this run of the server began at, if it did.
    pub(crate) restored_from: Option<u64>,
    /// Crashes in a row, and the slot that was applied at the last one.
    crashes: (u32, u64),
    ever_listened: bool,
    /// Clients may connect; not before the server has caught up.
    serving: bool,
    /// The slot to catch up with first.
    serve_after: Option<u64>,
    /// The syscall filter of this run of the server.
    pub(crate) syscall_filter: SyscallFilterStatus,
    stall: StallMonitor,
    /// The last slot before this run of the server, once a leader wants to know.
    replayed_at: Option<u64>,
}

impl Lifecycle {
    /// Clients may not connect until another server has caught up.
    pub(crate) fn stop_serving(&mut self) {
        self.ended = None;
        self.serving = false;
        self.serve_after = None;
    }

    /// Clients may connect.
    pub(crate) fn serve(&mut self) {
        self.serving = true;
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.serving
    }

    /// The slot that the server had to catch up with before clients could connect, if they can.
    pub(crate) fn serves_after(&self) -> Option<u64> {
        self.serve_after.filter(|_| self.serving)
    }

    /// The server listens on a port.
    pub(crate) fn listens(&mut self) {
        self.ever_listened = true;
    }

    pub(crate) fn has_ever_listened(&self) -> bool {
        self.ever_listened
    }

    /// The server has ended for good.
    pub(crate) fn end(&mut self, state: ServerState) {
        tracing::warn!(?state, "the server has ended for good");
        self.ended = Some(state);
    }

    /// Runs of the server so far.
    pub(crate) fn starts(&self) -> u64 {
        self.starts
    }

    /// Why requests wait, if a thread of the server holds up the others.
    pub(crate) fn waiting(&self) -> Option<String> {
        self.stall.waiting()
    }
}

/// The parameters of a server's tape.
pub(crate) fn parameters(config: &NodeConfig) -> Parameters {
    Parameters {
        seed: seed(config),
        input_bytes: INPUT_RING_BYTES,
        output_bytes: OUTPUT_RING_BYTES,
        quantum: config.quantum_ticks,
        parallel: u32::from(config.policy == Policy::Parallel),
        perturb_us: config.perturb_us,
        cpus: config.cpus,
        keep_fsync: u32::from(config.keep_fsync),
        host_loopback: u32::from(config.host_loopback),
        syscall_filter: u32::from(config.catches_calls()),
        trace: u32::from(config.trace),
        unix: config.unix_paths(),
    }
}

/// The poll, and the tokens of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) registry: &'a Registry,
    /// The server's process has ended.
    pub(crate) process: Token,
    /// The server has written to its tape.
    pub(crate) doorbell: Token,
}

/// The wrapped server, and everything between it and the log.
#[derive(Debug)]
pub(crate) struct Server<H> {
    pub(crate) host: H,
    // Before the tape: it is killed before its memory goes.
    pub(crate) process: Option<Process>,
    pub(crate) tape: Option<ServerTape>,
    pub(crate) feeder: Feeder,
    pub(crate) output: Output,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) trace_file: Option<TraceFile>,
    parameters: Parameters,
    data_dir: PathBuf,
}

impl<H: ServerHost> Server<H> {
    /// No server runs yet. `random`: for delays in tests.
    pub(crate) fn new(host: H, config: &NodeConfig, random: u64) -> Self {
        let perturb = Duration::from_micros(u64::from(config.perturb_us));
        Self {
            host,
            process: None,
            tape: None,
            feeder: Feeder::new(perturb, random),
            output: Output::new(),
            lifecycle: Lifecycle::default(),
            trace_file: None,
            parameters: parameters(config),
            data_dir: config.data_dir.clone(),
        }
    }

    /// Ends the server; only the host is left.
    pub(crate) fn into_host(mut self) -> H {
        self.end();
        self.host
    }

    /// Starts the server in its genesis state; the whole log is fed to it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub(crate) fn start(&mut self, watch: &Watch<'_>) -> Result<(), StartError> {
        self.end();
        let objects = self.host.objects(self.tape_bytes())?;
        let tape = ServerTape::create_on(objects, &self.parameters)
            .map_err(StartError::doing("cannot make a tape"))?;
        let started = self.host.start(tape.object(), tape.doorbell())?;
        self.watch(tape, started, watch)?;
        if self.parameters.trace != 0 {
            let file = TraceFile::create(&self.data_dir);
            self.trace_file = Some(file.map_err(StartError::doing("cannot make a trace"))?);
        }
        self.feeder.restart();
        self.output.restart();
        Ok(())
    }

    /// Takes over a server that was restored, and sleeps until a tape is made of these objects.
    ///
    /// # Errors
    /// See [`StartError`].
    pub(crate) fn take_restored(
        &mut self,
        objects: Objects,
        started: Started,
        watch: &Watch<'_>,
    ) -> Result<(), StartError> {
        let tape = ServerTape::create_on(objects, &self.parameters)
            .map_err(StartError::doing("cannot make a tape"))?;
        self.watch(tape, started, watch)?;
        self.lifecycle.ever_listened = true;
        Ok(())
    }

    fn watch(
        &mut self,
        tape: ServerTape,
        started: Started,
        watch: &Watch<'_>,
    ) -> Result<(), StartError> {
        let mut doorbell = SourceFd(&tape.doorbell().as_raw_fd());
        let process = Process::watch(started, watch.registry, watch.process)
            .map_err(StartError::doing("cannot watch the server"))?;
        let registered = watch
            .registry
            .register(&mut doorbell, watch.doorbell, Interest::READABLE);
        registered.map_err(StartError::doing("cannot watch the doorbell"))?;
        tracing::info!(pid = process.pid(), "the server is started");
        self.process = Some(process);
        self.tape = Some(tape);
        self.lifecycle.syscall_filter =
            SyscallFilterStatus::new(self.parameters.syscall_filter != 0);
        self.lifecycle.starts += 1;
        self.lifecycle.replayed_at = None;
        Ok(())
    }

    /// Ends the server, if one runs: it may hold the working directory.
    pub(crate) fn end(&mut self) {
        self.process = None;
        self.tape = None;
        self.trace_file = None;
        self.lifecycle.restored_from = None;
    }

    /// Bytes of a tape.
    pub(crate) fn tape_bytes(&self) -> u64 {
        object_bytes(&self.parameters)
    }

    /// The server runs and has not ended for good.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some() && self.lifecycle.ended.is_none()
    }

    /// The server has ended for good.
    pub(crate) fn is_gone(&self) -> bool {
        self.process.is_none() && self.lifecycle.ended.is_some()
    }

    /// The first process of the server, while it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Returns the wait status of the server's process, once, if it has ended.
    ///
    /// # Errors
    /// See [`StartError::System`].
    pub(crate) fn take_exit(&mut self) -> Result<Option<i32>, StartError> {
        let Some(process) = &mut self.process else {
            return Ok(None);
        };
        let status = process
            .ended()
            .map_err(StartError::doing("cannot await the server"))?;
        if status.is_some() {
            self.process = None;
        }
        Ok(status)
    }

    /// Counts a crash. Returns true when the server is not to be restarted.
    pub(crate) fn crashed(&mut self) -> bool {
        let slot = self.output.applied().slot;
        let (count, last) = self.lifecycle.crashes;
        let count = if slot > last { 1 } else { count + 1 };
        self.lifecycle.crashes = (count, slot);
        count >= CRASHES_MAX
    }

    pub(crate) fn state(&self) -> ServerState {
        if let Some(ended) = &self.lifecycle.ended {
            return ended.clone();
        }
        match (self.output.applied().slot, self.lifecycle.serving) {
            (0, _) => ServerState::Starting,
            (_, false) => ServerState::Replaying,
            (applied, true) if applied < self.lifecycle.crashes.1 => ServerState::Replaying,
            _ => ServerState::Running,
        }
    }

    /// The server has repeated everything that was in the log when this was first asked with the
    /// log seen up to `chosen` and `complete`.
    pub(crate) fn has_caught_up(&mut self, chosen: u64, complete: bool) -> bool {
        if self.lifecycle.serve_after.is_none() && (self.feeder.seen() < chosen || !complete) {
            return false;
        }
        let last = self.feeder.last_entry();
        let target = *self.lifecycle.serve_after.get_or_insert(last);
        self.output.applied().slot >= target.max(1)
    }

    /// This run of the server has repeated everything that was in the log when this was first
    /// asked.
    pub(crate) fn has_replayed(&mut self) -> bool {
        let last = self.feeder.last_entry();
        let target = *self.lifecycle.replayed_at.get_or_insert(last);
        self.output.applied().slot >= target
    }

    /// Checks whether a thread of the server holds up the others.
    pub(crate) fn check_stall(&mut self) {
        let stall = self.tape.as_ref().and_then(|tape| tape.tape().stall());
        self.lifecycle.stall.observe(stall, self.process.as_ref());
    }
}
