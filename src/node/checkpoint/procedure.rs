//! Checkpoints of this replica: taken at an idle point while clients go on, and gone back to at a
//! start.
//!
//! ```text
//! asked for ──▶ no more entries ──▶ the server is idle, and has said all it had to say
//!                                     │ what the node knows is noted; a thread dumps the server
//!                                     ▼
//!               entries again ◀── dumped; the thread hashes, syncs, reads back, names
//!                                     │
//!                                     ▼
//!               the others are told, old ones go, the log is dropped as far as most can do without
//! ```
//!
//! Clients of the other replicas notice nothing of it: consensus goes on all the time, also here.
//!
//! # Invariants
//!
//! * The log is dropped only up to the *oldest* checkpoint that is kept here, and only up to what
//!   checkpoints of a majority of the members cover ([`crate::checkpoint::truncation`]). So the
//!   next older one is of
//!   use when the newest is damaged, and a member that lacks what was dropped finds a checkpoint
//!   to fetch.
//! * What is told to others was verified after it was written.
//! * Output that is held back is in no checkpoint: as long as there is any, none is taken.
//! * A server in which CRIU was killed gets no more entries: it is replaced by one that goes back.
//!
//! * A node without a usable checkpoint of what is before its log has no server until it has
//!   fetched
//!   one, and does not lead.
//!
//! Deliberately absent: how a server is dumped (the host's business), when one is due
//! ([`crate::checkpoint::schedule`]), how one comes from another node ([`crate::transfer`]).

use crate::checkpoint::node_state::{SERVER_DIR, SavedPort, Snapshot, TRAIL_SLOTS};
use crate::checkpoint::schedule::{Triggers, Turns};
use crate::checkpoint::truncation::Retention;
use crate::checkpoint::writer::{Dump, Gauge, Mouth, TakingStatus, Word, told_in_log, write};
use crate::clients::connection_table::Conns;
use crate::clients::frontend::Published;
use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::peers::frames::PeerFrame;
use crate::server::process::ServerHost;
use crate::server::tape::TapeMap;
use brolga_checkpoint::directory::{About, Checkpoint, Directory};
use brolga_checkpoint::{CheckpointError, Compression, Identity, Position};
use brolga_config::NodeConfig;
use brolga_consensus::NodeId;
use mio::Waker;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Between looks at a server that is about to sleep.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What came of a wish for a checkpoint: its slot, or why there is none.
pub type Taken = Result<u64, String>;

/// Where a server begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Back {
    /// It was brought back from a checkpoint.
    Restored,
    /// The whole log is here: it is to be started, and given all of it.
    FromGenesis,
    /// There is nothing to begin with. A checkpoint is being fetched.
    Waits,
}

/// How far one is.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    None,
    /// The server gets no more entries until it is idle.
    Settling,
    /// It is being written.
    Writing {
        words_rx: Receiver<Word>,
        /// The server's process.
        pid: u32,
        /// The server goes on.
        dumped: bool,
        gauge: Arc<Gauge>,
    },
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    directory: Directory,
    identity: Identity,
    keep: usize,
    compression: Compression,
    waker: Arc<Waker>,
    stage: Stage,
    waiting: Vec<oneshot::Sender<Taken>>,
    /// Slots of the checkpoints here, the newest first.
    slots: Vec<u64>,
    /// What others have, and need.
    retention: Retention,
    look_again: bool,
    /// The others' logs begin at this slot, and what is before is missing here.
    behind: Option<u64>,
    /// The own log begins at this slot, and no checkpoint stands in for what is before: there is no
    /// server.
    missing: Option<u64>,
    pub(crate) triggers: Triggers,
    pub(crate) turns: Turns,
}

impl Checkpoints {
    pub(crate) fn open(
        directory: Directory,
        identity: Identity,
        config: &NodeConfig,
        waker: Arc<Waker>,
    ) -> Self {
        let members = config.members.iter().map(|member| member.id);
        let (every, log_bytes) = (config.checkpoint_period(), config.checkpoint_log_bytes());
        Self {
            directory,
            identity,
            keep: config.checkpoints_kept.max(1),
            compression: config.checkpoint_compression,
            waker,
            stage: Stage::None,
            waiting: Vec::new(),
            slots: Vec::new(),
            retention: Retention::new(config.node, members),
            look_again: false,
            behind: None,
            missing: None,
            triggers: Triggers::new(every, log_bytes, Instant::now()),
            turns: Turns::default(),
        }
    }

