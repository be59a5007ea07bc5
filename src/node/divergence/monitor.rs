//! Always checking itself: compares its server with those of the other replicas as they go, holds
//! output back while it is not known to be right, and takes a server that is wrong out of service.
//!
//! Output leaves a node
//!
//! * at once, as long as nobody is known to differ (the default);
//! * when a majority has computed the same, up to the same slot (`vote`, and whenever replicas differ
//!   and no majority has settled yet who is right).
//!
//! A node whose server is in the minority goes into *quarantine*: its clients are disconnected, a
//! frontend that uses the other replicas takes its ports over, it does not lead. Its log is sound, so it
//! goes on to vote on slots. Its server starts from the genesis once: when it then agrees with a majority
//! at the slot where it was wrong, or later, the quarantine ends.

use crate::divergence::agreement::Ledger;
use crate::divergence::output_commit::Gate;
use crate::divergence::quarantine::{Quarantine, StandIn};
use crate::divergence::recent_outputs::Recent;
use crate::divergence::report::Difference;
use brolga_config::NodeConfig;
use brolga_consensus::NodeId;
use std::time::Instant;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Checking {
    pub(crate) vote: bool,
    pub(crate) ledger: Ledger,
    pub(crate) gate: Gate,
    pub(crate) quarantine: Option<Quarantine>,
    /// Quarantines of this daemon so far.
    pub(crate) quarantines: u32,
    pub(crate) stand_in: Option<StandIn>,
    /// The last one, kept for whoever asks.
    pub(crate) difference: Option<Difference>,
    /// What a server that is wrong did at that slot.
    pub(crate) evidence: Option<(u64, Recent)>,
    /// When the own server had computed the slot in `difference`.
    pub(crate) computed_at: Option<Instant>,
    /// The slot that the others were told of last.
    pub(crate) told: u64,
    pub(crate) told_at: Option<Instant>,
    pub(crate) tell_at: Option<Instant>,
    /// The slot that was looked at last, and whether something was heard since.
    pub(crate) looked_at: u64,
    pub(crate) stirred: bool,
}

impl Checking {
    pub(crate) fn new(config: &NodeConfig, quarantine: Option<Quarantine>) -> Self {
        let ledger = match config.learner {
            None => Ledger::new(config.others()),
            Some(_) => Ledger::of_learner(config.others()),
        };
        Self {
            vote: config.vote,
            ledger,
            gate: Gate::new(!config.vote),
            quarantine,
            quarantines: 0,
            stand_in: None,
            difference: None,
            evidence: None,
            computed_at: None,
            told: 0,
            told_at: None,
            tell_at: None,
            looked_at: 0,
            stirred: false,
        }
    }

    /// The server starts from slot 1 again.
    pub(crate) fn restart(&mut self) {
        self.ledger.restart();
        self.gate.restart();
        self.looked_at = 0;
    }

    pub(crate) fn peer_up(&mut self, peer: NodeId) {
        self.ledger.peer_up(peer);
        self.told = 0;
        self.stirred = true;
    }

    pub(crate) fn peer_down(&mut self, peer: NodeId) {
        self.ledger.peer_down(peer);
    }

    pub(crate) fn quarantine(&self) -> Option<&Quarantine> {
        self.quarantine.as_ref()
    }

    pub(crate) fn difference(&self) -> Option<&Difference> {
        self.difference.as_ref()
    }

    /// Why output is held back, if it is for a reason that the user should know.
    pub(crate) fn waiting(&self) -> Option<String> {
        let dispute = self.ledger.dispute()?;
        Some(format!(
            "replicas differ from slot {} on and no majority says who is right: answers are held back",
            dispute.slot
        ))
    }

    /// When it wants [`Node::compare`] although nothing has happened.
    pub(crate) fn wakeup(&self, now: Instant) -> Option<Instant> {
        if self.stirred {
            Some(now)
        } else {
            self.tell_at
        }
    }
}
