//! The procedure of a checkpoint, from the request for it to the log that is truncated behind it.
//!
//! ```text
//! wanted here, and this node's turn      coordination: schedule and checkpoint token
//!   ▼
//! settling: no more entries ──▶ the server is idle and has sent all its output
//!   ▼                            the node state is noted; a thread dumps the server
//! writing: entries again ◀── dumped; the thread hashes, syncs, reads back, names   (writer)
//!   ▼
//! done: the others are told, old checkpoints are removed, the log is truncated     (truncation)
//! ```
//!
//! Clients of the other replicas do not notice: consensus goes on all the time, also on this node.
//!
//! # Invariants
//!
//! * The log is truncated only up to the *oldest* checkpoint that is kept here, and only up to the
//!   slot that checkpoints of a majority of the members cover ([`crate::checkpoint::truncation`]).
//!   So the next older checkpoint can be used when the newest is damaged, and a member that lacks
//!   what was dropped finds a checkpoint to fetch.
//! * What is told to others was verified after it was written.
//! * Output that is held back is in no checkpoint: while there is any, none is taken.
//! * A server in which CRIU was killed gets no more entries: it is replaced by one that is
//!   restored.
//! * A node without a usable checkpoint of the slots before its log has no server until it has
//!   fetched one, and does not lead.
//!
//! Sans-IO apart from the directory of checkpoints and the writer's thread: the event loop asks for
//! the next step and carries it out. Deliberately absent: how a server is dumped (the host's
//! business), going back to a checkpoint ([`crate::checkpoint::restore`]), and how one comes from
//! another node ([`crate::transfer`]).

use crate::checkpoint::coordination::{ClusterView, Coordination, Decision, TokenMessage};
use crate::checkpoint::node_state::NodeState;
use crate::checkpoint::schedule::Schedule;
use crate::checkpoint::truncation::Truncation;
use crate::checkpoint::writer::{Message, Progress, Writer, WriterHandle, WriterStatus};
use crate::server::process::Dumper;
use brolga_checkpoint::{
    Checkpoint, CheckpointError, Compression, Directory, Position, Provenance, ServerFingerprint,
};
use brolga_config::NodeConfig;
use brolga_consensus::{Ballot, NodeId};
use mio::Waker;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Time between two looks at a server that is about to sleep.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Why no checkpoint was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The node has no server at the moment.
    #[error("there is no server here: a checkpoint is being fetched")]
    NoServer,
    /// The server ended before the checkpoint was complete.
    #[error("the server has ended")]
    Ended,
    /// The checkpoint could not be written.
    #[error("{0}")]
    Failed(String),
}

/// The slot of a checkpoint that was requested, or why there is none.
pub type CheckpointResult = Result<u64, NotTaken>;

/// Messages about the token, and the nodes that they go to.
pub(crate) type Outgoing = Vec<(NodeId, TokenMessage)>;

/// The state of the checkpoint that is being taken.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    None,
    /// The server gets no more entries until it is idle.
    Settling,
    /// The thread writes it.
    Writing {
        messages: Receiver<Message>,
        /// The server's process.
        pid: u32,
        /// The server goes on.
        dumped: bool,
        progress: Arc<Progress>,
    },
}

/// The server, as a checkpoint that is to begin finds it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServerView {
    /// The server has ended for good.
    pub(crate) ended: bool,
    /// The process is there.
    pub(crate) running: bool,
    /// A majority has found it wrong.
    pub(crate) quarantined: bool,
    /// Some of its output is held back.
    pub(crate) output_held: bool,
    /// All entries that it was given are applied.
    pub(crate) applied_all: bool,
    /// The server can do nothing until the next entry.
    pub(crate) idle: bool,
    /// The server sleeps, and can only be restored there. It tells that it is idle a moment before.
    pub(crate) asleep: bool,
}

/// The next step of the event loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The server gets so many more entries; `None`: all.
    Feed(Option<u64>),
    /// The server is dumped, and gets no entry until then.
    Dump,
    /// No operator waits for the checkpoint and the server is not worth it.
    Abandon,
    /// There will be no checkpoint.
    Fail(NotTaken),
}

/// The server that is dumped.
pub(crate) struct Dumped<F> {
    pub(crate) cluster: u128,
    pub(crate) node: NodeId,
    pub(crate) pid: u32,
    /// Makes the dumper.
    pub(crate) dumper: F,
}

