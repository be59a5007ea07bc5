//! Why a node can't start or go on. One line each; what the server itself had to say is apart.

use crate::clients::listeners::PublishError;
use crate::divergence::quarantine::QuarantineError;
use crate::peers::compatibility::Incompatible;
use crate::server::feeder::FeedError;
use crate::server::start_error::StartError;
use brolga_tape::entry::EntryError;
use std::io;
use std::net::SocketAddr;

/// The reason why a node cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The durable log or the links of consensus can't be opened.
    #[error("{0}")]
    Consensus(#[from] brolga_consensus::OpenError),
    /// The log can't be fed to the server.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// A port of the server can't be opened for clients.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The interposer has written something that is not a record.
    #[error("the interposer's answer cannot be read ({0}): are node and interposer of one build?")]
    Tape(EntryError),
    /// The file of a quarantine can't be read or changed.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// The server differs from those of the other nodes.
    #[error(transparent)]
    Refused(#[from] Incompatible),
    /// The server can't be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server ended before it listened on any port.
    #[error(
        "the server ended before it listened on any port: {how}{}",
        shown(stderr_tail)
    )]
    ServerEnded {
        /// The way it ended, in words.
        how: String,
        /// The end of its standard error.
        stderr_tail: String,
    },
    /// The address for stand-alone frontends can't be listened on.
    #[error("cannot listen on {address} for stand-alone frontends: {source}")]
    ProxyListen {
        /// This node's address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The checkpoints on disk cannot be looked at.
    #[error(transparent)]
    Checkpoint(#[from] brolga_checkpoint::CheckpointError),
    /// The log does not go back to the beginning, no checkpoint stands in for what is missing, and
    /// there is no other node to fetch one from.
    #[error(
        "the log begins at slot {first} and there is no usable checkpoint of the slots before, nor another \
         replica to fetch one from: import one (brolga checkpoint)"
    )]
    NoCheckpoint {
        /// The first slot in the log.
        first: u64,
    },
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    System {
        /// The action that failed.
        doing: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl NodeError {
    /// For `map_err` on system calls.
    pub(crate) fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}

fn shown(stderr_tail: &str) -> String {
    if stderr_tail.is_empty() {
        return String::new();
    }
    format!("; it said:\n{stderr_tail}")
}
