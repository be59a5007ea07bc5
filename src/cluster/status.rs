//! Cluster status: asks every node for its status and compares the answers.
//!
//! Replicas are compared at one slot, the last one that all live replicas have applied: hashes of
//! different slots cannot be compared. A node that does not answer is down, whatever the reason.

use crate::admin::Client;
use crate::cluster::{ClusterFile, node_dir, shown};
use brolga_config::{ClusterId, Member, Policy};
use brolga_node::{
    DivergenceReport, FilterState, LearnerStatus, NodeStatus, Role, ServerState, SlotHashes,
};
use serde::Serialize;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use tokio::task::JoinSet;

/// Attempts at a comparison: nodes keep applying while they are asked, and drop old hashes.
const COMPARISONS_MAX: usize = 5;

/// The status of a cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// The wrapped server.
    pub command: Vec<String>,
    /// When threads of the server hand on the turn.
    pub policy: Policy,
    /// The leader, as a majority of the nodes sees it.
    pub leader: Option<u64>,
    /// The leader's ballot.
    pub ballot: Option<String>,
    /// Nodes that answer.
    pub alive: usize,
    /// Nodes that must be alive for requests to be served.
    pub majority: usize,
    /// The slot that replicas were compared at.
    pub compared_slot: Option<u64>,
    /// True if all live replicas had equal hashes there; `None` with fewer than two.
    pub equal: Option<bool>,
    /// The last divergence between two replicas that any of them has found since it started.
    pub difference: Option<DivergenceReport>,
    /// Something the user should know, as a sentence.
    pub warning: Option<String>,
    /// All members.
    pub replicas: Vec<Replica>,
    /// Learners, as the leader sees them, or anybody if there is none.
    pub learners: Vec<LearnerStatus>,
}

/// The status of one replica.
#[derive(Clone, Debug, Serialize)]
pub struct Replica {
    /// The node id.
    pub id: u64,
    /// The address for clients.
    pub address: IpAddr,
    /// The node's own status; `None` when it is down.
    pub status: Option<NodeStatus>,
    /// The output hash at the compared slot, hexadecimal.
    pub output_hash: Option<String>,
    /// The schedule hash there.
    pub schedule_hash: Option<String>,
}

impl ClusterStatus {
    /// Asks all nodes of the cluster in `data` concurrently.
    pub async fn collect(data: &Path, file: &ClusterFile) -> Self {
        let mut answers = ask_all(data, &file.members).await;
        let compared = compare(&mut answers).await;
        let replicas: Vec<Replica> = answers
            .into_iter()
            .map(|answer| answer.into_replica(compared))
            .collect();
        let mut cluster_status = Self {
            cluster: file.cluster,
            command: file.command.clone(),
            policy: file.policy,
            leader: None,
            ballot: None,
            alive: replicas
                .iter()
                .filter(|replica| replica.status.is_some())
                .count(),
            majority: replicas.len() / 2 + 1,
            compared_slot: compared,
            equal: equal(&replicas),
            difference: None,
            warning: None,
            replicas,
            learners: Vec::new(),
        };
        cluster_status.find_leader();
        cluster_status.learners = cluster_status.known_learners();
        cluster_status.difference = cluster_status.best_difference().cloned();
        cluster_status.warning = cluster_status.most_urgent_warning();
        cluster_status
    }

    /// Returns true if every replica serves and there is a leader.
    #[must_use]
    pub fn ready(&self) -> bool {
        let ready = |status: &NodeStatus| status.server == ServerState::Running && status.is_open();
        self.leader.is_some()
            && self
                .replicas
                .iter()
                .all(|replica| replica.status.as_ref().is_some_and(ready))
    }

    fn statuses(&self) -> impl Iterator<Item = &NodeStatus> {
        self.replicas
            .iter()
            .filter_map(|replica| replica.status.as_ref())
    }

    /// Returns true if replicas differ, or one is in quarantine.
    #[must_use]
    pub fn differs(&self) -> bool {
        let mut statuses = self.statuses();
        self.equal == Some(false) || statuses.any(|status| status.quarantine.is_some())
    }

    /// The most detailed divergence report.
    fn best_difference(&self) -> Option<&DivergenceReport> {
        let found = self.statuses().filter_map(|it| it.difference.as_ref());
        found.max_by_key(|it| (it.place.is_some(), it.minority.len(), it.slot))
    }

    /// Finds the leader that a majority follows: a deposed leader may not know yet.
    fn find_leader(&mut self) {
        let majority = self.majority;
        let leader = self
            .statuses()
            .filter(|status| status.role == Role::Leader)
            .find(|status| {
                let followed = self
                    .statuses()
                    .filter(|other| other.leader == Some(status.node));
                followed.count() >= majority
            });
        let found = leader.map(|leader| (leader.node, leader.ballot.clone()));
        (self.leader, self.ballot) = found.unzip();
    }

