//! Transfer coordinator: decides when a checkpoint is needed, picks a donor, applies the result.

use super::donor::Serving;
use super::donors::{Choice, Donors, Requirements};
use super::fetch::{FetchError, FetchPlan, fetch};
use super::progress::Progress;
use crate::checkpoint::truncation::RENEW_EVERY;
use crate::error::NodeError;
use brolga_checkpoint::{Checkpoint, Directory, ServerFingerprint};
use brolga_config::NodeConfig;
use brolga_consensus::{NodeId, UpgradedStream};
use mio::Waker;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Time between two looks for a donor when there is none.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// After a checkpoint was fetched the log behind it comes within this time, or as much of it as
/// others keep.
const CATCHING_UP: Duration = Duration::from_secs(120);

/// The progress of a fetch, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferStatus {
    /// The node that it comes from.
    pub donor: u64,
    /// Slot of the checkpoint; 0: not known yet.
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

/// An attempt with one donor. Dropping it ends it and waits for its thread.
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
            super::lower_priority();
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

/// The outcome of earlier attempts, which outlives a restart of the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct TransferState {
    /// Hashes of manifests of checkpoints that cannot be used here.
    refused: Vec<u128>,
    /// The slot of a checkpoint that was fetched, and verified, just now.
    fetched: Option<u64>,
    /// The slot that was fetched, and the time until which the log behind it may be needed.
    needs_log: Option<(u64, Instant)>,
}

/// The transfers of this node: the checkpoint that it fetches, and those that others fetch here.
#[derive(Debug)]
pub(crate) struct Coordinator {
    cluster: u128,
    node: NodeId,
    /// Peer addresses of the members.
    members: BTreeMap<NodeId, SocketAddr>,
    directory: Directory,
    identity: ServerFingerprint,
    donors: Donors,
    attempt: Option<Attempt>,
    serving: Serving,
    waker: Arc<Waker>,
    state: TransferState,
    /// The time to look for a donor again.
    again_at: Option<Instant>,
    /// The time to renew the hold on the others' logs.
    renew_at: Option<Instant>,
    /// The reason why nothing was fetched yet.
    trouble: Option<String>,
}

impl Coordinator {
    pub(crate) fn new(
        config: &NodeConfig,
        (directory, identity): (Directory, ServerFingerprint),
        waker: Arc<Waker>,
        state: TransferState,
    ) -> Self {
        let others = config.members.iter().map(|member| member.id);
        let members = config.members.iter().map(|member| (member.id, member.peer));
        Self {
            cluster: config.cluster.0,
            node: config.node,
            members: members.collect(),
            donors: Donors::new(others.filter(|id| *id != config.node)),
            attempt: None,
            serving: Serving::new(directory.clone(), config.transfer_bytes_per_second()),
            directory,
            identity,
            waker,
            state,
            again_at: None,
            renew_at: None,
            trouble: None,
        }
    }

    /// The part that outlives a restart of the node.
    pub(crate) fn into_state(self) -> TransferState {
        self.state
    }

    /// The time to go on.
    pub(crate) fn wakeup(&self) -> Option<Instant> {
        let again = self.again_at.filter(|_| self.attempt.is_none());
        again.into_iter().chain(self.renew_at).min()
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

    /// The checkpoint with this manifest cannot be used here.
    pub(crate) fn refuse(&mut self, manifest: u128) {
        if !self.state.refused.contains(&manifest) {
            self.state.refused.push(manifest);
        }
    }

    /// Sends a checkpoint to a node that fetches one here.
    pub(crate) fn serve(&mut self, stream: UpgradedStream) {
        self.serving.serve(stream);
    }

    /// The progress of the attempt that is under way.
    pub(crate) fn status(&self) -> Option<TransferStatus> {
        self.attempt.as_ref().map(Attempt::status)
    }

    /// The progress, or why there is none, in words.
    pub(crate) fn described(&self) -> String {
        match (&self.attempt, &self.trouble) {
            (Some(attempt), _) => attempt.status().to_string(),
            (None, Some(trouble)) => format!("no checkpoint was fetched yet: {trouble}"),
            (None, None) => "no other replica has told of a checkpoint".into(),
        }
    }

    // ---- results ----

    /// Returns true when a checkpoint was fetched: the node is to restart with it.
    pub(crate) fn has_fetched(&self) -> bool {
        self.state.fetched.is_some()
    }

    /// Returns true, once, when the checkpoint of `slot` was fetched, and thereby verified, just
    /// now.
    pub(crate) fn take_fetched(&mut self, slot: u64) -> bool {
        self.state.fetched.take() == Some(slot)
    }

    /// Takes the result of the attempt, if it is over.
    fn take_result(&mut self) -> Option<(NodeId, Duration, Result<Checkpoint, FetchError>)> {
        let attempt = self.attempt.as_ref()?;
        let result = match attempt.done.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Ok(result) => result,
            Err(TryRecvError::Disconnected) => Err(FetchError::Stopped),
        };
        let attempt = self.attempt.take()?;
        Some((attempt.donor, attempt.progress.taken(), result))
    }

