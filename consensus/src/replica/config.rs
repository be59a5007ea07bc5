//! Settings of a replica, and why one cannot start.

use crate::core::{LEARNERS_FROM, MEMBERS_MAX, NodeId};
use crate::journal::{JournalError, SEGMENT_BYTES};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of a [`super::Replica`].
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// Identity of the cluster; nodes and logs of others are refused.
    pub cluster: u128,
    /// This node: a member, or a learner with an id from [`LEARNERS_FROM`] on.
    pub id: NodeId,
    /// The members, with the addresses they listen on.
    pub members: Vec<(NodeId, SocketAddr)>,
    /// Directory of the log; made if missing.
    pub dir: PathBuf,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// Shortest silence that starts an election.
    pub election_timeout_min: Duration,
    /// Longest silence before an election.
    pub election_timeout_max: Duration,
    /// This node has never run before: if its log is empty it votes at once. Otherwise a node with
    /// an empty log asks all others first, because its disk may have been lost.
    pub new_cluster: bool,
    /// Size of a segment of the log, the unit in which it is dropped; has to hold the largest value
    /// that is ever proposed.
    pub segment_bytes: u64,
}

impl ReplicaConfig {
    /// A configuration with default times: heartbeats every 50 ms, elections after 250 to 500 ms.
    pub fn new(
        cluster: u128,
        id: NodeId,
        members: Vec<(NodeId, SocketAddr)>,
        dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            cluster,
            id,
            members,
            dir: dir.into(),
            heartbeat: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(250),
            election_timeout_max: Duration::from_millis(500),
            new_cluster: false,
            segment_bytes: SEGMENT_BYTES,
        }
    }

    /// Returns true if this node is a learner.
    pub(super) fn learns(&self) -> bool {
        self.members.iter().all(|(id, _)| *id != self.id)
    }

    /// Checks that the settings fit together.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let mut ids: Vec<_> = self.members.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != self.members.len() {
            return Err(ConfigError::MemberTwice);
        }
        if ids.first() == Some(&0) {
            return Err(ConfigError::MemberZero);
        }
        if ids.len() > MEMBERS_MAX {
            return Err(ConfigError::TooManyMembers(ids.len()));
        }
        if self.learns() && self.id < LEARNERS_FROM {
            return Err(ConfigError::NoMember(self.id));
        }
        if self.election_timeout_min > self.election_timeout_max {
            return Err(ConfigError::ElectionTimeout);
        }
        if self.heartbeat.is_zero() || self.heartbeat >= self.election_timeout_min {
            return Err(ConfigError::Heartbeat);
        }
        Ok(())
    }
}

/// Settings that contradict each other, or the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Ids are unique.
    #[error("two members have the same id")]
    MemberTwice,
    /// 0 means "no node".
    #[error("member ids start at 1")]
    MemberZero,
    /// More members than a set of them can hold.
    #[error("{0} members, more than {MEMBERS_MAX}")]
    TooManyMembers(usize),
    /// The id is neither a member's nor a learner's.
    #[error("node {0} is not one of the members")]
    NoMember(NodeId),
    /// The range of election timeouts is empty.
    #[error("the shortest election timeout is above the longest")]
    ElectionTimeout,
    /// Heartbeats would not prevent elections.
    #[error("the heartbeat is not below the election timeout")]
    Heartbeat,
    /// The log was written by a learner, and this node is a member.
    #[error("the log is that of a learner, and this node is a member")]
    LogOfLearner,
    /// The log was written by a member, and this node is a learner.
    #[error("the log is that of a member, and this node is a learner")]
    LogOfMember,
}

/// The reason why a replica cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings cannot be used.
    #[error("bad cluster configuration: {0}")]
    Config(#[from] ConfigError),
    /// The log cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for other nodes: {source}")]
    Listen {
        /// This node's address.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// The sockets of this node cannot be polled.
    #[error("cannot poll the links to other nodes: {0}")]
    Poll(io::Error),
}
