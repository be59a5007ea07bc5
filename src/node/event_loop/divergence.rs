//! Divergence, as far as it concerns the rest of the node: messages are exchanged, output is
//! released, and a server that a majority has found faulty is taken out of service.

use crate::checkpoint::restore::StartPoint;
use crate::clients::connection_table::ConnectionTable;
use crate::divergence::monitor::Recipient;
use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::peers::frames::PeerFrame;
use crate::server::process::ServerHost;
use brolga_consensus::NodeId;
use std::time::Instant;

impl<H: ServerHost> Node<H> {
    /// Compares what is new, and tells the others.
    pub(crate) fn compare(&mut self, now: Instant) -> Result<(), NodeError> {
        if self.monitor.progressed(&self.server.output) {
            self.peers.learners.progressed(self.server.output.history());
            while let Some(slot) = self.monitor.settle(&self.server.output, now) {
                self.enter_quarantine(slot, now)?;
            }
            if self.monitor.leave_quarantine_when_healed()? {
                self.links.replica.abstain(now, false);
            }
            let limit = self.monitor.output_limit();
            self.release_output(limit);
            self.take_server_events()?;
        }
        self.monitor.tell(self.server.output.applied(), now);
        self.send_divergence_messages();
        Ok(())
    }

    /// Another node has sent a divergence message.
    pub(crate) fn divergence_message(&mut self, from: NodeId, bytes: &[u8], now: Instant) {
        let own = (&self.server.output, &self.clients.conns);
        let told = self.monitor.receive(from, bytes, own, now);
        if let Some(hashes) = told
            && !self.config.is_member(from)
        {
            self.peers
                .learners
                .report(from, hashes, self.server.output.history());
        }
        self.send_divergence_messages();
    }

    fn send_divergence_messages(&mut self) {
        for (to, message) in self.monitor.take_outbox() {
            let message = message.encode();
            let to = match to {
                Recipient::One(node) => vec![node],
                Recipient::All => {
                    let linked = self.links.replica.peers().filter(|(_, up)| *up);
                    linked.map(|(id, _)| id).collect()
                }
            };
            for node in to {
                // What is lost with a link is sent again when it is up.
                self.links.send(node, &PeerFrame::Compare(&message));
            }
        }
    }

    fn enter_quarantine(&mut self, slot: u64, now: Instant) -> Result<(), NodeError> {
        let again = self.monitor.enter_quarantine(slot)?;
        // While the links are those of the server that was faulty.
        self.send_divergence_messages();
        if !again {
            return self.stand_aside(now);
        }
        let recent = self.server.output.take_recent();
        self.monitor.keep_evidence(slot, recent);
        self.stand_aside(now)?;
        self.start_from_nothing(slot)
    }

    /// Serves no client from the own server, and does not lead.
    pub(crate) fn stand_aside(&mut self, now: Instant) -> Result<(), NodeError> {
        self.links.replica.abstain(now, true);
        self.clients.frontend.retire();
        self.proxies.server.detach_all();
        self.server.lifecycle.stop_serving();
        self.monitor.start_fallback(&self.config);
        Ok(())
    }

    /// Forgets all that followed from what the server did, and starts it in its genesis state.
    fn start_from_nothing(&mut self, faulty_from: u64) -> Result<(), NodeError> {
        self.restart_frontend()?;
        self.clients.conns = ConnectionTable::new();
        self.server.feeder.start_over();
        self.server.output.forget();
        self.hash_log.clear();
        if self.links.replica.first_slot() == 1 {
            return self.start_server();
        }
        // Checkpoints taken since are of a server that was faulty.
        match self.restore_server(true, faulty_from)? {
            StartPoint::Restored | StartPoint::Waits => Ok(()),
            StartPoint::FromGenesis => self.start_server(),
        }
    }
}
