//! The server's life: started on a fresh tape, watched, started again when it dies by accident, left
//! alone when it ends by itself; and the node's answer to "how are you?".

use crate::checkpoint::restore::StartPoint;
use crate::clients::frontend::Published;
use crate::error::NodeError;
use crate::event_loop::node::{DOORBELL, Node, PROCESS};
use crate::server::process::{Objects, Process, ServerHost, Started, seed};
use crate::server::syscall_filter::{Backstop, CaughtSite};
use crate::server::tape::TapeMap;
use crate::server::traces::TraceFile;
use crate::status::{NodeStatus, Peer, Role, ServerState};
use brolga_config::{NodeConfig, Policy};
use brolga_consensus::Recovery;
use brolga_os::sys;
use brolga_tape::ring::{Parameters, Stall, object_bytes};
use mio::Interest;
use mio::unix::SourceFd;
use std::os::fd::AsRawFd;
use std::time::Instant;

/// Bytes of the input ring: several of the largest entries.
const INPUT_RING_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of the output ring.
const OUTPUT_RING_BYTES: u64 = 4 * 1024 * 1024;
/// A server that dies this often in a row without getting any further is not started again.
const DEATHS_MAX: u32 = 3;

/// What records say of the server as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerNews {
    Listen(Published),
    Unlisten(u32),
    Exit(i32),
    Fault(String),
    Backstop(i32),
    Caught(CaughtSite),
}

/// What the node knows of its server beyond the tape.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// Gathered while records are read, and seen to right after.
    pub(crate) news: Vec<ServerNews>,
    /// How it ended, if it did for good.
    pub(crate) ended: Option<ServerState>,
    starts: u64,
    /// The slot of the checkpoint that this run of the server began at, if it did.
    pub(crate) restored_from: Option<u64>,
    /// Deaths in a row, and the slot that was applied when it last died.
    deaths: (u32, u64),
    ever_listened: bool,
    /// Clients may connect; not before the server has caught up.
    live: bool,
    /// The slot to catch up with first.
    live_at: Option<u64>,
    /// Why a link was refused, if that was so since there was one last.
    pub(crate) refused: Option<String>,
    /// How this run of the server is watched.
    backstop: Backstop,
    /// What the server has last said of a thread that holds the others up.
    told_stall: Option<Stall>,
    /// The same, if there are others.
    stall: Option<Stall>,
    /// The last slot before this run of the server, once a leader wants to know.
    pub(crate) repeated_at: Option<u64>,
}

impl Life {
    /// Clients may not connect until another server has caught up.
    pub(crate) fn offline(&mut self) {
        self.ended = None;
        self.live = false;
        self.live_at = None;
    }
}

/// In words.
fn described(stall: &Stall) -> String {
    let others = match stall.waiting {
        1 => "1 other waits for its turn".to_owned(),
        many => format!("{many} others wait for their turn"),
    };
    format!(
        "thread {} of process {} has computed for more than {} s without an ordered operation, and \
         if it spins, for something that another is to do, it will do so for ever: {others}",
        stall.thread, stall.process, stall.seconds
    )
}

/// What a server's tape is made with.
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
        backstop: u32::from(config.catches_calls()),
        trace: u32::from(config.trace),
        unix: config.unix_paths(),
    }
}

impl<H: ServerHost> Node<H> {
    /// Starts the server in its genesis state; the whole log is fed to it.
    pub(crate) fn start_server(&mut self) -> Result<(), NodeError> {
        self.end_server();
        let parameters = self.parameters();
        let objects = self.host.objects(object_bytes(&parameters));
        let tape = TapeMap::create_on(objects.map_err(NodeError::Start)?, &parameters)
            .map_err(NodeError::doing("cannot make a tape"))?;
        let started = self
            .host
            .start(tape.object(), tape.doorbell())
            .map_err(NodeError::Start)?;
        self.watch_server(tape, started)?;
        if self.config.trace {
            let file = TraceFile::create(&self.config.data_dir);
            self.trace_file = Some(file.map_err(NodeError::doing("cannot make a trace"))?);
        }
        self.feeder.restart();
        self.output.restart();
        self.conns.server_restarts();
        self.life.repeated_at = None;
        self.monitor.restart();
        Ok(())
    }

