//! Deliberate bugs. Only test builds can switch one on; the simulator has to catch every one, which
//! is how its strength is measured.

/// One deliberate bug.
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
}
