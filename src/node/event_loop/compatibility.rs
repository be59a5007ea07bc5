//! Peer compatibility messages: sent and received over the links.

use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::peers::compatibility::CompatibilityMessage;
use crate::peers::frames::PeerFrame;
use crate::server::process::ServerHost;
use brolga_consensus::NodeId;

impl<H: ServerHost> Node<H> {
    /// Tells another node the fingerprint of this node's server.
    pub(super) fn introduce(&mut self, peer: NodeId) {
        let greeting = self.peers.compatibility.greeting();
        self.send_compatibility(peer, &greeting);
    }

    fn send_compatibility(&mut self, peer: NodeId, message: &CompatibilityMessage) {
        // Strings, numbers and lists of those can always be written.
        let Ok(bytes) = serde_json::to_vec(message) else {
            return;
        };
        // When the link is down by now, it begins again later.
        self.links.send(peer, &PeerFrame::Introduce(&bytes));
    }

    /// Another node has sent a message about compatibility.
    pub(super) fn compatibility_message(&mut self, from: NodeId, bytes: &[u8]) {
        let Ok(message) = serde_json::from_slice(bytes) else {
            tracing::warn!(from, "malformed compatibility message");
            return;
        };
        let compatibility = &mut self.peers.compatibility;
        if let Some(answer) = compatibility.receive(from, message, &self.config) {
            self.send_compatibility(from, &answer);
        }
    }

    /// The server is about to serve, perhaps for the first time: that is noted on disk, and told.
    pub(super) fn note_that_it_serves(&mut self) -> Result<(), NodeError> {
        let compatibility = &mut self.peers.compatibility;
        let noted = compatibility.note_serving(&self.config);
        let peers = noted.map_err(NodeError::doing("cannot note that this replica serves"))?;
        for peer in peers {
            self.introduce(peer);
        }
        Ok(())
    }
}