    /// When a server that is about to sleep is looked at again: it does not say when it does. Otherwise
    /// when one is due.
    pub(crate) fn wakeup(&mut self, now: Instant) -> Option<Instant> {
        let look = std::mem::take(&mut self.look_again).then(|| now + LOOK_AGAIN);
        let due = (!self.is_busy()).then(|| self.triggers.wakeup(now));
        look.into_iter().chain(due.flatten()).min()
    }

    /// One is being taken.
    pub(crate) fn is_busy(&self) -> bool {
        !matches!(self.stage, Stage::None)
    }

    /// The server is being dumped: it sleeps, and what it says all the same is CRIU's doing and does not
    /// count.
    pub(crate) fn is_dumping(&self) -> bool {
        matches!(self.stage, Stage::Writing { dumped: false, .. })
    }

    /// Another server takes the place of the one that is being dumped, if one is.
    pub(crate) fn server_is_gone(&mut self) {
        if let Stage::Writing { dumped, .. } = &mut self.stage {
            *dumped = true;
        }
    }

    /// How far the one is that is being written.
    pub(crate) fn taking(&self) -> Option<TakingStatus> {
        match &self.stage {
            Stage::Writing { gauge, .. } => Some(gauge.status()),
            Stage::None | Stage::Settling => None,
        }
    }

    /// An operator waits for one.
    pub(crate) fn is_wished(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn begin(&mut self) {
        self.stage = Stage::Settling;
    }

    /// Another node has a newer one.
    pub(crate) fn is_ahead(&self, node: NodeId) -> bool {
        self.retention.newest_of(node) > self.newest().unwrap_or_default()
    }

    /// The leader says that it cannot send what is missing here. It says so again and again.
    pub(crate) fn lacks(&mut self, first: u64) {
        if self.behind.replace(first) != Some(first) {
            tracing::warn!(
                first,
                "slots before this one are missing here and were dropped by the others"
            );
        }
    }

    /// The least slot of which a checkpoint has to be fetched, if the log, of which all up to `chosen`
    /// is here, does not go on without.
    pub(crate) fn lacking(&self, chosen: u64) -> Option<u64> {
        let behind = self.behind.filter(|first| chosen + 1 < *first);
        behind.max(self.missing).map(|first| first - 1)
    }

    /// There is no server, nor anything to start one from.
    pub(crate) fn is_missing(&self) -> bool {
        self.missing.is_some()
    }

    /// What outlives this.
    pub(crate) fn into_lasting(self) -> (Identity, Arc<Waker>) {
        (self.identity, self.waker)
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The newest one here.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.slots.first().copied()
    }
}

impl<H: ServerHost> Node<H> {
    /// Somebody wants a checkpoint: it is taken when it is this node's turn.
    pub(crate) fn wish_checkpoint(&mut self, reply: oneshot::Sender<Taken>) {
        if self.checkpoints.is_missing() {
            // Whoever asked may have given up waiting.
            let _ = reply.send(Err(
                "there is no server here: a checkpoint is fetched".into()
            ));
            return;
        }
        self.checkpoints.waiting.push(reply);
    }

    fn answer_wishes(&mut self, taken: &Taken) {
        for reply in self.checkpoints.waiting.drain(..) {
            // Whoever asked may have given up waiting.
            let _ = reply.send(taken.clone());
        }
    }

    /// Goes on with a checkpoint, if one was asked for.
    pub(crate) fn advance_checkpoint(&mut self, now: Instant) -> Result<(), NodeError> {
        match &mut self.checkpoints.stage {
            Stage::None => Ok(()),
            Stage::Settling => {
                self.settle(now);
                Ok(())
            }
            Stage::Writing {
                words_rx, dumped, ..
            } => match words_rx.try_recv() {
                Err(TryRecvError::Empty) => Ok(()),
                Ok(Word::Dumped) => {
                    *dumped = true;
                    self.feeder.allow(None);
                    Ok(())
                }
                Ok(Word::Done(done)) => self.written(done, now),
                Err(TryRecvError::Disconnected) => {
                    let died = CheckpointError::Failed("the thread that writes it died".into());
                    self.written(Err(died), now)
                }
            },
        }
    }

