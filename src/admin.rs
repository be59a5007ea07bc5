//! How one asks a node how it is: a UNIX socket per node, one JSON object per line.
//!
//! The node's reactor is one thread that must never wait for a slow reader, so a side thread with
//! its own small runtime owns the socket (`serve`). It hands each question to the reactor as a
//! [`Query`] with a place for the answer and wakes it. [`Client`] is the asking side, for
//! `brolga status`, `brolga run` and tests.
//!
//! Access is by file permission: the socket lies in the node's data directory.

mod client;
mod server;

pub use client::{Client, ask_status};
pub use server::{Asker, serve};

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fmt, io};
use tokio::sync::oneshot;

/// A question to the node's reactor. An answer that nobody waits for any more is dropped.
#[derive(Debug)]
pub enum Query {
    /// How are you?
    Status(oneshot::Sender<NodeStatus>),
    /// Hashes just after a slot was applied; `None` when it is not applied yet or too long ago.
    HashesAt(u64, oneshot::Sender<Option<Hashes>>),
    /// Stop the server and yourself.
    Shutdown,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its number.
    pub node: u32,
    /// Process of the node daemon.
    pub pid: u32,
    /// First process of the wrapped server, while it runs.
    pub server_pid: Option<u32>,
    /// Its part in consensus.
    pub role: Role,
    /// The node it believes to lead.
    pub leader: Option<u32>,
    /// The ballot it is in.
    pub ballot: u64,
    /// Last slot known to be chosen, with all before it.
    pub chosen: u64,
    /// Last slot that the server is done with.
    pub applied: u64,
    /// Client connections that the server has open.
    pub connections: u64,
    /// Where clients reach this replica: the published ports.
    pub listening: Vec<SocketAddr>,
    /// What it is doing.
    pub state: NodeState,
}

/// A node's part in consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Orders the input.
    Leader,
    /// Accepts what the leader orders.
    Follower,
    /// Tries to become the leader.
    Candidate,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
        })
    }
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// The log is being opened or the server is not up yet.
    Starting,
    /// The server is being fed entries that were chosen before the node started.
    Replaying,
    /// In step with the log.
    Running,
    /// The server ended.
    Ended,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Replaying => "replaying",
            Self::Running => "running",
            Self::Ended => "server ended",
        })
    }
}

/// What a replica's server did up to a slot. Equal on all replicas, or they diverged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// The slot.
    pub slot: u64,
    /// Over all output records.
    pub output: u64,
    /// Over all scheduling decisions.
    pub schedule: u64,
}

/// One line from the asking side.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
enum Request {
    Status,
    HashesAt { slot: u64 },
    Shutdown,
}

/// The answering line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Response {
    Status(NodeStatus),
    Hashes(Option<Hashes>),
    Stopping,
    Error(String),
}

/// Longest line that either side accepts.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// A name for `socket` that fits the 108 bytes of a UNIX address however deep its directory is:
/// through an open descriptor of the directory, which must be kept until the name was used.
fn short_name(socket: &Path) -> io::Result<(std::fs::File, PathBuf)> {
    use std::os::fd::AsRawFd;
    let directory = socket.parent().unwrap_or(Path::new("."));
    let name = socket.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = std::fs::File::open(directory)?;
    let short = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    Ok((directory, short))
}

#[cfg(test)]
mod tests;
