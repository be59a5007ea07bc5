//! The node's part in transfers: when one is wanted, who is asked, what comes of it.

use super::donor::Serving;
use super::donors::Donors;
use super::fetch::{FetchError, FetchPlan, fetch};
use super::progress::Progress;
use crate::error::NodeError;
use brolga_checkpoint::{Checkpoint, Directory};
use brolga_config::NodeConfig;
use brolga_consensus::NodeId;
use mio::Waker;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Between looks for a donor when there is none.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// After a checkpoint was fetched the log behind it comes within this time, or as much of it as others
/// keep.
const CATCHING_UP: Duration = Duration::from_secs(120);

/// A checkpoint that is being fetched, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferStatus {
    /// The node that it comes from.
    pub donor: u64,
    /// Its slot; 0: not known yet.
    pub slot: u64,
    /// Bytes that are here.
    pub here: u64,
    /// Bytes of all of it.
    pub all: u64,
    /// Bytes per second that came.
    pub rate: u64,
    /// Until all is here, in milliseconds, if that can be told.
    pub left_ms: Option<u64>,
}

impl fmt::Display for TransferStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { donor, slot, .. } = self;
        if *slot == 0 {
            return write!(f, "asking replica {donor} for a checkpoint");
        }
        let [here, all, rate] = [self.here, self.all, self.rate].map(|bytes| bytes >> 20);
        write!(
            f,
            "fetching the checkpoint of slot {slot} from replica {donor}: {here} of {all} MiB, {rate} MiB/s"
        )?;
        match self.left_ms {
            Some(left) => write!(f, ", {} s left", left.div_ceil(1000)),
            None => Ok(()),
        }
    }
}

/// One try with one donor. Dropping it ends it and waits for its thread.
#[derive(Debug)]
pub(crate) struct Attempt {
    donor: NodeId,
    progress: Arc<Progress>,
    done: Receiver<Result<Checkpoint, FetchError>>,
    thread: Option<JoinHandle<()>>,
}

impl Attempt {
    pub(crate) fn begin(
        donor: NodeId,
        plan: FetchPlan,
        waker: Arc<Waker>,
    ) -> Result<Self, NodeError> {
        let progress = Arc::new(Progress::default());
        let (done_tx, done) = channel();
        let seen = Arc::clone(&progress);
        let work = move || {
            super::set_nice();
            // The node may have ended.
            let _ = done_tx.send(fetch(&plan, &seen));
            let _ = waker.wake();
        };
        let thread = Builder::new().name("fetch".into()).spawn(work);
        Ok(Self {
            donor,
            progress,
            done,
            thread: Some(thread.map_err(NodeError::doing("cannot start a thread"))?),
        })
    }

    fn status(&self) -> TransferStatus {
        let seen = self.progress.seen();
        let left = seen.left().map(|left| left.as_millis());
        TransferStatus {
            donor: self.donor,
            slot: seen.slot,
            here: seen.here,
            all: seen.all,
            rate: seen.rate,
            left_ms: left.map(|left| u64::try_from(left).unwrap_or(u64::MAX)),
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.progress.stop();
        // A panic was shown already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What is known of checkpoints whatever becomes of the node's other parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lore {
    /// Hashes of manifests of checkpoints that are of no use here.
    pub(crate) refused: Vec<u128>,
    /// The slot of one that was fetched, and verified, just now.
    pub(crate) fetched: Option<u64>,
    /// The same, and until when the log behind it may be needed.
    pub(crate) needs_log: Option<(u64, Instant)>,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) donors: Donors,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) serving: Serving,
    pub(crate) waker: Arc<Waker>,
    pub(crate) lore: Lore,
    /// When to look for a donor again.
    pub(crate) again_at: Option<Instant>,
    /// When to say again that the log is needed.
    pub(crate) say_at: Option<Instant>,
    /// Why there is none yet.
    pub(crate) trouble: Option<String>,
}

