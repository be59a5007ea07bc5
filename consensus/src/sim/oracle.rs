//! What must always hold, seen from outside: over all disks, all messages, all time.

use super::disk::Disk;
use crate::core::{AcceptedEntry, Ballot, JournalOp, Msg, NodeId, Slot, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A broken invariant, in one line.
pub(super) type Verdict = Result<(), String>;

macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub(super) use ensure;

/// Remembers everything that was ever true.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    quorum: usize,
    /// Everybody else is a learner.
    members: Vec<NodeId>,
    pub chosen: BTreeMap<Slot, Value>,
    /// Value ever voted for or proposed, per slot and ballot.
    proposals: BTreeMap<(Slot, Ballot), Value>,
    /// Nodes that ever held the vote durably.
    holders: BTreeMap<(Slot, Ballot), BTreeSet<NodeId>>,
    /// Node and incarnation that led.
    leaders: BTreeMap<Ballot, (NodeId, u64)>,
    /// Highest ballot that a node has told others it promised.
    told: BTreeMap<NodeId, Ballot>,
    /// Durable votes of nodes that do not vote: they count when the node does.
    idle: BTreeMap<NodeId, BTreeMap<Slot, Ballot>>,
    /// Nodes whose votes count.
    voters: BTreeSet<NodeId>,
    /// Acknowledgements checked so far, per node.
    acknowledged: BTreeMap<NodeId, (Ballot, Slot)>,
}

impl Oracle {
    pub fn new(members: &[NodeId]) -> Self {
        Self {
            quorum: members.len() / 2 + 1,
            members: members.to_vec(),
            ..Self::default()
        }
    }

    fn propose(&mut self, slot: Slot, ballot: Ballot, value: &Value) -> Verdict {
        let known = self
            .proposals
            .entry((slot, ballot))
            .or_insert_with(|| value.clone());
        ensure!(
            known == value,
            "two values for slot {slot} at ballot {ballot}"
        );
        if let Some(chosen) = self.chosen.get(&slot)
            && chosen != value
        {
            // Proposals of old ballots may be under way, but none can be above the choosing one.
            let lowest = self.choosing_ballot(slot, &chosen.clone());
            ensure!(
                lowest.is_none_or(|lowest| ballot < lowest),
                "slot {slot} is chosen, and ballot {ballot} proposes another value"
            );
        }
        Ok(())
    }

    fn choosing_ballot(&self, slot: Slot, value: &Value) -> Option<Ballot> {
        let ballots = self
            .holders
            .range((slot, Ballot::default())..(slot + 1, Ballot::default()));
        let mut quorums = ballots.filter(|((_, ballot), holders)| {
            holders.len() >= self.quorum && self.proposals.get(&(slot, *ballot)) == Some(value)
        });
        quorums.next().map(|((_, ballot), _)| *ballot)
    }

    /// A node writes an operation.
    pub fn on_write(&mut self, disk: &Disk, op: &JournalOp) -> Verdict {
        match op {
            JournalOp::Promise(ballot) => {
                ensure!(
                    *ballot > disk.written.promised,
                    "promise {ballot} is not a higher one"
                );
            }
            JournalOp::Accept {
                ballot,
                slot,
                value,
            } => {
                ensure!(
                    *ballot >= disk.written.promised,
                    "vote at {ballot} below the promise"
                );
                self.propose(*slot, *ballot, value)?;
            }
            JournalOp::Recovery(_) => {}
            JournalOp::Install(slot) => {
                ensure!(
                    *slot <= disk.checkpoint,
                    "slots up to {slot} are taken for covered, and no checkpoint is durable"
                );
            }
            JournalOp::Commit(upto) => {
                for slot in disk.written.commit + 1..=*upto {
                    ensure!(
                        disk.written.votes.contains_key(&slot),
                        "hint past the votes at {slot}"
                    );
                }
            }
        }
        Ok(())
    }

    /// Operations have become durable.
    pub fn on_durable(&mut self, node: NodeId, ops: &[JournalOp]) {
        for op in ops {
            match op {
                JournalOp::Accept { ballot, slot, .. } if self.voters.contains(&node) => {
                    self.hold(node, *slot, *ballot);
                }
                JournalOp::Accept { ballot, slot, .. } => {
                    let idle = self.idle.entry(node).or_default();
                    idle.insert(*slot, *ballot);
                }
                JournalOp::Recovery(recovery) if recovery.votes() => {
                    self.voters.insert(node);
                    for (slot, ballot) in self.idle.remove(&node).unwrap_or_default() {
                        self.hold(node, slot, ballot);
                    }
                }
                JournalOp::Recovery(_) => drop(self.voters.remove(&node)),
                _ => {}
            }
        }
    }

    fn hold(&mut self, node: NodeId, slot: Slot, ballot: Ballot) {
        self.holders.entry((slot, ballot)).or_default().insert(node);
    }

    /// A node has lost its disk. What it has told others is remembered.
    pub fn on_wipe(&mut self, node: NodeId) {
        self.voters.remove(&node);
        self.idle.remove(&node);
        self.acknowledged.remove(&node);
    }