    fn known_learners(&self) -> Vec<LearnerStatus> {
        let most = |status: &&NodeStatus| {
            let leads = self.leader == Some(status.node);
            (leads, status.learners.len())
        };
        let known = self.statuses().max_by_key(most);
        known
            .map(|status| status.learners.clone())
            .unwrap_or_default()
    }

    fn write_learners(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chosen = self.statuses().map(|status| status.chosen).max();
        let chosen = chosen.unwrap_or_default();
        for learner in &self.learners {
            let LearnerStatus { id, applied, .. } = learner;
            let lag = chosen.saturating_sub(*applied);
            let hashes = match (learner.differs, learner.agreed) {
                (Some(slot), _) => format!("hashes DIFFERENT at slot {slot}"),
                (None, 0) => "nothing to compare yet".into(),
                (None, slot) => format!("hashes equal at slot {slot}"),
            };
            writeln!(
                f,
                "learner  {id}: applied {applied}, {lag} behind, {hashes}"
            )?;
        }
        Ok(())
    }

    /// Call sites that bypass the interposer, from one replica, since all do the same; and every replica
    /// that runs without a filter.
    fn write_syscall_filter(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SITES_SHOWN: usize = 5;
        for status in self.statuses() {
            match &status.backstop.filter {
                FilterState::Off => {
                    writeln!(f, "system call filter off on replica {}", status.node)?;
                }
                FilterState::Unavailable { reason } => {
                    let node = status.node;
                    writeln!(
                        f,
                        "system call filter not available on replica {node}: {reason}"
                    )?;
                }
                FilterState::On | FilterState::Unknown => {}
            }
        }
        let most = |status: &&NodeStatus| status.backstop.caught.len();
        if let Some(status) = self.statuses().max_by_key(most) {
            for site in status.backstop.caught.iter().take(SITES_SHOWN) {
                writeln!(f, "caught   {site}")?;
            }
        }
        Ok(())
    }

    fn most_urgent_warning(&self) -> Option<String> {
        let of = |status: &NodeStatus| Some((status.node, status.quarantine.clone()?));
        if let Some((node, quarantine)) = self.statuses().find_map(of) {
            let reason = quarantine.reason;
            return Some(format!("replica {node} is in quarantine: {reason}"));
        }
        if self.equal == Some(false) {
            let slot = self.compared_slot.unwrap_or_default();
            let named = self.difference.as_ref().map(|it| format!(" ({it})"));
            let named = named.unwrap_or_default();
            return Some(format!("the replicas differ at slot {slot}{named}"));
        }
        let down = self.replicas.len() - self.alive;
        if self.alive < self.majority {
            let all = self.replicas.len();
            return Some(format!(
                "{down} of {all} replicas down: requests wait until {} are up",
                self.majority
            ));
        }
        let of = |status: &NodeStatus| Some((status.node, status.no_vote.clone()?));
        if let Some((node, why)) = self.statuses().find_map(of) {
            return Some(format!("replica {node} does not vote: {why}"));
        }
        if let Some(slot) = self.statuses().find_map(|status| status.divergence) {
            return Some(format!("a restarted server diverged at slot {}", slot.slot));
        }
        if let Some(waiting) = self.statuses().find_map(|status| status.waiting.clone()) {
            return Some(waiting);
        }
        let of = |status: &NodeStatus| Some((status.node, status.checkpoint_trouble.clone()?));
        if let Some((node, trouble)) = self.statuses().find_map(of) {
            return Some(format!("replica {node} takes no checkpoint: {trouble}"));
        }
        let difference = self.difference.as_ref()?;
        Some(format!(
            "a replica was wrong and agrees again: {difference}"
        ))
    }
}

/// The answer of one node, and the open connection to it.
struct Answer {
    member: Member,
    client: Option<Client>,
    status: Option<NodeStatus>,
    hashes: Option<SlotHashes>,
}

impl Answer {
    async fn from(data: &Path, member: Member) -> Self {
        let socket = node_dir(data, member.id).join("admin.sock");
        let mut client = Client::connect(&socket).await.ok();
        let mut status = None;
        if let Some(open) = &mut client {
            status = open.status().await.ok();
        }
        Self {
            member,
            client,
            status,
            hashes: None,
        }
    }

    /// Asks for the hashes at `slot`; false if the node is up but does not have them.
    async fn fetch_hashes(&mut self, slot: u64) -> bool {
        let (Some(client), Some(_)) = (&mut self.client, &self.status) else {
            return true;
        };
        match client.hashes_at(slot).await {
            Ok(hashes) => self.hashes = hashes,
            Err(_) => self.status = None, // it died while it was asked
        }
        self.status.is_none() || self.hashes.is_some()
    }

