//! Going back to a checkpoint: which one, and what has to be true of it.

use crate::checkpoint::node_state::NodeState;
use crate::checkpoint::procedure::Checkpoints;
use crate::checkpoint::writer::log_verification;
use brolga_checkpoint::{Checkpoint, CheckpointError};

/// The point where a server starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum StartPoint {
    /// The server was restored from a checkpoint.
    Restored,
    /// The whole log is here: the server is to be started, and fed all of it.
    FromGenesis,
    /// There is nothing to start with. A checkpoint is being fetched.
    Waits,
}

impl Checkpoints {
    /// Lists the checkpoints that a log continues which begins at slot `first`, the newest first.
    /// Only those of slots before `limit` count.
    pub(crate) fn usable(
        &mut self,
        first: u64,
        limit: u64,
    ) -> Result<Vec<Checkpoint>, CheckpointError> {
        let mut checkpoints = self.refresh()?;
        checkpoints.retain(|it| it.slot() + 1 >= first && it.slot() < limit);
        Ok(checkpoints)
    }

    /// Makes sure that a checkpoint is one of this cluster's server.
    pub(crate) fn check_origin(
        &self,
        checkpoint: &Checkpoint,
        cluster: u128,
    ) -> Result<(), CheckpointError> {
        let manifest = &checkpoint.manifest;
        if manifest.cluster != cluster {
            let foreign = "it belongs to another cluster";
            return Err(CheckpointError::Failed(foreign.into()));
        }
        match self.identity().objection(&manifest.fingerprint) {
            Some(objection) => Err(CheckpointError::Failed(objection)),
            None => Ok(()),
        }
    }

    /// Removes the checkpoints of slot `limit` and later ones: the server that was dumped was
    /// wrong.
    pub(crate) fn remove_from(&mut self, limit: u64) -> Result<(), CheckpointError> {
        for checkpoint in self.directory().list()?.whole {
            if checkpoint.slot() >= limit {
                self.directory().remove(&checkpoint.path)?;
            }
        }
        self.refresh().map(drop)
    }
}

/// Compares all of a checkpoint with its manifest, unless it is `verified` already, and reads the
/// node's part of it.
pub(crate) fn load(checkpoint: &Checkpoint, verified: bool) -> Result<NodeState, CheckpointError> {
    if !verified {
        let bytes = checkpoint.manifest.bytes();
        checkpoint.verify(&mut log_verification(checkpoint.slot(), bytes))?;
    }
    Ok(NodeState::load(&checkpoint.path)?)
}