    /// Holds entries back until the server is idle; dumps it then.
    fn settle(&mut self, now: Instant) {
        if self.life.ended.is_some() {
            self.feeder.allow(None);
            self.checkpoints.stage = Stage::None;
            return self.settled(&Err("the server has ended".into()), now);
        }
        if !self.is_sound() && !self.checkpoints.is_wished() {
            self.checkpoints.stage = Stage::None;
            self.feeder.allow(None);
            return self.checkpoint_over();
        }
        let ready = self.is_running();
        let held = self.checking.gate.held_bytes() > 0 || self.checking.quarantine().is_some();
        if !ready || held {
            self.feeder.allow(None);
            return;
        }
        let applied = self.output.applied().slot;
        let Some(clock) = self.output.clock().filter(|_| applied == self.feeder.fed()) else {
            return self.feeder.allow(Some(0));
        };
        if !clock.idle {
            // It goes on with the next one only.
            return self.feeder.allow(Some(1));
        }
        self.feeder.allow(Some(0));
        // It says that it is idle a moment before it sleeps, and only there can it be brought back.
        let asleep = |tape: &TapeMap| tape.tape().server_is_asleep();
        if !self.tape.as_ref().is_some_and(asleep) {
            self.checkpoints.look_again = true;
            return;
        }
        let outcome = self.begin_dump(clock.deadline_ns);
        if let Err(error) = outcome {
            self.feeder.allow(None);
            self.checkpoints.stage = Stage::None;
            let taken = match error {
                CheckpointError::Exists(slot) => Ok(slot),
                error => Err(error.to_string()),
            };
            self.settled(&taken, now);
        }
    }

    fn begin_dump(&mut self, deadline_ns: u64) -> Result<(), CheckpointError> {
        let snapshot = self.snapshot(deadline_ns);
        let applied = snapshot.applied;
        let staged = self.checkpoints.directory.stage(applied.slot)?;
        let bytes = self.tape_bytes();
        let dumper = self.host.dumper(bytes)?;
        let pid = self.server_pid();
        let about = About {
            cluster: self.config.cluster.0,
            node: self.id,
            position: Position {
                slot: applied.slot,
                output_hash: applied.output_hash,
                schedule_hash: applied.schedule_hash,
            },
            identity: self.checkpoints.identity.clone(),
        };
        self.checkpoints.triggers.begun();
        tracing::info!(slot = applied.slot, "a checkpoint is taken");
        let (words_tx, words_rx) = channel();
        let mouth = Mouth {
            words_tx,
            waker: Arc::clone(&self.checkpoints.waker),
        };
        let gauge = Arc::new(Gauge::new(applied.slot));
        let seen = Arc::clone(&gauge);
        let compression = self.checkpoints.compression;
        let work = move || {
            let dump = Dump {
                pid,
                dumper,
                compression,
            };
            let done = write(staged, about, &snapshot, dump, (&mouth, &seen));
            mouth.say(Word::Done(done.map(|checkpoint| checkpoint.slot())));
        };
        std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(work)?;
        self.checkpoints.stage = Stage::Writing {
            words_rx,
            pid,
            dumped: false,
            gauge,
        };
        Ok(())
    }

    /// The first process of the server that runs.
    fn server_pid(&self) -> u32 {
        let pid = self
            .process
            .as_ref()
            .map_or(0, crate::server::process::Process::pid);
        pid.unsigned_abs()
    }

    fn snapshot(&self, deadline_ns: u64) -> Snapshot {
        let applied = self.output.applied();
        let port = |port: Published| SavedPort {
            listener: port.listener,
            address: port.address,
            datagrams: port.transport == brolga_tape::record::Transport::Datagram,
            chosen: port.chosen,
        };
        let oldest = applied.slot.saturating_sub(TRAIL_SLOTS);
        Snapshot {
            deadline_ns,
            seen: self.feeder.seen(),
            last_entry: self.feeder.last_entry(),
            time_ns: self.proposer.last_time().unwrap_or_default(),
            trail: self.output.history().between(oldest, applied.slot - 1),
            ports: self.frontend.known().into_iter().map(port).collect(),
            conns: self.conns.save(),
            retained: self.sidecars.save(),
            ..Snapshot::new(applied)
        }
    }

