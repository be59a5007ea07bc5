//! The node's part in transfers: when one is wanted, who is asked, what comes of it.

use super::donor::Serving;
use super::donors::{Choice, Donors, Wishes};
use super::fetch::{FetchError, FetchPlan, fetch};
use super::progress::Progress;
use crate::checkpoint::truncation::SAY_AGAIN;
use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::peers::frames::PeerFrame;
use crate::server::process::ServerHost;
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
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
struct Attempt {
    donor: NodeId,
    progress: Arc<Progress>,
    done: Receiver<Result<Checkpoint, FetchError>>,
    thread: Option<JoinHandle<()>>,
}

impl Attempt {
    fn begin(donor: NodeId, plan: FetchPlan, waker: Arc<Waker>) -> Result<Self, NodeError> {
        let progress = Arc::new(Progress::default());
        let (done_tx, done) = channel();
        let seen = Arc::clone(&progress);
        let work = move || {
            super::be_nice();
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
    refused: Vec<u128>,
    /// The slot of one that was fetched, and verified, just now.
    pub(crate) fetched: Option<u64>,
    /// The same, and until when the log behind it may be needed.
    needs_log: Option<(u64, Instant)>,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Transfer {
    donors: Donors,
    attempt: Option<Attempt>,
    serving: Serving,
    waker: Arc<Waker>,
    pub(crate) lore: Lore,
    /// When to look for a donor again.
    again_at: Option<Instant>,
    /// When to say again that the log is needed.
    say_at: Option<Instant>,
    /// Why there is none yet.
    trouble: Option<String>,
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
    fn needs_log(&self) -> Option<u64> {
        let coming = self.attempt.as_ref().map(|it| it.progress.seen().slot);
        let coming = coming.filter(|slot| *slot > 0);
        coming.or(self.lore.needs_log.map(|(slot, _)| slot))
    }

    /// Whether nothing is needed any more that was needed until now. `newest`: the own checkpoint.
    fn is_content(&mut self, newest: Option<u64>, now: Instant) -> bool {
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

    fn take_in(&mut self, now: Instant) {
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

impl<H: ServerHost> Node<H> {
    /// Those that want a checkpoint from here.
    pub(crate) fn welcome_visitors(&mut self) {
        for visitor in self.replica.take_visitors() {
            self.transfer.serving.welcome(visitor);
        }
    }

    /// Goes on with a fetch, if one is wanted. True when a checkpoint was fetched and the node is to
    /// start anew with it.
    pub(crate) fn advance_transfer(&mut self, now: Instant) -> Result<bool, NodeError> {
        self.transfer.take_in(now);
        self.say_what_is_needed(now);
        if self.transfer.lore.fetched.is_some() {
            return Ok(true);
        }
        let chosen = self.replica.chosen_upto();
        let Some(at_least) = self.checkpoints.lacking(chosen) else {
            if self.transfer.attempt.take().is_some() {
                tracing::info!("the log goes on by itself: no checkpoint is needed any more");
            }
            self.transfer.again_at = None;
            return Ok(false);
        };
        if self.transfer.attempt.is_none() {
            self.ask_for_checkpoint(at_least, now)?;
        }
        Ok(false)
    }

    /// Has the others keep the log that follows what is fetched.
    fn say_what_is_needed(&mut self, now: Instant) {
        let newest = self.checkpoints.newest();
        if self.transfer.is_content(newest, now) {
            self.say_that_log_is_needed(0);
        }
        let Some(slot) = self.transfer.needs_log() else {
            // Its slot may be known in a moment.
            let soon = self.transfer.attempt.is_some();
            self.transfer.say_at = soon.then(|| now + LOOK_AGAIN / 10);
            return;
        };
        if self.transfer.say_at.is_some_and(|at| at > now) {
            return;
        }
        self.transfer.say_at = Some(now + SAY_AGAIN);
        self.say_that_log_is_needed(slot);
    }

    fn say_that_log_is_needed(&mut self, slot: u64) {
        PeerFrame::Fetching(slot).encode(&mut self.frame);
        for member in &self.config.members {
            if member.id != self.id {
                // One whose link is down is told later.
                let _ = self.replica.send_app(member.id, &self.frame);
            }
        }
    }

    fn ask_for_checkpoint(&mut self, at_least: u64, now: Instant) -> Result<(), NodeError> {
        if self.transfer.again_at.is_some_and(|at| at > now) {
            return Ok(());
        }
        let directory = self.checkpoints.directory();
        let begun = directory.partials()?;
        let begun = begun.iter().find(|it| it.position.slot >= at_least);
        let wishes = Wishes {
            at_least,
            leader: self.leadership.leader,
            begun: begun.map(|manifest| manifest.node),
        };
        let donor = match self.transfer.donors.choose(wishes, now) {
            Choice::Ask(donor) => donor,
            Choice::Wait(at) => {
                // News come before that.
                self.transfer.again_at = Some(at.unwrap_or(now + LOOK_AGAIN));
                return Ok(());
            }
        };
        self.transfer.again_at = None;
        let member = self.config.members.iter().find(|it| it.id == donor);
        let Some(member) = member else {
            return Ok(());
        };
        let plan = FetchPlan {
            cluster: self.config.cluster.0,
            node: self.id,
            donor: member.peer,
            directory: directory.clone(),
            identity: self.checkpoints.identity().clone(),
            at_least,
            except: self.transfer.lore.refused.clone(),
        };
        tracing::info!(donor, at_least, "a checkpoint is fetched");
        let waker = Arc::clone(&self.transfer.waker);
        self.transfer.attempt = Some(Attempt::begin(donor, plan, waker)?);
        Ok(())
    }
}