    /// The old one goes first: it may hold the working directory.
    pub(crate) fn end_server(&mut self) {
        self.process = None;
        self.tape = None;
        self.trace_file = None;
        self.life.restored_from = None;
        self.checkpoints.server_is_gone();
    }

    fn watch_server(&mut self, tape: TapeMap, started: Started) -> Result<(), NodeError> {
        let mut doorbell = SourceFd(&tape.doorbell().as_raw_fd());
        let registry = self.poll.registry();
        let process = Process::watch(started, registry, PROCESS)
            .map_err(NodeError::doing("cannot watch the server"))?;
        registry
            .register(&mut doorbell, DOORBELL, Interest::READABLE)
            .map_err(NodeError::doing("cannot watch the doorbell"))?;
        tracing::info!(pid = process.pid(), "the server is started");
        self.process = Some(process);
        self.tape = Some(tape);
        self.life.backstop = Backstop::new(self.config.catches_calls());
        self.life.starts += 1;
        Ok(())
    }

    /// A server was brought back, and sleeps until a tape is made of these objects.
    pub(crate) fn watch_restored(
        &mut self,
        objects: Objects,
        started: Started,
    ) -> Result<(), NodeError> {
        let tape = TapeMap::create_on(objects, &self.parameters())
            .map_err(NodeError::doing("cannot make a tape"))?;
        self.watch_server(tape, started)?;
        self.life.repeated_at = None;
        self.life.ever_listened = true;
        Ok(())
    }

    /// Bytes of a tape.
    pub(crate) fn tape_bytes(&self) -> u64 {
        object_bytes(&self.parameters())
    }