impl Transfer {
    pub(crate) fn new(
        config: &NodeConfig,
        directory: Directory,
        waker: Arc<Waker>,
        lore: Lore,
    ) -> Self {
        let others = config.members.iter().map(|member| member.id);
        Self {
            donors: Donors::new(others.filter(|id| *id != config.node)),
            attempt: None,
            serving: Serving::new(directory, config.transfer_bytes_per_second()),
            waker,
            lore,
            again_at: None,
            say_at: None,
            trouble: None,
        }
    }

    /// What outlives this.
    pub(crate) fn into_lore(self) -> Lore {
        self.lore
    }

    /// When to go on.
    pub(crate) fn wakeup(&self) -> Option<Instant> {
        let again = self.again_at.filter(|_| self.attempt.is_none());
        again.into_iter().chain(self.say_at).min()
    }

    /// A link came or went.
    pub(crate) fn link(&mut self, node: NodeId, up: bool) {
        self.again_at = None;
        self.donors.link(node, up);
    }

    /// Another node has a checkpoint.
    pub(crate) fn told(&mut self, node: NodeId, slot: u64) {
        self.again_at = None;
        self.donors.told(node, slot);
    }

    /// This one is of no use here.
    pub(crate) fn refuse(&mut self, manifest: u128) {
        if !self.lore.refused.contains(&manifest) {
            self.lore.refused.push(manifest);
        }
    }

    /// How far it is.
    pub(crate) fn status(&self) -> Option<TransferStatus> {
        self.attempt.as_ref().map(Attempt::status)
    }

    /// The same, or why there is none, in words.
    pub(crate) fn described(&self) -> String {
        match (&self.attempt, &self.trouble) {
            (Some(attempt), _) => attempt.status().to_string(),
            (None, Some(trouble)) => format!("no checkpoint was fetched yet: {trouble}"),
            (None, None) => "no other replica has told of a checkpoint".into(),
        }
    }

    /// The slot behind which the others' logs are needed here.
    pub(crate) fn needs_log(&self) -> Option<u64> {
        let coming = self.attempt.as_ref().map(|it| it.progress.seen().slot);
        let coming = coming.filter(|slot| *slot > 0);
        coming.or(self.lore.needs_log.map(|(slot, _)| slot))
    }

    /// Whether nothing is needed any more that was needed until now. `newest`: the own checkpoint.
    pub(crate) fn is_content(&mut self, newest: Option<u64>, now: Instant) -> bool {
        let over = |(slot, until): &mut (u64, Instant)| newest > Some(*slot) || *until <= now;
        self.lore.needs_log.take_if(over).is_some() && self.attempt.is_none()
    }

    /// What came of the attempt, if it is over.
    fn take_outcome(&mut self) -> Option<(NodeId, Duration, Result<Checkpoint, FetchError>)> {
        let attempt = self.attempt.as_ref()?;
        let outcome = match attempt.done.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Ok(outcome) => outcome,
            Err(TryRecvError::Disconnected) => Err(FetchError::Stopped),
        };
        let attempt = self.attempt.take()?;
        Some((attempt.donor, attempt.progress.taken(), outcome))
    }

    pub(crate) fn take_in(&mut self, now: Instant) {
        let Some((donor, taken, outcome)) = self.take_outcome() else {
            return;
        };
        match outcome {
            Ok(checkpoint) => {
                let (slot, bytes) = (checkpoint.slot(), checkpoint.manifest.bytes());
                let milliseconds = taken.as_millis();
                tracing::info!(slot, donor, bytes, milliseconds, "a checkpoint was fetched");
                self.lore.fetched = Some(slot);
                self.lore.needs_log = Some((slot, now + CATCHING_UP));
            }
            Err(error) => {
                tracing::warn!(donor, "no checkpoint was fetched: {error}");
                self.trouble = Some(format!("replica {donor}: {error}"));
                match error {
                    // What is wrong is here; the donor is as good as before, but the disk needs a
                    // pause too.
                    FetchError::Here(_) | FetchError::Donor(_) | FetchError::Nothing(_) => {
                        self.donors.failed(donor, now);
                    }
                    FetchError::OfNoUse { manifest, .. } => {
                        self.refuse(manifest);
                        self.donors.failed(donor, now);
                    }
                    FetchError::Stopped => {}
                }
            }
        }
    }
}
