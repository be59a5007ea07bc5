//! The status report: the state of a node, and why its requests wait, if they do.

use crate::event_loop::node::Node;
use crate::server::process::ServerHost;
use crate::status::{NodeStatus, Peer, Role};
use brolga_consensus::Recovery;

impl<H: ServerHost> Node<H> {
    /// Returns the status of this node.
    pub(super) fn status(&self) -> NodeStatus {
        NodeStatus {
            node: self.config.node,
            cluster: self.config.cluster.to_string(),
            pid: std::process::id(),
            server_pid: self.server.pid(),
            server: self.server.state(),
            role: self.role(),
            leader: self.links.leader(),
            ballot: self.links.leadership.ballot.to_string(),
            chosen: self.links.replica.chosen_upto(),
            last_entry: self.server.feeder.last_entry(),
            applied: self.server.output.applied(),
            divergence: self.server.output.divergence(),
            difference: self.monitor.report().cloned(),
            quarantine: self.monitor.quarantine().cloned(),
            vote: self.config.vote,
            policy: self.config.policy,
            held_bytes: self.monitor.output_commit.held_bytes(),
            connections: self.clients.frontend.client_count(),
            outgoing: self.clients.frontend.outgoing_count(),
            listeners: self.clients.frontend.addresses(),
            datagram_ports: self.clients.frontend.datagram_addresses(),
            datagrams: self.clients.frontend.datagram_counts(),
            peers: self.peers(),
            learners: self.peers.learners.statuses(self.links.replica.learners()),
            checkpoint: self.checkpoints.newest(),
            taking: self.checkpoints.writing(),
            checkpoint_trouble: self.checkpoints.trouble(),
            restored_from: self.server.lifecycle.restored_from,
            live_at: self.server.lifecycle.serves_after(),
            log_begins: self.links.replica.first_slot(),
            no_vote: self.no_vote(),
            waiting: self.waiting(),
            transfer: self.transfer.status(),
            proposed: self.ordering.proposer.proposed(),
            resends: self.ordering.leader_link.resends(),
            server_starts: self.server.lifecycle.starts(),
            backstop: self.server.lifecycle.syscall_filter.clone(),
        }
    }

    fn role(&self) -> Role {
        match self.links.leader() {
            _ if self.config.learner.is_some() => Role::Learner,
            Some(leader) if leader == self.config.node => Role::Leader,
            Some(_) => Role::Follower,
            None => Role::Searching,
        }
    }

    fn peers(&self) -> Vec<Peer> {
        let peer = |id| Peer {
            id,
            up: self.links.is_reachable(id),
        };
        self.config.others().map(peer).collect()
    }

    /// Why requests wait, if they do.
    fn waiting(&self) -> Option<String> {
        self.fetching()
            .or_else(|| self.consensus_waiting())
            .or_else(|| self.peers.compatibility.waiting())
            .or_else(|| self.monitor.waiting())
            .or_else(|| self.server.lifecycle.waiting())
    }

    fn fetching(&self) -> Option<String> {
        let lacking = self.checkpoints.lacking(self.links.replica.chosen_upto())?;
        let transfer = self.transfer.described();
        Some(format!(
            "replica {} lacks slots up to {lacking}, which were dropped: {transfer}",
            self.config.node
        ))
    }

    /// Why this node does not vote.
    fn no_vote(&self) -> Option<String> {
        match self.links.replica.recovery() {
            Recovery::Voter { .. } | Recovery::Learner => None,
            Recovery::CatchingUp { upto, .. } => Some(format!(
                "it had lost its log and votes again when slot {upto} is chosen"
            )),
            Recovery::Lost => {
                let told: Vec<u64> = self.links.replica.answers().collect();
                let missing = self.config.others();
                let missing: Vec<String> = missing
                    .filter(|id| !told.contains(id))
                    .map(|id| id.to_string())
                    .collect();
                Some(match missing.is_empty() {
                    true => {
                        "its log is empty, and too many others have lost theirs to tell what was \
                             voted on"
                            .into()
                    }
                    false => format!(
                        "its log is empty: it votes when all others have told what they know; \
                         missing: {}",
                        missing.join(", ")
                    ),
                })
            }
        }
    }

    fn consensus_waiting(&self) -> Option<String> {
        let all = self.config.members.len();
        let others = self.config.others();
        let down = others.filter(|id| !self.links.is_reachable(*id));
        let reachable = all - down.count();
        match self.links.leader() {
            None => {
                let refused = self.links.refused.as_ref();
                let refused = refused.map(|why| format!(" ({why})"));
                let refused = refused.unwrap_or_default();
                Some(format!(
                    "no leader: {reachable} of {all} replicas reachable, requests wait{refused}"
                ))
            }
            Some(leader) if !self.links.is_reachable(leader) => {
                Some(format!("leader {leader} is not reachable, requests wait"))
            }
            Some(leader) if leader == self.config.node && !self.links.replica.is_ready() => {
                Some("the new leader is still recovering the log, requests wait".into())
            }
            Some(leader) if leader == self.config.node && 2 * reachable <= all => Some(format!(
                "no quorum: {reachable} of {all} replicas reachable, requests wait"
            )),
            Some(_) => None,
        }
    }
}
