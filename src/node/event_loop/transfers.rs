//! Checkpoints that go from one node to another, as far as they concern the rest of the node.

use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::peers::frames::PeerFrame;
use crate::server::process::ServerHost;
use std::time::Instant;

impl<H: ServerHost> Node<H> {
    /// Serves the nodes that fetch a checkpoint here.
    pub(crate) fn serve_fetchers(&mut self) {
        for stream in self.links.replica.take_upgraded_streams() {
            self.transfer.serve(stream);
        }
    }

    /// Goes on with a fetch, if one is needed. Returns true when a checkpoint was fetched and the
    /// node is to restart with it.
    pub(crate) fn advance_transfer(&mut self, now: Instant) -> Result<bool, NodeError> {
        self.transfer.apply_result(now);
        let newest = self.checkpoints.newest();
        if let Some(slot) = self.transfer.hold_to_tell(newest, now) {
            self.tell_hold(slot);
        }
        if self.transfer.has_fetched() {
            return Ok(true);
        }
        let lacking = self.checkpoints.lacking(self.links.replica.chosen_upto());
        self.transfer.fetch(lacking, self.links.leader(), now)?;
        Ok(false)
    }

    /// Has the others keep the log behind `slot`; 0: none any more.
    fn tell_hold(&mut self, slot: u64) {
        for member in &self.config.members {
            if member.id != self.config.node {
                // A node whose link is down is told later.
                self.links.send(member.id, &PeerFrame::Fetching(slot));
            }
        }
    }
}
