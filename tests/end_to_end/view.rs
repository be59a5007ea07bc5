//! What `brolga status --json` says.

use brolga_node::{DivergenceReport, LearnerStatus, NodeStatus, ServerState};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
pub struct View {
    pub leader: Option<u64>,
    pub alive: usize,
    pub majority: usize,
    pub compared_slot: Option<u64>,
    pub equal: Option<bool>,
    pub difference: Option<DivergenceReport>,
    pub warning: Option<String>,
    pub replicas: Vec<Replica>,
    pub learners: Vec<LearnerStatus>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Replica {
    pub id: u64,
    pub status: Option<NodeStatus>,
}

impl View {
    /// The accounts of all replicas, if all are up.
    pub fn all(&self) -> Option<Vec<&NodeStatus>> {
        let statuses = self.replicas.iter().map(|replica| replica.status.as_ref());
        statuses.collect()
    }

    pub fn node(&self, id: u64) -> Option<&NodeStatus> {
        let replica = self.replicas.iter().find(|replica| replica.id == id)?;
        replica.status.as_ref()
    }

    pub fn pid(&self, id: u64) -> u64 {
        let node = self.node(id).unwrap_or_else(|| panic!("{id} is down"));
        node.pid.into()
    }

    pub fn leader(&self) -> u64 {
        self.leader.expect("nobody leads")
    }

    pub fn followers(&self) -> Vec<u64> {
        let ids = self.replicas.iter().map(|replica| replica.id);
        ids.filter(|id| Some(*id) != self.leader).collect()
    }

    /// Every replica is up and serves, and somebody leads.
    pub fn whole(&self) -> bool {
        let serves =
            |status: &NodeStatus| status.server == ServerState::Running && status.is_open();
        let all = self.all();
        self.leader.is_some() && all.is_some_and(|all| all.iter().all(|status| serves(status)))
    }

    /// The last slot with an entry in it that any replica knows of.
    pub fn last_entry(&self) -> u64 {
        let statuses = self.replicas.iter().filter_map(|it| it.status.as_ref());
        let last = statuses.map(|status| status.last_entry).max();
        last.unwrap_or_default()
    }

    /// Every replica has applied `slot`.
    pub fn applied(&self, slot: u64) -> bool {
        let done = |status: &&NodeStatus| status.applied.slot >= slot;
        self.all().is_some_and(|all| all.iter().all(done))
    }

    /// Something that must never be seen.
    pub fn alarm(&self) -> Option<String> {
        if self.equal == Some(false) {
            return Some(format!("the replicas differ at {:?}", self.compared_slot));
        }
        if let Some(difference) = &self.difference {
            return Some(difference.to_string());
        }
        let statuses = self.replicas.iter().filter_map(|it| it.status.as_ref());
        statuses.into_iter().find_map(|status| {
            let node = status.node;
            if let Some(at) = status.divergence {
                return Some(format!("{node} diverged from its past at {at:?}"));
            }
            match &status.server {
                ServerState::Faulted { message } => Some(format!("{node} faulted: {message}")),
                ServerState::Exited { how } => Some(format!("the server of {node} ended: {how}")),
                _ => None,
            }
        })
    }

    /// Hashes, one line for each replica.
    pub fn hashes(&self) -> String {
        let slot = self.compared_slot.unwrap_or_default();
        format!("hashes of {} replicas equal at slot {slot}", self.alive)
    }
}
