//! From requests of clients to slots of the log.
//!
//! * `leader_link`: the way of a follower's events to the leader;
//! * `proposer`: what a leader proposes, and when;
//! * `operator_signals`: signals that an operator sends to the server.

pub(crate) mod leader_link;
pub(crate) mod operator_signals;
pub(crate) mod proposer;

use crate::ordering::leader_link::LeaderLink;
use crate::ordering::operator_signals::OperatorSignals;
use crate::ordering::proposer::{Proposer, ProposerConfig};
use brolga_consensus::NodeId;

/// Requests on their way into the log.
#[derive(Debug)]
pub(crate) struct Ordering {
    pub(crate) leader_link: LeaderLink,
    pub(crate) proposer: Proposer,
    pub(crate) signals: OperatorSignals,
}

impl Ordering {
    pub(crate) fn new(config: ProposerConfig) -> Self {
        Self {
            leader_link: LeaderLink::default(),
            proposer: Proposer::new(config),
            signals: OperatorSignals::default(),
        }
    }

    /// Another ballot counts. `led` and `leads`: this node was the leader before, and is now.
    pub(crate) fn leader_changed(&mut self, led: bool, leads: bool, leader: Option<NodeId>) {
        if led || !leads {
            // Whatever was queued under an earlier ballot is sent again by its frontend.
            self.proposer.clear();
        }
        if !leads {
            self.signals.leader_changed(leader);
        }
        self.leader_link.lost();
    }
}
