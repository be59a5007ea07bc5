//! Settings of a core, and the durable state that it starts from.

#[cfg(test)]
use super::Mutation;
use super::types::{AcceptedEntry, Ballot, IoSeq, Micros, NodeId, Recovery, Slot};

/// Most members of a cluster: sets of them are kept as bits of one word.
pub const MEMBERS_MAX: usize = 64;

/// Learners have ids from here on, so that none can be taken for a member of a usual configuration.
pub const LEARNERS_FROM: NodeId = 1 << 32;

/// Most learners that a member serves at a time.
pub const LEARNERS_MAX: usize = 16;

/// Settings of a [`super::Core`]. All times are in microseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node: one of `members`, or a learner, whose id is [`LEARNERS_FROM`] or greater.
    pub id: NodeId,
    /// The voting nodes.
    pub members: Vec<NodeId>,
    /// Time between two heartbeats of a leader.
    pub heartbeat: Micros,
    /// Shortest silence of a leader that starts an election.
    pub election_min: Micros,
    /// Longest silence of a leader before an election.
    pub election_max: Micros,
    /// Shortest delay to an election when the leader's process is known to be gone.
    pub suspect_min: Micros,
    /// Longest delay to an election when the leader's process is known to be gone.
    pub suspect_max: Micros,
    /// Slots a leader keeps open, and slots in flight to one peer.
    pub window_slots: usize,
    /// Bytes a leader keeps open.
    pub window_bytes: usize,
    /// Bytes in flight to one peer.
    pub peer_bytes: usize,
    /// Slots kept in memory after they are chosen.
    pub retain_slots: usize,
    /// Bytes kept in memory after they are chosen.
    pub retain_bytes: usize,
    /// Seed of the election timeouts; another one at every start.
    pub seed: u64,
    /// An empty log is that of a new cluster, not one that was lost. Otherwise the node asks all
    /// others.
    pub new_cluster: bool,
    /// A deliberate bug, to measure the simulator.
    #[cfg(test)]
    pub(crate) mutation: Option<Mutation>,
}

impl Config {
    /// Defaults for `id` among `members`.
    pub fn new(id: NodeId, members: &[NodeId]) -> Self {
        Self {
            id,
            members: members.to_vec(),
            heartbeat: 50_000,
            election_min: 250_000,
            election_max: 500_000,
            suspect_min: 5_000,
            suspect_max: 20_000,
            window_slots: 8192,
            window_bytes: 16 << 20,
            peer_bytes: 8 << 20,
            retain_slots: 16_384,
            retain_bytes: 16 << 20,
            seed: id,
            new_cluster: false,
            #[cfg(test)]
            mutation: None,
        }
    }

    /// Returns true if this node is a learner.
    pub(super) fn learns(&self) -> bool {
        !self.members.contains(&self.id)
    }

    /// Panics if the settings contradict each other.
    pub(super) fn check(&self) {
        assert!(
            (1..=MEMBERS_MAX).contains(&self.members.len()),
            "1 to {MEMBERS_MAX} members"
        );
        assert!(
            !self.learns() || self.id >= LEARNERS_FROM,
            "a node is one of the members, or has the id of a learner"
        );
        assert!(self.election_min <= self.election_max);
        assert!(self.suspect_min <= self.suspect_max);
    }
}

/// The contents of the journal when the node starts.
#[derive(Clone, Debug, Default)]
pub struct DurableState {
    /// Highest ballot promised or voted at.
    pub promised: Ballot,
    /// Highest commit hint.
    pub commit: Slot,
    /// Newest vote for each slot above `commit`, in slot order.
    pub tail: Vec<AcceptedEntry>,
    /// Last operation in the journal.
    pub last_seq: IoSeq,
    /// The last state of recovery noted; a journal of an earlier version has none.
    pub recovery: Option<Recovery>,
}
