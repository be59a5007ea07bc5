//! Identifiers of the protocol, its messages, and the inputs and effects of a step.

use bytes::Bytes;
use std::fmt;

/// Identity of a member, 1 or greater; never given to another machine or an emptied disk.
pub type NodeId = u64;

/// A position of the log; the first one is 1 and 0 means "none yet".
pub type Slot = u64;

/// A value of the log. Empty means *noop*.
pub type Value = Bytes;

/// Microseconds on the node's own monotone clock, from an arbitrary origin.
pub type Micros = u64;

/// A leadership attempt. Compared by round, then by node, so no two nodes share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Number of the attempt, raised above every round the node has seen.
    pub round: u64,
    /// The node that leads under this ballot.
    pub node: NodeId,
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node)
    }
}

/// Position in the stream of journal operations. What is durable is always a prefix of the stream,
/// so one number says everything, and an overwritten slot cannot be confused with its successor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoSeq(pub u64);

/// The state of a node's recovery, which decides whether its votes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The node's votes count.
    Voter {
        /// The node's own ballots have higher rounds than this one.
        floor: u64,
    },
    /// The log was empty at the start, and the node does not know yet what it may have voted on.
    Lost,
    /// The node votes again when every slot up to `upto` is known here to be chosen.
    CatchingUp {
        /// The slot.
        upto: Slot,
        /// The node's own ballots have higher rounds than this one.
        floor: u64,
    },
    /// The node is no member, and never votes.
    Learner,
}

impl Recovery {
    /// Returns true if the node's votes count.
    pub fn votes(&self) -> bool {
        matches!(self, Self::Voter { .. })
    }

    /// The slot that has to be chosen before the node votes: 0 if it votes, [`Slot::MAX`] if the
    /// slot is not known.
    pub(super) fn barrier(&self) -> Slot {
        match *self {
            Self::Voter { .. } => 0,
            Self::Lost | Self::Learner => Slot::MAX,
            Self::CatchingUp { upto, .. } => upto,
        }
    }

    pub(super) fn floor(&self) -> u64 {
        match *self {
            Self::Voter { floor } | Self::CatchingUp { floor, .. } => floor,
            Self::Lost | Self::Learner => 0,
        }
    }
}

/// An operation of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalOp {
    /// No vote below this ballot from now on.
    Promise(Ballot),
    /// A vote for `value` at `ballot`; implies the promise of that ballot.
    Accept {
        /// Ballot voted at.
        ballot: Ballot,
        /// Slot voted for.
        slot: Slot,
        /// Value voted for.
        value: Value,
    },
    /// The state of recovery from now on, which decides whether the node's votes count.
    Recovery(Recovery),
    /// Every slot up to this one is chosen and covered by a checkpoint that is durable here. What
    /// the log holds of these slots need not be what was chosen.
    Install(Slot),
    /// Hint that every slot up to this one is chosen and that the newest accepted value of each is
    /// the chosen one. Needs no flush of its own: losing it costs a catch-up, never a value.
    Commit(Slot),
}

impl JournalOp {
    /// Returns true if anything waits for this operation to be durable.
    pub fn needs_flush(&self) -> bool {
        !matches!(self, JournalOp::Commit(_))
    }
}

/// A vote reported in phase 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedEntry {
    /// Slot voted for.
    pub slot: Slot,
    /// Highest ballot voted at.
    pub ballot: Ballot,
    /// Value voted for at that ballot.
    pub value: Value,
}

/// Answer to one particular heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The heartbeat's number.
    pub beat: u64,
    /// The heartbeat's `next`.
    pub next: Slot,
}