    /// What a node says as a voter it must be allowed to say.
    fn may_promise(&self, node: NodeId, disk: &Disk, ballot: Ballot) -> Verdict {
        ensure!(
            disk.durable.is_voter(),
            "node {node} votes, and may have lost votes"
        );
        let told = self.told.get(&node).copied().unwrap_or_default();
        ensure!(
            ballot >= told,
            "node {node} votes at {ballot} after it promised {told}"
        );
        Ok(())
    }

    /// A message leaves a node.
    pub fn on_send(&mut self, node: NodeId, disk: &Disk, msg: &Msg) -> Verdict {
        let durable = &disk.durable;
        let learns = match msg {
            Msg::Accepted { barrier, .. } => *barrier > 0,
            Msg::Reject { .. } => true,
            _ => false,
        };
        ensure!(
            learns || self.members.contains(&node),
            "learner {node} says {msg:?}"
        );
        match msg {
            Msg::Prepare { ballot, .. } => {
                ensure!(
                    durable.promised >= *ballot,
                    "node {node} prepares {ballot} undurably"
                );
            }
            Msg::Promise {
                ballot, entries, ..
            } => self.on_promise(node, disk, *ballot, entries)?,
            Msg::Accept {
                ballot,
                slot,
                value,
                ..
            } => {
                ensure!(
                    ballot.node == node,
                    "node {node} proposes at ballot {ballot}"
                );
                self.propose(*slot, *ballot, value)?;
            }
            Msg::Accepted {
                ballot,
                upto,
                seen,
                barrier: 0,
                ..
            } => {
                ensure!(upto <= seen, "durable past what was seen");
                ensure!(
                    durable.promised >= *ballot,
                    "node {node} acknowledges {ballot} undurably"
                );
                self.may_promise(node, disk, *ballot)?;
                self.told.insert(node, *ballot);
                self.on_acknowledge(node, disk, *ballot, *upto)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn on_promise(
        &mut self,
        node: NodeId,
        disk: &Disk,
        ballot: Ballot,
        entries: &[AcceptedEntry],
    ) -> Verdict {
        let durable = &disk.durable;
        ensure!(
            durable.promised >= ballot,
            "node {node} promises {ballot} undurably"
        );
        self.may_promise(node, disk, ballot)?;
        self.told.insert(node, ballot);
        for entry in entries {
            let vote = durable.votes.get(&entry.slot);
            let gone = entry.slot <= durable.gone;
            ensure!(
                gone || vote.is_some_and(|(ballot, _)| *ballot >= entry.ballot),
                "node {node} reports an undurable vote for slot {}",
                entry.slot
            );
        }
        Ok(())
    }

    fn on_acknowledge(&mut self, node: NodeId, disk: &Disk, ballot: Ballot, upto: Slot) -> Verdict {
        let checked = self.acknowledged.entry(node).or_default();
        let from = if checked.0 == ballot { checked.1 } else { 0 };
        *checked = (ballot, upto.max(from));
        ensure!(
            disk.durable.gone <= disk.checkpoint,
            "node {node} dropped what no checkpoint of its covers"
        );
        for slot in from.max(disk.durable.gone) + 1..=upto {
            let Some((voted, value)) = disk.durable.votes.get(&slot) else {
                return Err(format!("node {node} acknowledges slot {slot} undurably"));
            };
            let chosen = self.chosen.get(&slot) == Some(value);
            ensure!(
                *voted >= ballot || chosen,
                "node {node} acknowledges slot {slot} at {voted}"
            );
        }
        Ok(())
    }

    /// A node leads.
    pub fn on_lead(&mut self, ballot: Ballot, node: NodeId, incarnation: u64) -> Verdict {
        let leader = *self.leaders.entry(ballot).or_insert((node, incarnation));
        ensure!(
            leader == (node, incarnation),
            "ballot {ballot} is led by {leader:?} and by {:?}",
            (node, incarnation)
        );
        Ok(())
    }

    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// A node takes a slot for chosen.
    pub fn on_commit(&mut self, node: NodeId, slot: Slot, value: &Value) -> Verdict {
        if let Some(chosen) = self.chosen.get(&slot) {
            ensure!(
                chosen == value,
                "node {node} has another value chosen in slot {slot}"
            );
            return Ok(());
        }
        ensure!(
            self.choosing_ballot(slot, value).is_some(),
            "node {node} takes slot {slot} for chosen, which no quorum holds durably"
        );
        self.chosen.insert(slot, value.clone());
        Ok(())
    }

    /// A node starts from its disk.
    pub fn on_start(&mut self, node: NodeId, disk: &Disk) -> Verdict {
        let told = self.told.get(&node).copied().unwrap_or_default();
        let promised = disk.durable.promised;
        ensure!(
            promised >= told || !disk.durable.is_voter(),
            "node {node} forgot its promise {told}, has {promised}"
        );
        self.acknowledged.remove(&node);
        Ok(())
    }
}
