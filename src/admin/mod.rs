//! The admin socket: a UNIX socket per node, one JSON object per line.
//!
//! The node's event loop is one thread that must never wait for a slow reader, so a side thread with
//! its own small runtime owns the socket (`serve`) and asks the event loop through its handle
//! ([`Answers`]). [`Client`] is the client, for `brolga status`, `brolga run` and tests.
//!
//! Access is by file permission: the socket lies in the node's data directory.

mod client;
mod everywhere;
mod server;

pub use client::{Client, ask_status};
pub use everywhere::checkpoints_now;
pub use server::serve;

use brolga_node::{CheckpointResult, NodeHandle, NodeStatus, Ordered, SlotHashes};
use serde::{Deserialize, Serialize};

/// Who knows the answers: the node's event loop, behind a handle. Calls may block.
pub trait Answers: Send + Sync + 'static {
    /// The node's status; `None` when the node has ended.
    fn status(&self) -> Option<NodeStatus>;
    /// Hashes just after a slot; `None` when it is not applied yet or too long ago.
    fn hashes_at(&self, slot: u64) -> Option<SlotHashes>;
    /// Have a signal ordered for the server; `None` when the node ended.
    fn signal(&self, signal: u32) -> Option<Ordered>;
    /// Take a checkpoint, and tell when it is whole; `None` when the node ended.
    fn checkpoint(&self) -> Option<CheckpointResult>;
    /// Stop the server and yourself.
    fn shutdown(&self);
}

impl Answers for NodeHandle {
    fn status(&self) -> Option<NodeStatus> {
        self.status()
    }

    fn hashes_at(&self, slot: u64) -> Option<SlotHashes> {
        self.hashes_at(slot)
    }

    fn signal(&self, signal: u32) -> Option<Ordered> {
        self.signal(signal)
    }

    fn checkpoint(&self) -> Option<CheckpointResult> {
        self.checkpoint()
    }

    fn shutdown(&self) {
        self.shutdown();
    }
}

/// A request: one line from the client.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
enum Request {
    Status,
    HashesAt { slot: u64 },
    Signal { signal: u32 },
    Checkpoint,
    Shutdown,
}

/// The answering line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Response {
    Status(Box<NodeStatus>),
    Hashes(Option<SlotHashes>),
    /// A signal is in the log at this slot.
    OrderedAt(u64),
    /// A checkpoint of this slot is whole.
    Checkpoint(u64),
    /// Ask this node instead, if it is known.
    NotLeader(Option<u64>),
    Stopping,
    Error(String),
}

/// Longest line that either side accepts.
const LINE_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests;