    fn into_replica(self, compared: Option<u64>) -> Replica {
        let hashes = self.hashes.filter(|hashes| Some(hashes.slot) == compared);
        Replica {
            id: self.member.id,
            address: self.member.address,
            status: self.status,
            output_hash: hashes.map(|hashes| format!("{:016x}", hashes.output_hash)),
            schedule_hash: hashes.map(|hashes| format!("{:016x}", hashes.schedule_hash)),
        }
    }
}

async fn ask_all(data: &Path, members: &[Member]) -> Vec<Answer> {
    let mut asking = JoinSet::new();
    for member in members.iter().cloned() {
        let data = data.to_owned();
        asking.spawn(async move { Answer::from(&data, member).await });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by_key(|answer| answer.member.id);
    answers
}

/// Fetches the hashes of all nodes at one slot, and returns that slot.
async fn compare(answers: &mut [Answer]) -> Option<u64> {
    for _ in 0..COMPARISONS_MAX {
        let applied = answers.iter().filter_map(|answer| answer.status.as_ref());
        let slot = applied
            .map(|status| status.applied.slot)
            .min()
            .filter(|slot| *slot > 0)?;
        let mut known = true;
        for answer in answers.iter_mut() {
            known &= answer.fetch_hashes(slot).await;
        }
        if known {
            return Some(slot);
        }
        for answer in answers.iter_mut() {
            if let Some(client) = &mut answer.client {
                answer.status = client.status().await.ok();
            }
        }
    }
    None
}

fn equal(replicas: &[Replica]) -> Option<bool> {
    let mut hashes = replicas.iter().filter_map(|replica| {
        Some((
            replica.output_hash.as_ref()?,
            replica.schedule_hash.as_ref()?,
        ))
    });
    let first = hashes.next()?;
    let mut rest = hashes.peekable();
    rest.peek()?;
    Some(rest.all(|other| other == first))
}

impl fmt::Display for ClusterStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cluster  {}", self.cluster)?;
        writeln!(f, "server   {}", shown(&self.command))?;
        writeln!(f, "policy   {}", self.policy)?;
        match (self.leader, &self.ballot) {
            (Some(leader), Some(ballot)) => writeln!(f, "leader   {leader}, ballot {ballot}")?,
            _ => writeln!(f, "leader   none")?,
        }
        writeln!(
            f,
            "\n{:>7}  {:<15} {:<9} {:<10} {:>7} {:>7} {:>9} {:>9} {:>6}  {:<16}  {:<16}",
            "replica",
            "address",
            "role",
            "state",
            "node",
            "server",
            "chosen",
            "applied",
            "conns",
            "output hash",
            "schedule hash"
        )?;
        for replica in &self.replicas {
            writeln!(f, "{replica}")?;
        }
        match (self.compared_slot, self.equal) {
            (Some(slot), Some(true)) => writeln!(f, "\nhashes at slot {slot}: equal")?,
            (Some(slot), Some(false)) => writeln!(f, "\nhashes at slot {slot}: DIFFERENT")?,
            _ => writeln!(f, "\nhashes: nothing to compare")?,
        }
        self.write_learners(f)?;
        self.write_syscall_filter(f)?;
        for status in self.statuses() {
            if let Some(transfer) = &status.transfer {
                writeln!(f, "replica {}: {transfer}", status.node)?;
            }
            if let Some(taking) = &status.taking {
                writeln!(f, "replica {}: {taking}", status.node)?;
            }
        }
        self.warning
            .as_ref()
            .map_or(Ok(()), |warning| writeln!(f, "{warning}"))
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, address, .. } = self;
        let Some(status) = &self.status else {
            return write!(f, "{id:>7}  {address:<15} {:<9} down", "-");
        };
        let hash = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "-".into());
        write!(
            f,
            "{id:>7}  {address:<15} {:<9} {:<10} {:>7} {:>7} {:>9} {:>9} {:>6}  {:<16}  {:<16}",
            role_name(status.role),
            state_name(status),
            status.pid,
            status
                .server_pid
                .map_or_else(|| "-".into(), |pid| pid.to_string()),
            status.chosen,
            status.applied.slot,
            status.connections,
            hash(&self.output_hash),
            hash(&self.schedule_hash),
        )
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Searching => "searching",
        Role::Learner => "learner",
    }
}

fn state_name(status: &NodeStatus) -> &'static str {
    if status.transfer.is_some() {
        return "fetching";
    }
    if status.no_vote.is_some() {
        return "no vote";
    }
    if status.quarantine.is_some() {
        return "quarantine";
    }
    match &status.server {
        ServerState::Starting => "starting",
        ServerState::Replaying => "replaying",
        ServerState::Running => "running",
        ServerState::Exited { .. } => "exited",
        ServerState::Faulted { .. } => "faulted",
    }
}
