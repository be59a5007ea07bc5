//! Deliberate bugs. Only test builds can switch one on; the simulator has to catch every one, which
//! is how its strength is measured.

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A follower acknowledges votes before they are flushed.
    AckBeforeFlush,
    /// A leader counts its own vote before it is flushed.
    CountSelfBeforeFlush,
    /// A promise leaves before it is durable.
    PromiseBeforeFlush,
    /// A candidate uses a ballot that it may forget it used.
    PrepareBeforeFlush,
    /// A leader counts acknowledgements of other ballots.
    CountOldBallotAcks,
    /// A new leader does not propose again what others voted for.
    DropTail,
    /// Phase 1 takes the vote at the lowest ballot instead of the highest.
    PickLowestBallot,
    /// A vote below the promise.
    ForgetPromise,
    /// The commit moves over votes of earlier ballots.
    CommitAnyBallot,
    /// Half of the members are taken for a majority.
    MinorityQuorum,
    /// What was lost on the way is never sent again.
    NoRetransmission,
    /// A leader that hears nobody goes on leading.
    NoQuorumCheck,
    /// A node with an empty disk votes at once.
    VoteAfterWipe,
    /// A node that has lost its disk asks as many as make a quorum instead of all.
    AskQuorumOnly,
    /// A node that has lost its disk votes before it knows the slots that it may have voted in.
    ForgetBarrier,
    /// A leader takes for a vote what is none.
    CountNonVoters,
    /// A leader counts what learners hold.
    CountLearners,
    /// A leader that hears learners alone takes them for a quorum.
    HearLearners,
    /// The shell drops parts of the log that no checkpoint covers.
    #[cfg(test)]
    TruncateUncovered,
    /// A leader does not tell a node that it needs a checkpoint.
    InstallUnsaid,
}