    /// The server runs and has not ended for good.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some() && self.life.ended.is_none()
    }

    fn parameters(&self) -> Parameters {
        parameters(&self.config)
    }

    /// The poll says that the process may have ended.
    pub(crate) fn server_process_changed(&mut self, now: Instant) -> Result<(), NodeError> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let Some(status) = process
            .ended()
            .map_err(NodeError::doing("cannot await the server"))?
        else {
            return Ok(());
        };
        self.process = None;
        // What it has said before still counts.
        self.drain_output(now)?;
        let how = sys::describe_status(status);
        if self.end_output() {
            // Its last words may have to wait until others have said the same.
            return self.mourn(&how);
        }
        let over = self.died_often();
        if over && !self.life.ever_listened {
            return self.never_listened(how);
        }
        let slot = self.output.applied().slot;
        if over {
            let message = format!("the server died {DEATHS_MAX} times after slot {slot}: {how}");
            self.server_ended(ServerState::Faulted { message });
            return Ok(());
        }
        tracing::warn!(%how, slot, "the server died; it is started again and replays the log");
        match self.restore_server(false, u64::MAX)? {
            StartPoint::Restored | StartPoint::Waits => Ok(()),
            StartPoint::FromGenesis => self.start_server(),
        }
    }

    /// Ends a node whose server has ended for good before it was of any use.
    fn mourn(&self, how: &str) -> Result<(), NodeError> {
        let gone = self.life.ended.is_some() && self.process.is_none();
        if gone && !self.life.ever_listened {
            return self.never_listened(how.to_owned());
        }
        Ok(())
    }

    fn never_listened(&self, how: String) -> Result<(), NodeError> {
        Err(NodeError::ServerEnded {
            how,
            last_words: self.host.last_words(),
        })
    }

    /// Counts a death; true when it is one too many.
    fn died_often(&mut self) -> bool {
        let slot = self.output.applied().slot;
        let (count, last) = self.life.deaths;
        let count = if slot > last { 1 } else { count + 1 };
        self.life.deaths = (count, slot);
        count >= DEATHS_MAX
    }

    fn server_ended(&mut self, state: ServerState) {
        tracing::warn!(?state, "the server has ended for good");
        self.life.ended = Some(state);
        self.frontend.server_gone();
    }

    /// Sees to what records have said of the server as a whole.
    pub(crate) fn take_server_news(&mut self) -> Result<(), NodeError> {
        let mut news = std::mem::take(&mut self.life.news);
        for one in news.drain(..) {
            match one {
                ServerNews::Listen(port) => {
                    self.life.ever_listened = true;
                    self.frontend.listen(port)?;
                }
                ServerNews::Unlisten(listener) => self.frontend.unlisten(listener),
                ServerNews::Exit(status) => {
                    let how = sys::describe_status(status);
                    self.server_ended(ServerState::Exited { how: how.clone() });
                    self.mourn(&how)?;
                }
                ServerNews::Fault(message) => {
                    let how = message.clone();
                    self.server_ended(ServerState::Faulted { message });
                    self.mourn(&how)?;
                }
                ServerNews::Backstop(errno) => self.life.backstop.answered(errno),
                ServerNews::Caught(site) => self.life.backstop.caught(site),
            }
        }
        self.life.news = news;
        Ok(())
    }

    /// Opens the ports once the server has repeated what was in the log when the node came up.
    pub(crate) fn go_live_when_caught_up(&mut self) -> Result<(), NodeError> {
        let barred = !self.may_serve()? || self.monitor.quarantine().is_some();
        if self.life.live || self.leadership.leader.is_none() || barred {
            return Ok(());
        }
        if self.life.ended.is_some() || self.checkpoints.is_missing() {
            return Ok(());
        }
        let chosen = match self.config.learner {
            None => self.replica.chosen_upto(),
            // It begins with nothing, and would find out bit by bit that there is more.
            Some(_) => self.replica.told_chosen_upto(),
        };
        // One that has lost its disk knows of slots that others have voted on and it has not got yet.
        let catching = matches!(self.replica.recovery(), Recovery::CatchingUp { .. });
        if self.life.live_at.is_none() && (self.feeder.seen() < chosen || catching) {
            return Ok(());
        }
        let target = *self.life.live_at.get_or_insert(self.feeder.last_entry());
        if self.output.applied().slot < target.max(1) {
            return Ok(());
        }
        self.note_that_it_serves()?;
        self.life.live = true;
        Ok(self.frontend.go_live()?)
    }

    // ---- status ----

    pub(crate) fn status(&self) -> NodeStatus {
        NodeStatus {
            node: self.id,
            cluster: self.config.cluster.to_string(),
            pid: std::process::id(),
            server_pid: self.process.as_ref().map(Process::pid),
            server: self.server_state(),
            role: self.role(),
            leader: self.leadership.leader,
            ballot: self.leadership.ballot.to_string(),
            chosen: self.replica.chosen_upto(),
            last_entry: self.feeder.last_entry(),
            applied: self.output.applied(),
            divergence: self.output.divergence(),
            difference: self.monitor.report().cloned(),
            quarantine: self.monitor.quarantine().cloned(),
            vote: self.config.vote,
            policy: self.config.policy,
            held_bytes: self.monitor.output_commit.held_bytes(),
            connections: self.frontend.client_count(),
            outgoing: self.frontend.outgoing_count(),
            listeners: self.frontend.addresses(),
            datagram_ports: self.frontend.datagram_addresses(),
            datagrams: self.frontend.datagram_counts(),
            peers: self.peers(),
            learners: self.learner_statuses(),
            checkpoint: self.checkpoints.newest(),
            taking: self.checkpoints.writing(),
            checkpoint_trouble: self.checkpoints.trouble(),
            restored_from: self.life.restored_from,
            live_at: self.life.live_at.filter(|_| self.life.live),
            log_begins: self.replica.first_slot(),
            no_vote: self.no_vote(),
            waiting: self.waiting(),
            transfer: self.transfer.status(),
            proposed: self.proposer.proposed(),
            resends: self.upstream.resends(),
            server_starts: self.life.starts,
            backstop: self.life.backstop.clone(),
        }
    }

    fn server_state(&self) -> ServerState {
        if let Some(ended) = &self.life.ended {
            return ended.clone();
        }
        match (self.output.applied().slot, self.life.live) {
            (0, _) => ServerState::Starting,
            (_, false) => ServerState::Replaying,
            (applied, true) if applied < self.life.deaths.1 => ServerState::Replaying,
            _ => ServerState::Running,
        }
    }

    fn role(&self) -> Role {
        match self.leadership.leader {
            _ if self.config.learner.is_some() => Role::Learner,
            Some(leader) if leader == self.id => Role::Leader,
            Some(_) => Role::Follower,
            None => Role::Searching,
        }
    }

    fn peers(&self) -> Vec<Peer> {
        let peer = |id| Peer {
            id,
            up: !self.absent.contains_key(&id),
        };
        self.config.others().map(peer).collect()
    }

    fn waiting(&self) -> Option<String> {
        self.fetching()
            .or_else(|| self.consensus_waiting())
            .or_else(|| self.company.waiting())
            .or_else(|| self.monitor.waiting())
            .or_else(|| self.life.stall.as_ref().map(described))
    }

    fn fetching(&self) -> Option<String> {
        let lacking = self.checkpoints.lacking(self.replica.chosen_upto())?;
        let transfer = self.transfer.described();
        Some(format!(
            "replica {} lacks slots up to {lacking}, which were dropped: {transfer}",
            self.id
        ))
    }

    /// Looks whether a thread of the server holds the others up. If its process was killed from outside
    /// the others wait for ever: they are killed too, which is a death like any other.
    pub(crate) fn note_stall(&mut self) {
        let stall = self.tape.as_ref().and_then(|tape| tape.tape().stall());
        if stall == self.life.told_stall {
            return;
        }
        self.life.told_stall = stall;
        if let (Some(stall), Some(process)) = (&stall, &mut self.process)
            && process.has_lost(stall.real_process)
        {
            tracing::warn!(
                "process {} of the server was killed from outside, and the others wait for it: all are \
                 ended",
                stall.process
            );
            process.kill();
            return;
        }
        let stall = stall.filter(|stall| stall.waiting > 0);
        if stall == self.life.stall {
            return;
        }
        match &stall {
            Some(stall) => tracing::warn!("{}", described(stall)),
            None => tracing::info!("the server's other threads go on"),
        }
        self.life.stall = stall;
    }

    /// Why this node does not vote.
    fn no_vote(&self) -> Option<String> {
        match self.replica.recovery() {
            Recovery::Voter { .. } | Recovery::Learner => None,
            Recovery::CatchingUp { upto, .. } => Some(format!(
                "it had lost its log and votes again when slot {upto} is chosen"
            )),
            Recovery::Lost => {
                let told: Vec<u64> = self.replica.answers().collect();
                let missing = self.config.others();
                let missing: Vec<String> = missing
                    .filter(|id| !told.contains(id))
                    .map(|id| id.to_string())
                    .collect();
                Some(match missing.is_empty() {
                    true => {
                        "its log is empty, and too many others have lost theirs to tell what was \
                             voted on"
                            .into()
                    }
                    false => format!(
                        "its log is empty: it votes when all others have told what they know; \
                         missing: {}",
                        missing.join(", ")
                    ),
                })
            }
        }
    }

    fn consensus_waiting(&self) -> Option<String> {
        let all = self.config.members.len();
        let absent = self.config.others();
        let absent = absent.filter(|id| self.absent.contains_key(id));
        let reachable = all - absent.count();
        match self.leadership.leader {
            None => {
                let refused = self.life.refused.as_ref().map(|why| format!(" ({why})"));
                let refused = refused.unwrap_or_default();
                Some(format!(
                    "no leader: {reachable} of {all} replicas reachable, requests wait{refused}"
                ))
            }
            Some(leader) if self.absent.contains_key(&leader) => {
                Some(format!("leader {leader} is not reachable, requests wait"))
            }
            Some(leader) if leader == self.id && !self.replica.is_ready() => {
                Some("the new leader is still recovering the log, requests wait".into())
            }
            Some(leader) if leader == self.id && 2 * reachable <= all => Some(format!(
                "no quorum: {reachable} of {all} replicas reachable, requests wait"
            )),
            Some(_) => None,
        }
    }
}