    /// Applies the result of the attempt, if it is over.
    pub(crate) fn apply_result(&mut self, now: Instant) {
        let Some((donor, taken, result)) = self.take_result() else {
            return;
        };
        match result {
            Ok(checkpoint) => {
                let (slot, bytes) = (checkpoint.slot(), checkpoint.manifest.bytes());
                let milliseconds = taken.as_millis();
                tracing::info!(slot, donor, bytes, milliseconds, "a checkpoint was fetched");
                self.state.fetched = Some(slot);
                self.state.needs_log = Some((slot, now + CATCHING_UP));
            }
            Err(error) => {
                tracing::warn!(donor, "no checkpoint was fetched: {error}");
                self.trouble = Some(format!("replica {donor}: {error}"));
                match error {
                    // The fault is on this node; the donor is as good as before, but the disk needs
                    // a pause too.
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

    // ---- the log behind the checkpoint ----

    /// The slot behind which the others' logs are needed here, if they are to be told now; 0: they
    /// are needed no more. `newest`: the newest checkpoint here.
    pub(crate) fn hold_to_tell(&mut self, newest: Option<u64>, now: Instant) -> Option<u64> {
        let over = |(slot, until): &mut (u64, Instant)| newest > Some(*slot) || *until <= now;
        if self.state.needs_log.take_if(over).is_some() && self.attempt.is_none() {
            self.renew_at = None;
            return Some(0);
        }
        let Some(slot) = self.needs_log() else {
            // The slot may be known in a moment.
            let soon = self.attempt.is_some();
            self.renew_at = soon.then(|| now + LOOK_AGAIN / 10);
            return None;
        };
        if self.renew_at.is_some_and(|at| at > now) {
            return None;
        }
        self.renew_at = Some(now + RENEW_EVERY);
        Some(slot)
    }

    fn needs_log(&self) -> Option<u64> {
        let coming = self.attempt.as_ref().map(|it| it.progress.seen().slot);
        let coming = coming.filter(|slot| *slot > 0);
        coming.or(self.state.needs_log.map(|(slot, _)| slot))
    }

    // ---- fetching ----

    /// Goes on with a fetch. `lacking`: the least slot of which a checkpoint is needed; `None`:
    /// none is.
    pub(crate) fn fetch(
        &mut self,
        lacking: Option<u64>,
        leader: Option<NodeId>,
        now: Instant,
    ) -> Result<(), NodeError> {
        let Some(at_least) = lacking else {
            if self.attempt.take().is_some() {
                tracing::info!("the log can be continued: no checkpoint is needed any more");
            }
            self.again_at = None;
            return Ok(());
        };
        if self.attempt.is_some() || self.again_at.is_some_and(|at| at > now) {
            return Ok(());
        }
        let begun = self.directory.partials()?;
        let begun = begun.iter().find(|it| it.position.slot >= at_least);
        let requirements = Requirements {
            at_least,
            leader,
            begun: begun.map(|manifest| manifest.node),
        };
        let donor = match self.donors.choose(requirements, now) {
            Choice::Ask(donor) => donor,
            Choice::Wait(at) => {
                // Messages of other nodes come before that.
                self.again_at = Some(at.unwrap_or(now + LOOK_AGAIN));
                return Ok(());
            }
        };
        self.again_at = None;
        let Some(address) = self.members.get(&donor) else {
            return Ok(());
        };
        let plan = FetchPlan {
            cluster: self.cluster,
            node: self.node,
            donor: *address,
            directory: self.directory.clone(),
            identity: self.identity.clone(),
            at_least,
            except: self.state.refused.clone(),
        };
        tracing::info!(donor, at_least, "fetching a checkpoint");
        let waker = Arc::clone(&self.waker);
        self.attempt = Some(Attempt::begin(donor, plan, waker)?);
        Ok(())
    }
}
