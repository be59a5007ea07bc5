//! Requests on their way into the log: from frontends to the leader, from the leader's queue to
//! consensus.

use crate::event_loop::node::Node;
use crate::ordering::operator_signals::Ordered;
use crate::ordering::proposer::View;
use crate::peers::frames::PeerFrame;
use crate::server::process::ServerHost;
use brolga_consensus::NodeId;
use brolga_tape::entry::Event;
use bytes::Bytes;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

impl<H: ServerHost> Node<H> {
    /// Sends the requests of frontends on their way to the leader.
    pub(super) fn send_requests(&mut self, now: Instant) {
        let (progress, frontend) = (self.clients.frontend.progress(), &self.clients.frontend);
        self.ordering
            .leader_link
            .check(now, progress, || frontend.has_outstanding());
        let leader = self.links.reachable_leader();
        let Some(leader) = leader.filter(|_| !self.ordering.leader_link.is_held(now)) else {
            if !self.clients.frontend.outbox().is_empty() || !self.proxies.requests.is_empty() {
                // Frontends keep what is not committed; it all goes when there is a way.
                self.drop_queued();
                self.ordering.leader_link.needs_resend();
            }
            return;
        };
        if self.ordering.leader_link.take_resend() {
            self.clients.frontend.resend(now);
            self.proxies.server.ask_again();
        }
        let mut sent = true;
        while let Some(chunk) = self.clients.frontend.outbox().pop() {
            sent = sent && self.send_up(leader, chunk.event_count(), chunk.encoded_events(), now);
        }
        for request in std::mem::take(&mut self.proxies.requests) {
            sent = sent && self.send_up(leader, request.count, &request.events, now);
        }
        if !sent {
            self.ordering.leader_link.hold(now);
        }
    }

    fn drop_queued(&mut self) {
        self.clients.frontend.outbox().clear();
        self.proxies.requests.clear();
    }

    /// Sends events to the leader; false when the way is blocked, and nothing may follow them.
    fn send_up(&mut self, leader: NodeId, count: u32, events: &[u8], now: Instant) -> bool {
        if leader == self.config.node {
            self.ordering.proposer.push(count, events);
            return true;
        }
        let sent = self.links.send(leader, &PeerFrame::Forward(count, events));
        if sent {
            self.ordering.leader_link.sent(now);
        }
        sent
    }

    // ---- proposing ----

    /// Returns the state of the node, for the proposer.
    pub(super) fn view(&self, now: Instant) -> View {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        View {
            now,
            wall_ns: u64::try_from(wall.as_nanos())
                .unwrap_or(u64::MAX)
                .saturating_add_signed(1_000_000 * self.config.clock_skew_ms),
            may_propose: self.links.replica.can_propose(),
            inflight: self.links.replica.inflight(),
            caught_up: self.server.feeder.seen() == self.links.replica.chosen_upto(),
            last_slot: self.server.feeder.last_entry(),
            server: self.server.output.clock(),
        }
    }

    /// Proposes as the leader.
    pub(super) fn propose(&mut self, now: Instant) {
        self.expire(now);
        self.propose_signals(now);
        while let Some(entry) = self.ordering.proposer.poll(&self.view(now)) {
            if let Err(error) = self.links.replica.propose(Bytes::from(entry)) {
                tracing::debug!(%error, "not proposed");
                // Deposed in this very iteration: the frontends send again when they hear of it.
                self.ordering.leader_link.lost();
                return;
            }
        }
    }

    /// An operator requests that the server gets a signal.
    pub(super) fn signal(&mut self, signal: u32, reply: oneshot::Sender<Ordered>) {
        self.ordering.signals.request(signal, reply);
        if !self.links.leads() {
            self.ordering.signals.leader_changed(self.links.leader());
        }
    }

    fn propose_signals(&mut self, now: Instant) {
        let view = self.view(now);
        // The first entry starts the server.
        if !view.may_propose || view.last_slot == 0 {
            return;
        }
        let (ordering, replica) = (&mut self.ordering, &mut self.links.replica);
        let proposer = &mut ordering.proposer;
        ordering.signals.propose(|signal| {
            let entry = proposer.entry_for(&Event::Signal { signal }, &view);
            replica.propose(Bytes::from(entry)).ok()
        });
    }

    /// The leader makes the connections that the server wants and nobody has answered. A server
    /// that was started again must first have told which of them it has closed.
    pub(super) fn dial(&mut self) {
        let caught_up = self.server.feeder.seen() == self.links.replica.chosen_upto();
        if !self.links.replica.can_propose() || !caught_up || !self.server.has_replayed() {
            return;
        }
        for (conn, address) in self.clients.conns.unanswered() {
            self.clients.frontend.dial(conn, address);
        }
    }
}