    /// Nothing is under way any more.
    fn settled(&mut self, taken: &Taken, now: Instant) {
        let triggers = &mut self.checkpoints.triggers;
        match taken {
            Ok(_) => triggers.succeeded(now),
            Err(error) if triggers.failed(error, now) => {
                tracing::warn!(
                    "no checkpoint was taken, the last one is as good as before: {error}"
                );
            }
            Err(error) => tracing::debug!("no checkpoint was taken, again: {error}"),
        }
        self.answer_wishes(taken);
        self.tell_of_checkpoint(None);
        self.checkpoint_over();
    }

    fn written(
        &mut self,
        done: Result<u64, CheckpointError>,
        now: Instant,
    ) -> Result<(), NodeError> {
        self.feeder.allow(None);
        let stage = std::mem::take(&mut self.checkpoints.stage);
        if let (Err(CheckpointError::Interrupted(why)), Stage::Writing { pid, .. }) = (&done, stage)
            && pid == self.server_pid()
        {
            self.replace_server(why)?;
        }
        let taken = match done {
            Ok(slot) => {
                tracing::info!(slot, "the checkpoint is whole");
                let keep = self.checkpoints.keep;
                if let Err(error) = self.checkpoints.directory.prune(keep) {
                    tracing::warn!(%error, "old checkpoints stay");
                }
                self.look_at_checkpoints()?;
                Ok(slot)
            }
            Err(error) => Err(error.to_string()),
        };
        self.settled(&taken, now);
        self.drop_log(now);
        Ok(())
    }

    /// Something was done to the server that other replicas' servers know nothing of: another takes its
    /// place, from the last checkpoint or from the start.
    fn replace_server(&mut self, why: &str) -> Result<(), NodeError> {
        tracing::warn!(%why, "the server is not fit to go on; another takes its place");
        match self.restore_server(false, u64::MAX)? {
            Back::Restored | Back::Waits => Ok(()),
            Back::FromGenesis => self.start_server(),
        }
    }

    fn look_at_checkpoints(&mut self) -> Result<(), NodeError> {
        let listing = self.checkpoints.directory.list()?;
        for (_, error) in &listing.damaged {
            tracing::error!("{error}");
        }
        self.checkpoints.slots = listing.whole.iter().map(Checkpoint::slot).collect();
        Ok(())
    }

    // ---- what others can do without ----

    /// Tells one node, or all, which checkpoint is the newest here.
    pub(crate) fn tell_of_checkpoint(&mut self, to: Option<NodeId>) {
        let slot = self.checkpoints.newest().unwrap_or_default();
        PeerFrame::Checkpoint(slot).encode(&mut self.frame);
        let all: Vec<NodeId> = self.replica.peers().map(|(id, _)| id).collect();
        for peer in all {
            if to.is_none_or(|to| to == peer) {
                // One whose link is down is told when it is up.
                let _ = self.replica.send_app(peer, &self.frame);
            }
        }
    }

    /// Another node has a checkpoint, or has none.
    pub(crate) fn told_of_checkpoint(&mut self, from: NodeId, slot: u64, now: Instant) {
        self.transfer.told(from, slot);
        self.checkpoints.retention.told(from, slot);
        self.drop_log(now);
    }

    /// Another node fetches one.
    pub(crate) fn told_of_fetch(&mut self, from: NodeId, slot: u64, now: Instant) {
        let logged = self.checkpoints.triggers.logged_bytes();
        let retention = &mut self.checkpoints.retention;
        retention.fetches(from, slot, logged, now);
        self.drop_log(now);
    }

    fn drop_log(&mut self, now: Instant) {
        let Checkpoints {
            retention,
            slots,
            triggers,
            ..
        } = &self.checkpoints;
        if let Some(upto) = retention.droppable(slots, triggers.logged_bytes(), now)
            && self.replica.truncate(upto)
        {
            tracing::info!(upto, "the log is dropped behind checkpoints");
        }
    }

    // ---- going back ----

