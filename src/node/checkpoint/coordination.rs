//! Checkpoints that this replica takes in its turn: [`crate::checkpoint::schedule`] says when one
//! is due and
//! who may take it, this carries it out.

use crate::checkpoint::schedule::Word;
use crate::event_loop::node::Node;
use crate::peers::frames::PeerFrame;
use crate::server::process::ServerHost;
use brolga_consensus::{Ballot, NodeId};
use std::time::Instant;

impl<H: ServerHost> Node<H> {
    /// Begins a checkpoint if one is wished for or due, and it is this node's turn.
    pub(crate) fn consider_checkpoint(&mut self, now: Instant) {
        if self.checkpoints.is_busy() {
            return;
        }
        if !self.wants_checkpoint(now) {
            self.checkpoints.triggers.forget_question();
            return;
        }
        let wished = self.checkpoints.is_wished();
        let known = self.leadership.leader;
        let reachable = known.filter(|leader| !self.absent.contains_key(leader));
        if known == Some(self.id) {
            let overdue = self.checkpoints.triggers.is_overdue(now);
            if self.turn_is_free() && (wished || overdue || self.backups_are_ahead()) {
                self.begin_checkpoint();
            }
        } else if let Some(leader) = reachable {
            if self.checkpoints.triggers.asks(now) {
                self.say_of_turns(leader, Word::Ask);
            }
        } else if wished {
            self.begin_checkpoint();
        }
    }

    fn wants_checkpoint(&self, now: Instant) -> bool {
        let due = || self.checkpoints.triggers.is_due(now) && self.is_sound();
        self.checkpoints.is_wished() || due()
    }

    /// Its server is worth a checkpoint.
    pub(crate) fn is_sound(&self) -> bool {
        self.is_running() && self.checking.quarantine().is_none()
    }

    fn begin_checkpoint(&mut self) {
        self.checkpoints.begin();
        self.say_to_all(Word::Busy);
    }

    /// Nothing is taken any more, whatever came of it.
    pub(crate) fn checkpoint_over(&mut self) {
        self.say_to_all(Word::Over);
    }

    fn living(&self) -> Vec<NodeId> {
        let others = self.config.others();
        others.filter(|id| !self.absent.contains_key(id)).collect()
    }

    fn turn_is_free(&self) -> bool {
        let ballot = self.leadership.ballot;
        !self.checkpoints.is_busy() && self.checkpoints.turns.are_free(&self.living(), ballot)
    }

    fn backups_are_ahead(&self) -> bool {
        let living = self.living();
        living.iter().all(|id| self.checkpoints.is_ahead(*id))
    }

    // ---- words between nodes ----

    fn say_of_turns(&mut self, to: NodeId, word: Word) -> bool {
        PeerFrame::Turn(word, self.leadership.ballot).encode(&mut self.frame);
        self.replica.send_app(to, &self.frame)
    }

    fn say_to_all(&mut self, word: Word) {
        for other in self.living() {
            // One whose link is down is told when it is up.
            self.say_of_turns(other, word);
        }
    }

    fn say_whether_busy(&mut self, to: NodeId) {
        let word = match self.checkpoints.is_busy() {
            true => Word::Busy,
            false => Word::Idle,
        };
        // As above.
        self.say_of_turns(to, word);
    }

    /// There is a link to a node.
    pub(crate) fn greet_about_turns(&mut self, peer: NodeId) {
        self.say_whether_busy(peer);
    }

    /// Another ballot counts.
    pub(crate) fn turns_start_over(&mut self) {
        self.checkpoints.turns.start_over();
        self.checkpoints.triggers.forget_question();
        if let Some(leader) = self.leadership.leader.filter(|leader| *leader != self.id) {
            self.say_whether_busy(leader);
        }
    }

    /// A node says something about turns.
    pub(crate) fn hear_of_turns(&mut self, from: NodeId, word: Word, ballot: Ballot, now: Instant) {
        self.checkpoints.turns.hear(from, word, ballot);
        let current = ballot == self.leadership.ballot;
        match word {
            Word::Ask if current && self.leadership.leader == Some(self.id) => {
                if self.turn_is_free() && self.say_of_turns(from, Word::Take) {
                    self.checkpoints.turns.give(from);
                }
            }
            // It says so itself when that is over.
            Word::Take if self.checkpoints.is_busy() => {}
            Word::Take => {
                let leads = self.leadership.leader == Some(from);
                if current && leads && self.wants_checkpoint(now) {
                    self.begin_checkpoint();
                } else {
                    self.say_of_turns(from, Word::Over);
                }
            }
            Word::Ask | Word::Busy | Word::Idle | Word::Over => {}
        }
    }
}
