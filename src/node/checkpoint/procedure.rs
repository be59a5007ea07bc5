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

use crate::checkpoint::schedule::{Triggers, Turns};
use crate::checkpoint::truncation::Retention;
use crate::checkpoint::writer::{Gauge, TakingStatus, Word};
use brolga_checkpoint::{Compression, Directory, ServerFingerprint};
use brolga_config::NodeConfig;
use brolga_consensus::NodeId;
use mio::Waker;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
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
pub(crate) enum Stage {
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
    pub(crate) directory: Directory,
    pub(crate) identity: ServerFingerprint,
    pub(crate) keep: usize,
    pub(crate) compression: Compression,
    pub(crate) waker: Arc<Waker>,
    pub(crate) stage: Stage,
    pub(crate) waiting: Vec<oneshot::Sender<Taken>>,
    /// Slots of the checkpoints here, the newest first.
    pub(crate) slots: Vec<u64>,
    /// What others have, and need.
    pub(crate) retention: Retention,
    pub(crate) look_again: bool,
    /// The others' logs begin at this slot, and what is before is missing here.
    pub(crate) behind: Option<u64>,
    /// The own log begins at this slot, and no checkpoint stands in for what is before: there is no
    /// server.
    pub(crate) missing: Option<u64>,
    pub(crate) triggers: Triggers,
    pub(crate) turns: Turns,
}

impl Checkpoints {
    pub(crate) fn open(
        directory: Directory,
        identity: ServerFingerprint,
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
    pub(crate) fn into_lasting(self) -> (ServerFingerprint, Arc<Waker>) {
        (self.identity, self.waker)
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn identity(&self) -> &ServerFingerprint {
        &self.identity
    }

    /// The newest one here.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.slots.first().copied()
    }
}