    /// Brings the server back from the newest checkpoint that is whole and that the log continues.
    /// `at_start`: the node knows nothing yet and takes over what it knew then. Only checkpoints of
    /// slots before `limit` are looked at.
    pub(crate) fn restore_server(&mut self, at_start: bool, limit: u64) -> Result<Back, NodeError> {
        self.look_at_checkpoints()?;
        let listing = self.checkpoints.directory.list()?;
        for checkpoint in listing.whole {
            let slot = checkpoint.slot();
            if slot + 1 < self.replica.first_slot() || slot >= limit {
                continue;
            }
            let went = self.restore_from(&checkpoint, at_start);
            match went {
                Ok(()) => {
                    tracing::info!(slot, "the server is brought back from a checkpoint");
                    return Ok(Back::Restored);
                }
                Err(error) => {
                    tracing::error!(slot, "{error}; the next older checkpoint is tried");
                    self.refuse(&checkpoint, &error);
                }
            }
        }
        match self.replica.first_slot() {
            1 => Ok(Back::FromGenesis),
            first if self.config.others().next().is_some() => {
                self.go_without_server(first, limit)?;
                Ok(Back::Waits)
            }
            first => Err(NodeError::NoCheckpoint { first }),
        }
    }

    /// One that cannot be restored here is not fetched from others; one that is only damaged here may be.
    fn refuse(&mut self, checkpoint: &Checkpoint, error: &CheckpointError) {
        if !matches!(error, CheckpointError::Corrupt { .. })
            && let Ok(hash) = checkpoint.manifest.hash()
        {
            self.transfer.refuse(hash);
        }
    }

    /// Votes and learns, until a checkpoint was fetched.
    fn go_without_server(&mut self, first: u64, limit: u64) -> Result<(), NodeError> {
        tracing::error!(
            first,
            "the log begins at this slot and there is no usable checkpoint of the slots before: one is \
             fetched from another replica"
        );
        // What a server took that was found wrong is of no use to anybody.
        for checkpoint in self.checkpoints.directory.list()?.whole {
            if checkpoint.slot() >= limit {
                self.checkpoints.directory.remove(&checkpoint.path)?;
            }
        }
        self.look_at_checkpoints()?;
        self.end_server();
        self.checkpoints.missing = Some(first);
        self.replica.abstain(Instant::now(), true);
        self.frontend.retire();
        self.sidecars.detach_all();
        self.life.offline();
        Ok(())
    }

    fn restore_from(
        &mut self,
        checkpoint: &Checkpoint,
        at_start: bool,
    ) -> Result<(), CheckpointError> {
        let manifest = &checkpoint.manifest;
        let foreign = |what: &str| Err(CheckpointError::Failed(format!("it is of {what}")));
        if manifest.cluster != self.config.cluster.0 {
            return foreign("another cluster");
        }
        if let Some(objection) = self.checkpoints.identity.objection(&manifest.identity) {
            return Err(CheckpointError::Failed(objection));
        }
        // One that was fetched just now was read back just now.
        if self.transfer.lore.fetched.take() != Some(checkpoint.slot()) {
            checkpoint.verify(&mut told_in_log(checkpoint.slot(), manifest.bytes()))?;
        }
        let snapshot = Snapshot::load(&checkpoint.path)?;
        let slot = snapshot.applied.slot;
        let bytes = self.tape_bytes();
        self.end_server();
        let image = checkpoint.path.join(SERVER_DIR);
        let (objects, started) = self.host.restore(&image, bytes)?;
        self.watch_restored(objects, started)
            .map_err(|error| CheckpointError::Failed(error.to_string()))?;
        self.life.restored_from = Some(slot);
        self.feeder.restart_after(slot);
        let now = Instant::now();
        let trail = &snapshot.trail;
        self.output
            .resume(snapshot.applied, snapshot.deadline_ns, trail, now);
        self.checking.restart();
        self.replica.install(now, slot);
        if at_start {
            self.take_over_knowledge(snapshot, now)?;
        } else {
            self.conns.server_goes_back(&snapshot.conns);
        }
        Ok(())
    }

    /// The node knows what it knew when the checkpoint was taken.
    fn take_over_knowledge(
        &mut self,
        snapshot: Snapshot,
        now: Instant,
    ) -> Result<(), CheckpointError> {
        self.conns = Conns::load(&snapshot.conns);
        self.sidecars.load(snapshot.retained);
        self.feeder.resume(snapshot.seen, snapshot.last_entry);
        if snapshot.time_ns > 0 {
            self.proposer.observe_time(snapshot.time_ns, now);
        }
        for port in &snapshot.ports {
            let published = Published {
                listener: port.listener,
                address: port.address,
                transport: port.transport(),
                chosen: port.chosen,
            };
            let opened = self.frontend.listen(published);
            opened.map_err(|error| CheckpointError::Failed(error.to_string()))?;
        }
        Ok(())
    }
}