/// The checkpoints of this node: those on disk, and the one that is being taken.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    directory: Directory,
    identity: ServerFingerprint,
    keep: usize,
    compression: Compression,
    waker: Arc<Waker>,
    stage: Stage,
    /// Operators that wait for a checkpoint.
    requests: Vec<oneshot::Sender<CheckpointResult>>,
    /// Slots of the checkpoints here, the newest first.
    slots: Vec<u64>,
    truncation: Truncation,
    look_again: bool,
    /// The other nodes' logs begin at this slot, and slots before it are missing here.
    behind: Option<u64>,
    /// The own log begins at this slot, and no checkpoint covers the slots before: there is no
    /// server.
    missing: Option<u64>,
    coordination: Coordination,
}

impl Checkpoints {
    /// The checkpoints below `directory`.
    pub(crate) fn open(
        directory: Directory,
        identity: ServerFingerprint,
        config: &NodeConfig,
        waker: Arc<Waker>,
    ) -> Self {
        let members = config.members.iter().map(|member| member.id);
        let (every, log_bytes) = (config.checkpoint_period(), config.checkpoint_log_bytes());
        let schedule = Schedule::new(every, log_bytes, Instant::now());
        Self {
            directory,
            identity,
            keep: config.checkpoints_kept.max(1),
            compression: config.checkpoint_compression,
            waker,
            stage: Stage::None,
            requests: Vec::new(),
            slots: Vec::new(),
            truncation: Truncation::new(config.node, members),
            look_again: false,
            behind: None,
            missing: None,
            coordination: Coordination::new(schedule),
        }
    }

    /// The parts that outlive a restart of the node.
    pub(crate) fn into_carryover(self) -> (ServerFingerprint, Arc<Waker>) {
        (self.identity, self.waker)
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn identity(&self) -> &ServerFingerprint {
        &self.identity
    }

    /// The slot of the newest checkpoint here.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.slots.first().copied()
    }

    /// The time to go on: soon while a server is about to sleep, which it does not announce;
    /// otherwise when a checkpoint is due.
    pub(crate) fn wakeup(&mut self, now: Instant) -> Option<Instant> {
        let look = std::mem::take(&mut self.look_again).then(|| now + LOOK_AGAIN);
        let due = (!self.is_busy()).then(|| self.coordination.schedule.wakeup(now));
        look.into_iter().chain(due.flatten()).min()
    }

    // ---- when: requests, the schedule, the token ----

    /// An operator requests a checkpoint.
    pub(crate) fn request(&mut self, reply: oneshot::Sender<CheckpointResult>) {
        if self.is_missing() {
            // The operator may have given up waiting.
            let _ = reply.send(Err(NotTaken::NoServer));
            return;
        }
        self.requests.push(reply);
    }

    /// The log has an entry more.
    pub(crate) fn logged(&mut self, bytes: usize) {
        self.coordination.schedule.logged(bytes);
    }

