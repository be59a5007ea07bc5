//! Events of the replica: elections, links that come and go, and the frames of other nodes.

use crate::event_loop::node::Node;
use crate::peers::frames::PeerFrame;
use crate::peers::links::Leadership;
use crate::server::process::ServerHost;
use brolga_consensus::{Event, NodeId};
use std::time::Instant;

impl<H: ServerHost> Node<H> {
    /// Handles the events of the replica.
    pub(super) fn take_replica_events(&mut self, now: Instant) {
        let mut events = std::mem::take(&mut self.links.events);
        for event in events.drain(..) {
            match event {
                Event::Leader { ballot, leader, .. } => {
                    self.leader_changed(Leadership { ballot, leader }, now);
                }
                Event::PeerUp(peer) => self.peer_up(peer),
                Event::PeerDown(peer) => self.peer_down(peer, now),
                Event::App { from, bytes } => self.peer_frame(from, &bytes, now),
                Event::Refused { message } => {
                    tracing::warn!("{message}");
                    self.links.refused = Some(message);
                }
                Event::Damaged { message } => tracing::error!("{message}"),
                Event::Behind { first } => self.checkpoints.lacks(first),
                Event::Truncated { first } => {
                    self.hash_log.forget(first);
                    tracing::info!(first, "the log begins at this slot now");
                }
            }
        }
        // Keeps its memory for the next iteration; nothing was added meanwhile.
        self.links.events = events;
    }

    fn leader_changed(&mut self, leadership: Leadership, now: Instant) {
        if self.links.leadership == leadership {
            return;
        }
        tracing::info!(leader = leadership.leader, ballot = %leadership.ballot, "leadership");
        let led = self.links.leads();
        self.links.leadership = leadership;
        let leads = self.links.leads();
        if leads && !led {
            // Nobody has told this node so far who is alive: all clocks start now.
            self.clients.expiry.restart_clocks();
            self.count_lost_learners(now);
            self.links.restart_down_clocks(now);
        }
        self.ordering.leader_changed(led, leads, leadership.leader);
        self.token_ballot_changed();
        self.proxies.report_at = None;
    }

    fn peer_up(&mut self, peer: NodeId) {
        self.links.up(peer);
        self.introduce(peer);
        self.monitor.peer_up(peer);
        self.transfer.link(peer, true);
        self.tell_of_checkpoint(Some(peer));
        self.tell_activity(peer);
        if self.links.leader() == Some(peer) {
            self.ordering.leader_link.lost();
        }
    }

    fn peer_down(&mut self, peer: NodeId, now: Instant) {
        self.peers.compatibility.lost(peer);
        self.monitor.peer_down(peer);
        self.transfer.link(peer, false);
        self.checkpoints.peer_down(peer);
        self.links.down(peer, now);
        self.peers.learners.lost(peer);
        if self.links.leader() == Some(peer) {
            self.ordering.leader_link.lost();
        }
    }

    fn peer_frame(&mut self, from: NodeId, bytes: &[u8], now: Instant) {
        match PeerFrame::decode(bytes) {
            Some(PeerFrame::Forward(count, events)) => {
                if self.links.leads() {
                    self.ordering.proposer.push(count, events);
                } else {
                    // When the link is down by now, its other end sends again anyway.
                    self.links.send(from, &PeerFrame::NotLeader);
                }
            }
            Some(PeerFrame::NotLeader) => {
                if self.links.leader() == Some(from) {
                    self.ordering.leader_link.hold(now);
                }
            }
            Some(PeerFrame::Alive(numbers)) => self.proxies_alive(numbers, now),
            Some(PeerFrame::Checkpoint(slot)) => self.told_of_checkpoint(from, slot, now),
            Some(PeerFrame::Fetching(slot)) => self.told_of_fetch(from, slot, now),
            Some(PeerFrame::CheckpointToken(message, ballot)) => {
                self.token_message(from, (message, ballot), now);
            }
            Some(PeerFrame::Compare(message)) => self.divergence_message(from, message, now),
            Some(PeerFrame::Introduce(message)) => self.compatibility_message(from, message),
            None => tracing::warn!(
                from,
                "a frame of an unknown kind: is that node of another version?"
            ),
        }
    }
}
