//! The status of a node, and the handle to ask for it.

use crate::checkpoint::procedure::CheckpointResult;
use crate::checkpoint::writer::WriterStatus;
use crate::clients::datagrams::DatagramCounts;
use crate::divergence::quarantine::Quarantine;
use crate::divergence::report::DivergenceReport;
use crate::ordering::operator_signals::Ordered;
use crate::ordering::proposer::Proposed;
use crate::peers::learners::LearnerStatus;
use crate::server::hashes::SlotHashes;
use crate::server::lifecycle::ServerState;
use crate::server::syscall_filter::SyscallFilterStatus;
use crate::transfer::TransferStatus;
use brolga_config::Policy;
use mio::Waker;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// This node's part in the consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Orders requests.
    Leader,
    /// Follows a leader.
    Follower,
    /// Knows no leader.
    Searching,
    /// Learns what is chosen, and does not vote.
    Learner,
}

/// Another replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The number of the node.
    pub id: u64,
    /// There is a link to it.
    pub up: bool,
}

/// A snapshot of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The number of the node.
    pub node: u64,
    /// The cluster, as 32 hexadecimal digits.
    pub cluster: String,
    /// Process of the node daemon.
    pub pid: u32,
    /// Process of the server, while it runs.
    pub server_pid: Option<i32>,
    /// The state of the server.
    pub server: ServerState,
    /// Part in the consensus.
    pub role: Role,
    /// The leader it knows.
    pub leader: Option<u64>,
    /// The ballot it is at.
    pub ballot: String,
    /// Every slot up to this one is chosen.
    pub chosen: u64,
    /// The last chosen slot that holds an entry and not just a noop.
    pub last_entry: u64,
    /// The last slot the server has had its time for, and both hashes there.
    pub applied: SlotHashes,
    /// A slot at which the restarted server did something else than before.
    pub divergence: Option<SlotHashes>,
    /// The last difference found between this replica and another one, since the node was started.
    pub difference: Option<DivergenceReport>,
    /// Why this replica serves nobody: a majority has found its server wrong.
    pub quarantine: Option<Quarantine>,
    /// Answers wait until a majority has computed the same.
    pub vote: bool,
    /// The scheduling policy of the server's threads.
    #[serde(default)]
    pub policy: Policy,
    /// Bytes that the server has said and that are held back.
    pub held_bytes: usize,
    /// Clients connected here.
    pub connections: usize,
    /// Connections to the outside that the server has opened and this node has.
    #[serde(default)]
    pub outgoing: usize,
    /// Addresses that clients can connect to.
    pub listeners: Vec<SocketAddr>,
    /// Addresses that clients can send datagrams to.
    pub datagram_ports: Vec<SocketAddr>,
    /// Counts of datagrams.
    pub datagrams: DatagramCounts,
    /// The other members.
    pub peers: Vec<Peer>,
    /// Learners that are linked with this node.
    #[serde(default)]
    pub learners: Vec<LearnerStatus>,
    /// Slot of the newest checkpoint here.
    #[serde(default)]
    pub checkpoint: Option<u64>,
    /// Why no more are taken, since the last one, if that was tried.
    #[serde(default)]
    pub checkpoint_trouble: Option<String>,
    /// The one that is being taken.
    #[serde(default)]
    pub taking: Option<WriterStatus>,
    /// Slot of the checkpoint that the running server was restored from; `None`: it was started
    /// and given the log from its first slot.
    #[serde(default)]
    pub restored_from: Option<u64>,
    /// The last slot that the server had to repeat before clients could connect, since the node was
    /// started; `None`: it is not there yet.
    #[serde(default)]
    pub live_at: Option<u64>,
    /// The first slot in the log here.
    #[serde(default)]
    pub log_begins: u64,
    /// Why this replica does not vote on what is chosen, if it does not: it has lost its log.
    #[serde(default)]
    pub no_vote: Option<String>,
    /// The checkpoint that is being fetched from another node.
    #[serde(default)]
    pub transfer: Option<TransferStatus>,
    /// Why requests wait, if they do.
    pub waiting: Option<String>,
    /// Entries this node has proposed.
    pub proposed: Proposed,
    /// The number of times its frontend had to send uncommitted events again.
    pub resends: u64,
    /// The number of times the server was started.
    pub server_starts: u64,
    /// The state of the syscall filter, and the calls that it has caught.
    #[serde(default)]
    pub backstop: SyscallFilterStatus,
}

impl NodeStatus {
    /// Clients can reach the server here.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.listeners.is_empty() || !self.datagram_ports.is_empty()
    }
}

/// A question to the event loop.
#[derive(Debug)]
pub enum Query {
    /// Report the status.
    Status(oneshot::Sender<NodeStatus>),
    /// Both hashes after a slot, if still known.
    HashesAt(u64, oneshot::Sender<Option<SlotHashes>>),
    /// Send the server a signal (its number, 1 to 64), through the log.
    Signal(u32, oneshot::Sender<Ordered>),
    /// Take a checkpoint, and tell when it is whole.
    Checkpoint(oneshot::Sender<CheckpointResult>),
    /// Stop the server and end.
    Shutdown,
}

/// Asks a running node; can be cloned and used from any thread.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    queries: Sender<Query>,
    waker: Arc<Waker>,
}

impl NodeHandle {
    /// A handle and the event loop's end of it.
    pub(crate) fn new(waker: Arc<Waker>) -> (Self, Receiver<Query>) {
        let (queries, received) = channel();
        (Self { queries, waker }, received)
    }

    /// Puts a question; false when the node has ended. Whoever waits for the answer sees its sender
    /// dropped then.
    pub fn ask(&self, query: Query) -> bool {
        self.queries.send(query).is_ok() && self.waker.wake().is_ok()
    }

    /// The node's state, for threads that may wait; `None` when it has ended.
    #[must_use]
    pub fn status(&self) -> Option<NodeStatus> {
        let (reply, answer) = oneshot::channel();
        self.ask(Query::Status(reply));
        answer.blocking_recv().ok()
    }

    /// Both hashes after `slot`, for threads that may wait; `None` when they are not known or the
    /// node has ended.
    #[must_use]
    pub fn hashes_at(&self, slot: u64) -> Option<SlotHashes> {
        let (reply, answer) = oneshot::channel();
        self.ask(Query::HashesAt(slot, reply));
        answer.blocking_recv().ok().flatten()
    }

    /// Has the leader order a signal for the server, for threads that may wait; `None` when the
    /// node has ended.
    #[must_use]
    pub fn signal(&self, signal: u32) -> Option<Ordered> {
        let (reply, answer) = oneshot::channel();
        self.ask(Query::Signal(signal, reply));
        answer.blocking_recv().ok()
    }

    /// Has the node take a checkpoint, for threads that may wait for all of it; `None` when the
    /// node has ended.
    #[must_use]
    pub fn checkpoint(&self) -> Option<CheckpointResult> {
        let (reply, answer) = oneshot::channel();
        self.ask(Query::Checkpoint(reply));
        answer.blocking_recv().ok()
    }

    /// Makes the node stop its server and end. It may have ended already.
    pub fn shutdown(&self) {
        self.ask(Query::Shutdown);
    }
}