    /// Says why no checkpoint could be taken lately.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.coordination.schedule.trouble()
    }

    /// Returns true while a checkpoint is being taken.
    pub(crate) fn is_busy(&self) -> bool {
        !matches!(self.stage, Stage::None)
    }

    /// Returns true when a checkpoint is to begin. `sound`: the server is worth one.
    pub(crate) fn is_wanted(&mut self, sound: bool, now: Instant) -> bool {
        if self.is_busy() {
            return false;
        }
        let schedule = &mut self.coordination.schedule;
        let wanted = !self.requests.is_empty() || (sound && schedule.is_due(now));
        if !wanted {
            schedule.forget_request();
        }
        wanted
    }

    /// Begins the checkpoint that is wanted, or requests the token for it.
    pub(crate) fn consider(&mut self, cluster: &ClusterView, now: Instant) -> Outgoing {
        let requested = !self.requests.is_empty();
        let newest = self.newest().unwrap_or_default();
        let is_ahead = |node: &NodeId| self.truncation.newest_of(*node) > newest;
        let all_ahead = cluster.connected.iter().all(is_ahead);
        let decision = self
            .coordination
            .consider(requested, all_ahead, cluster, now);
        self.carry_out(decision, cluster)
    }

    /// Takes in a message about the token. `sound`: as in [`Checkpoints::is_wanted`].
    pub(crate) fn receive(
        &mut self,
        from: NodeId,
        (message, ballot): (TokenMessage, Ballot),
        cluster: &ClusterView,
        sound: bool,
        now: Instant,
    ) -> Outgoing {
        let due = sound && self.coordination.schedule.is_due(now);
        let state = (self.is_busy(), !self.requests.is_empty() || due);
        let message = (from, message, ballot);
        let decision = self.coordination.receive(message, state, cluster);
        self.carry_out(decision, cluster)
    }

    fn carry_out(&mut self, decision: Decision, cluster: &ClusterView) -> Outgoing {
        match decision {
            Decision::Nothing => Outgoing::new(),
            Decision::Send(to, message) => vec![(to, message)],
            Decision::Begin => {
                self.stage = Stage::Settling;
                let busy = |id: &NodeId| (*id, TokenMessage::Busy);
                cluster.connected.iter().map(busy).collect()
            }
        }
    }

    /// A message about the token could not be sent.
    pub(crate) fn not_sent(&mut self, to: NodeId, message: TokenMessage) {
        self.coordination.not_sent(to, message);
    }

    /// The message that tells whether this node takes a checkpoint.
    pub(crate) fn activity(&self) -> TokenMessage {
        match self.is_busy() {
            true => TokenMessage::Busy,
            false => TokenMessage::Idle,
        }
    }

    /// The link to a node went down.
    pub(crate) fn peer_down(&mut self, node: NodeId) {
        self.coordination.lost(node);
    }

    /// Another ballot counts.
    pub(crate) fn ballot_changed(&mut self) {
        self.coordination.ballot_changed();
    }

    // ---- how: settle, dump, write ----

    /// Returns true while the server is to become idle.
    pub(crate) fn is_settling(&self) -> bool {
        matches!(self.stage, Stage::Settling)
    }

    /// Returns true while the server is being dumped: it sleeps, and output that comes all the same
    /// is CRIU's doing and does not count.
    pub(crate) fn is_dumping(&self) -> bool {
        matches!(self.stage, Stage::Writing { dumped: false, .. })
    }

    /// The progress of the checkpoint that is being written.
    pub(crate) fn writing(&self) -> Option<WriterStatus> {
        match &self.stage {
            Stage::Writing { progress, .. } => Some(progress.status()),
            Stage::None | Stage::Settling => None,
        }
    }

    /// Decides how a server that is to be dumped becomes idle.
    pub(crate) fn settle(&mut self, server: ServerView) -> Step {
        if server.ended {
            self.stage = Stage::None;
            return Step::Fail(NotTaken::Ended);
        }
        let sound = server.running && !server.quarantined;
        if !sound && self.requests.is_empty() {
            self.stage = Stage::None;
            return Step::Abandon;
        }
        if !sound || server.output_held {
            return Step::Feed(None);
        }
        if !server.applied_all {
            return Step::Feed(Some(0));
        }
        if !server.idle {
            // Not idle yet: feed exactly one more entry.
            return Step::Feed(Some(1));
        }
        if !server.asleep {
            self.look_again = true;
            return Step::Feed(Some(0));
        }
        Step::Dump
    }

    /// Starts the thread that dumps the server and writes the checkpoint. `state`: the node's part
    /// of it.
    pub(crate) fn dump(
        &mut self,
        state: NodeState,
        server: Dumped<impl FnOnce() -> Result<Dumper, CheckpointError>>,
    ) -> Result<(), CheckpointError> {
        let applied = state.applied;
        let staged = self.directory.stage(applied.slot)?;
        let (messages_tx, messages) = channel();
        let progress = Arc::new(Progress::new(applied.slot));
        let writer = Writer {
            staged,
            about: Provenance {
                cluster: server.cluster,
                node: server.node,
                position: Position {
                    slot: applied.slot,
                    output_hash: applied.output_hash,
                    schedule_hash: applied.schedule_hash,
                },
                fingerprint: self.identity.clone(),
            },
            state,
            pid: server.pid,
            dumper: (server.dumper)()?,
            compression: self.compression,
            handle: WriterHandle {
                messages: messages_tx,
                waker: Arc::clone(&self.waker),
            },
            progress: Arc::clone(&progress),
        };
        self.coordination.schedule.begun();
        tracing::info!(slot = applied.slot, "taking a checkpoint");
        writer.spawn()?;
        self.stage = Stage::Writing {
            messages,
            pid: server.pid,
            dumped: false,
            progress,
        };
        Ok(())
    }

    /// The next message of the writer.
    pub(crate) fn poll_writer(&mut self) -> Option<Message> {
        let Stage::Writing {
            messages, dumped, ..
        } = &mut self.stage
        else {
            return None;
        };
        match messages.try_recv() {
            Err(TryRecvError::Empty) => None,
            Ok(Message::Dumped) => {
                *dumped = true;
                Some(Message::Dumped)
            }
            Ok(done) => Some(done),
            Err(TryRecvError::Disconnected) => {
                let died = CheckpointError::Failed("the thread that writes it died".into());
                Some(Message::Done(Err(died)))
            }
        }
    }

    /// Another server takes the place of the one that is being dumped, if one is.
    pub(crate) fn server_is_gone(&mut self) {
        if let Stage::Writing { dumped, .. } = &mut self.stage {
            *dumped = true;
        }
    }

    /// Nothing is being taken any more. Returns the process that was dumped, if one was.
    pub(crate) fn end(&mut self) -> Option<u32> {
        match std::mem::take(&mut self.stage) {
            Stage::Writing { pid, .. } => Some(pid),
            Stage::None | Stage::Settling => None,
        }
    }

    /// The checkpoint of `slot` is complete: those that are older than what is kept are removed.
    pub(crate) fn completed(&mut self, slot: u64) -> Result<(), CheckpointError> {
        tracing::info!(slot, "the checkpoint is complete");
        if let Err(error) = self.directory.prune(self.keep) {
            tracing::warn!(%error, "old checkpoints cannot be removed");
        }
        self.refresh().map(drop)
    }

    /// Notes the result, and answers those who wait for it.
    pub(crate) fn conclude(&mut self, result: &CheckpointResult, now: Instant) {
        let schedule = &mut self.coordination.schedule;
        match result {
            Ok(_) => schedule.succeeded(now),
            Err(error) if schedule.failed(&error.to_string(), now) => {
                tracing::warn!(
                    "no checkpoint was taken, the last one is as good as before: {error}"
                );
            }
            Err(error) => tracing::debug!("no checkpoint was taken, again: {error}"),
        }
        for reply in self.requests.drain(..) {
            // The operator may have given up waiting.
            let _ = reply.send(result.clone());
        }
    }

    /// Lists the checkpoints on disk again.
    pub(crate) fn refresh(&mut self) -> Result<Vec<Checkpoint>, CheckpointError> {
        let listing = self.directory.list()?;
        for (_, error) in &listing.damaged {
            tracing::error!("{error}");
        }
        self.slots = listing.whole.iter().map(Checkpoint::slot).collect();
        Ok(listing.whole)
    }

    // ---- what the log needs to keep ----

    /// Another node has told the slot of its newest checkpoint; 0: it has none.
    pub(crate) fn told(&mut self, node: NodeId, slot: u64) {
        self.truncation.told(node, slot);
    }

    /// Another node fetches the checkpoint of `slot`; 0: none any more.
    pub(crate) fn fetches(&mut self, node: NodeId, slot: u64, now: Instant) {
        let logged = self.coordination.schedule.logged_bytes();
        self.truncation.fetches(node, slot, logged, now);
    }

    /// The slot up to which the log can be truncated.
    pub(crate) fn droppable(&self, now: Instant) -> Option<u64> {
        let logged = self.coordination.schedule.logged_bytes();
        self.truncation.droppable(&self.slots, logged, now)
    }

    // ---- what is missing here ----

    /// The leader says that its log begins at slot `first`, behind what is here. It says so
    /// repeatedly.
    pub(crate) fn lacks(&mut self, first: u64) {
        if self.behind.replace(first) != Some(first) {
            tracing::warn!(
                first,
                "slots before this one are missing here and were dropped by the others"
            );
        }
    }

    /// The least slot of which a checkpoint has to be fetched, if the log, of which all up to
    /// `chosen` is here, cannot be continued without.
    pub(crate) fn lacking(&self, chosen: u64) -> Option<u64> {
        let behind = self.behind.filter(|first| chosen + 1 < *first);
        behind.max(self.missing).map(|first| first - 1)
    }

    /// Returns true when there is no server, nor anything to start one from.
    pub(crate) fn is_missing(&self) -> bool {
        self.missing.is_some()
    }

    /// The own log begins at slot `first`, and there is nothing to start a server from.
    pub(crate) fn set_missing(&mut self, first: u64) {
        self.missing = Some(first);
    }
}