/// Messages between cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Msg {
    /// "Would you vote for me?" Changes nothing at the receiver, so a flapping node disturbs no
    /// one.
    Probe {
        /// Matches replies to the attempt.
        nonce: u64,
        /// Prober's commit.
        commit: Slot,
    },
    /// Answer to a probe.
    ProbeReply {
        /// Nonce of the probe.
        nonce: u64,
        /// No live leader is known here, and this node can report all the prober lacks.
        granted: bool,
        /// Highest ballot known here.
        promised: Ballot,
    },
    /// Phase 1a over the whole open tail.
    Prepare {
        /// Candidate's ballot.
        ballot: Ballot,
        /// First slot the candidate does not know to be chosen.
        from: Slot,
    },
    /// Phase 1b.
    Promise {
        /// Ballot promised.
        ballot: Ballot,
        /// Acceptor's commit.
        commit: Slot,
        /// Every vote of the acceptor from the asked slot on.
        entries: Vec<AcceptedEntry>,
    },
    /// Phase 2a. Also how a lagging follower catches up: a leader may send any chosen value again
    /// under its own ballot, because no other value can ever be proposed for that slot.
    Accept {
        /// Leader's ballot.
        ballot: Ballot,
        /// Slot to vote for.
        slot: Slot,
        /// Leader's commit.
        commit: Slot,
        /// Value to vote for.
        value: Value,
    },
    /// Phase 2b, cumulative.
    Accepted {
        /// Ballot this answers.
        ballot: Ballot,
        /// Every slot up to here is durable at the sender under `ballot`, or known chosen there.
        upto: Slot,
        /// Same as `upto` without regard to durability: what need not be sent again.
        seen: Slot,
        /// 0 if the sender votes. Otherwise this is no vote, and it will vote when this slot is
        /// chosen.
        barrier: Slot,
        /// Present when this answers a heartbeat.
        echo: Option<Echo>,
    },
    /// Leader's sign of life.
    Heartbeat {
        /// Leader's ballot.
        ballot: Ballot,
        /// Leader's commit.
        commit: Slot,
        /// Everything below this slot has been sent to the receiver.
        next: Slot,
        /// Number of this heartbeat.
        beat: u64,
    },
    /// News of the commit when no phase 2a message is there to carry it.
    Commit {
        /// Leader's ballot.
        ballot: Ballot,
        /// Leader's commit.
        commit: Slot,
    },
    /// "What you lack is in nobody's log any more: mine begins at `first`. Get a checkpoint."
    Behind {
        /// Leader's ballot.
        ballot: Ballot,
        /// First slot in its log.
        first: Slot,
    },
    /// The leader of this ballot leads no more, and somebody else should.
    Resign {
        /// The ballot of the leader that resigns.
        ballot: Ballot,
    },
    /// "I have lost my disk: what might I have voted on?"
    Ask {
        /// Matches answers to the question.
        nonce: u64,
    },
    /// Answer to that.
    Answer {
        /// Nonce of the question.
        nonce: u64,
        /// Highest ballot promised by the sender.
        promised: Ballot,
        /// Highest slot it has voted in.
        last: Slot,
        /// The sender has lost its own disk and does not vote.
        lost: bool,
    },
    /// Answer to anything under an outdated ballot.
    Reject {
        /// The higher ballot promised by the sender.
        promised: Ballot,
    },
}

/// An input of a core.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message arrived.
    Recv {
        /// Sender, a member or a learner.
        from: NodeId,
        /// The message.
        msg: Msg,
    },
    /// A value is to be appended; ignored unless this node is a ready leader.
    Propose(Value),
    /// Every journal operation up to this one is durable.
    Flushed(IoSeq),
    /// The values asked for by a [`Fetch`], as many as were wanted.
    Fetched {
        /// Peer they are for.
        to: NodeId,
        /// Slot of the first value.
        from: Slot,
        /// Values of consecutive chosen slots.
        values: Vec<Value>,
    },
    /// The values asked for by a [`Fetch`] were dropped behind a checkpoint: the log begins at
    /// `first`.
    Gone {
        /// Peer they were for.
        to: NodeId,
        /// First slot in the log.
        first: Slot,
    },
    /// A checkpoint of this slot is durable here, and the log up to there may be without values.
    Installed(Slot),
    /// The link to a peer's process broke.
    PeerDown(NodeId),
    /// The link to a peer's process is there. One that is no member is a learner.
    PeerUp(NodeId),
    /// This node is not to lead from now on, or may lead again. It goes on to vote.
    Abstain(bool),
    /// End of an iteration of the caller's event loop, or the deadline passed: run timers and send
    /// what was gathered.
    Tick,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// The message may leave only when the journal is durable up to here.
    pub after: IoSeq,
    /// Receiver.
    pub to: NodeId,
    /// The message.
    pub msg: Msg,
}

/// Chosen values a peer lacks and the core no longer holds; the shell reads them from the log and
/// answers with [`Input::Fetched`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Peer they are for.
    pub to: NodeId,
    /// First slot wanted.
    pub from: Slot,
    /// Last slot wanted.
    pub upto: Slot,
    /// Read no further than this many bytes (but at least one value).
    pub max_bytes: usize,
}

/// The node's view of who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Highest ballot promised.
    pub ballot: Ballot,
    /// Leader of that ballot, if it is known to lead.
    pub leader: Option<NodeId>,
    /// This node leads, and everything recovered from earlier ballots is chosen: it may propose.
    pub ready: bool,
}

/// The effects of a step, which the caller carries out and drains; the vectors are reused.
#[derive(Debug, Default)]
pub struct Effects {
    /// Operations to append to the journal, in this order.
    pub journal: Vec<(IoSeq, JournalOp)>,
    /// Messages to send.
    pub sends: Vec<Send>,
    /// Values to read from the log.
    pub fetches: Vec<Fetch>,
    /// Set when the leadership changed.
    pub leadership: Option<Leadership>,
    /// Set when the leader's log begins at this slot, beyond what is known here: a checkpoint is
    /// needed.
    pub behind: Option<Slot>,
}

impl Effects {
    /// Returns true if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.journal.is_empty()
            && self.sends.is_empty()
            && self.fetches.is_empty()
            && self.leadership.is_none()
            && self.behind.is_none()
    }
}
