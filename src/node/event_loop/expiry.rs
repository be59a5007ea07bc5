//! Expiry of connections: the leader is told which stand-alone frontends are attached, and proposes
//! to close the connections of those that have failed.

use crate::clients::expiry::ALIVE_INTERVAL;
use crate::event_loop::node::Node;
use crate::peers::frames::PeerFrame;
use crate::server::process::ServerHost;
use brolga_consensus::{LEARNERS_FROM, NodeId};
use std::time::Instant;

impl<H: ServerHost> Node<H> {
    /// Returns the time at which the leader has to look for connections that expire.
    pub(super) fn expiry_deadline(&mut self, now: Instant) -> Option<Instant> {
        if !self.links.replica.can_propose() {
            return None;
        }
        let (clients, down) = (&mut self.clients, &self.links.down_since);
        clients.expiry.deadline(&clients.conns, down, now)
    }

    /// The leader closes the connections of nodes and frontends that have been silent for long.
    pub(super) fn expire(&mut self, now: Instant) {
        let deadline = self.expiry_deadline(now);
        if deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        let (clients, down) = (&mut self.clients, &mut self.links.down_since);
        let gone = clients.expiry.expire(&clients.conns, down, now);
        let (count, events) = (gone.event_count(), gone.encoded_events());
        self.ordering.proposer.push(count, events);
    }

    /// Tells the leader now and then which stand-alone frontends are attached here.
    pub(super) fn report_proxies(&mut self, now: Instant) {
        if self.proxies.report_at.is_some_and(|at| at > now) {
            return;
        }
        let attached: Vec<u64> = self.proxies.server.attached().collect();
        self.proxies.report_at = (!attached.is_empty()).then(|| now + ALIVE_INTERVAL);
        let Some(leader) = self.links.leader().filter(|_| !attached.is_empty()) else {
            return;
        };
        if leader == self.config.node {
            for frontend in attached {
                self.clients.expiry.heard(frontend, now);
            }
            return;
        }
        let numbers: Vec<u8> = attached.iter().flat_map(|id| id.to_le_bytes()).collect();
        // The next report makes up for one that is lost.
        self.links.send(leader, &PeerFrame::Alive(&numbers));
    }

    /// Another node has told which stand-alone frontends are attached there.
    pub(super) fn proxies_alive(&mut self, numbers: &[u8], now: Instant) {
        for number in numbers.chunks_exact(8) {
            if let Ok(number) = number.try_into() {
                let frontend = u64::from_le_bytes(number);
                self.clients.expiry.heard(frontend, now);
            }
        }
    }

    /// A new leader may never have met a learner whose connections have to expire: it counts as
    /// down from now on.
    pub(super) fn count_lost_learners(&mut self, now: Instant) {
        let linked: Vec<NodeId> = self.links.replica.learners().map(|(id, _)| id).collect();
        let nodes = self.clients.conns.frontends().map(|(_, known)| known.node);
        for node in nodes.filter(|node| *node >= LEARNERS_FROM) {
            if !linked.contains(&node) && !self.config.is_member(node) {
                self.links.down(node, now);
            }
        }
    }
}
