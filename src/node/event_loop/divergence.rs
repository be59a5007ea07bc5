//! Divergence, as far as it concerns the rest of the node: hashes are exchanged, output is released, and a
//! server that a majority has found wrong is taken out of service.

use crate::checkpoint::restore::StartPoint;
use crate::clients::connection_table::Conns;
use crate::divergence::agreement::{Dispute, Ledger, Question, Verdict};
use crate::divergence::messages::Exchange;
use crate::divergence::monitor::Checking;
use crate::divergence::quarantine::{Quarantine, StandIn};
use crate::divergence::recent_outputs::Recent;
use crate::divergence::report::{Difference, RECORDS_MAX, first_other, place};
use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::peers::frames::PeerFrame;
use crate::server::process::ServerHost;
use brolga_consensus::NodeId;
use brolga_os::sys;
use std::time::{Duration, Instant};

/// The others are told this often how far the server is, while it moves. With `vote` they are told at
/// once, because clients wait for it.
const TELL_INTERVAL: Duration = Duration::from_millis(10);
/// Replays from the genesis in one quarantine: one that is wrong again will be wrong for ever.
const REPLAYS_MAX: u32 = 1;
/// Quarantines of one node daemon that end in a replay; a server that needs more is not worth it.
const QUARANTINES_MAX: u32 = 3;

impl<H: ServerHost> Node<H> {
    /// Compares what is new, and tells the others.
    pub(crate) fn compare(&mut self, now: Instant) -> Result<(), NodeError> {
        let applied = self.output.applied().slot;
        let stirred = std::mem::take(&mut self.checking.stirred);
        if stirred || applied != self.checking.looked_at {
            self.checking.looked_at = applied;
            let history = self.output.history();
            self.checking.ledger.progressed(applied, history);
            self.learners.progressed(history);
            self.settle_doubts(now)?;
            self.rejoin_when_healed(now)?;
            self.move_gate()?;
        }
        self.tell(now);
        Ok(())
    }

    fn settle_doubts(&mut self, now: Instant) -> Result<(), NodeError> {
        loop {
            let history = self.output.history();
            if self.checking.ledger.find_dispute(history) {
                self.name_dispute();
            }
            let Some((dispute, verdict)) = self.checking.ledger.decide() else {
                break;
            };
            self.judged(&dispute, &verdict, now)?;
        }
        let history = self.output.history();
        while let Some(Question { to, low, high }) = self.checking.ledger.next_question(history) {
            send(
                &mut self.replica,
                &mut self.frame,
                to,
                &Exchange::Probe { low, high },
            );
        }
        Ok(())
    }

    /// Asks the other one what exactly it did.
    fn name_dispute(&mut self) {
        let Some(dispute) = self.checking.ledger.dispute() else {
            return;
        };
        let slot = dispute.slot;
        tracing::warn!(slot, with = dispute.with, "replicas differ");
        let confessed = |known: &Difference| known.minority == [dispute.with] && known.slot <= slot;
        if !dispute.exact && self.checking.difference.as_ref().is_some_and(confessed) {
            return; // It has started again since, and does not know any more.
        }
        let hashes = self.output.recent().hashes(slot, RECORDS_MAX);
        let question = Exchange::Inspect { slot, hashes };
        send(&mut self.replica, &mut self.frame, dispute.with, &question);
        self.checking.difference = Some(Difference::new(self.id, dispute));
        self.checking.computed_at = self.output.seen_at(slot);
    }

    fn judged(
        &mut self,
        dispute: &Dispute,
        verdict: &Verdict,
        now: Instant,
    ) -> Result<(), NodeError> {
        let judged_after_us = self.since_computed(now);
        let minority = match verdict {
            Verdict::Others(others) => others.clone(),
            Verdict::Minority => vec![self.id],
        };
        let difference = self
            .checking
            .difference
            .get_or_insert_with(|| Difference::new(self.id, dispute));
        difference.minority = minority;
        difference.judged_after_us = judged_after_us;
        tracing::error!("{difference}");
        match verdict {
            Verdict::Others(_) => Ok(()),
            Verdict::Minority => self.enter_quarantine(dispute.slot, now),
        }
    }

    fn since_computed(&self, now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(self.checking.computed_at?);
        u64::try_from(since.as_micros()).ok()
    }

    /// Lets output pass as far as it is known to be right, if that has to be known.
    fn move_gate(&mut self) -> Result<(), NodeError> {
        let checking = &mut self.checking;
        let ledger = &checking.ledger;
        let in_doubt = ledger.in_doubt();
        let limit = match checking.vote || in_doubt {
            true => ledger.agreed_upto(),
            false => u64::MAX,
        };
        if in_doubt && checking.quarantine.is_some() {
            // Nobody will ever want it.
            checking.gate.restart();
        }
        self.pass_gate(limit);
        self.take_server_news()
    }

    // ---- what is said ----

    fn tell(&mut self, now: Instant) {
        let applied = self.output.applied();
        let checking = &mut self.checking;
        checking.tell_at = None;
        if applied.slot == 0 || applied.slot == checking.told {
            return;
        }
        let due = checking.told_at.map(|at| at + TELL_INTERVAL);
        if let Some(due) = due.filter(|due| *due > now && !checking.vote) {
            checking.tell_at = Some(due);
            return;
        }
        checking.told = applied.slot;
        checking.told_at = Some(now);
        self.send_to_all(&Exchange::Report(applied));
    }

    /// Another node has something to say about its server or ours.
    pub(crate) fn compare_frame(&mut self, from: NodeId, bytes: &[u8], now: Instant) {
        let Some(message) = Exchange::decode(bytes) else {
            tracing::warn!(
                from,
                "a comparison makes no sense: is that node of another version?"
            );
            return;
        };
        let history = self.output.history();
        match message {
            Exchange::Report(hashes) => {
                self.checking.ledger.report(from, hashes, history);
                if !self.config.is_member(from) {
                    self.learners.report(from, hashes, history);
                }
                self.checking.stirred = true;
            }
            Exchange::Samples { low, high, hashes } => {
                let ledger = &mut self.checking.ledger;
                ledger.samples(from, (low, high), &hashes, history);
                self.checking.stirred = true;
            }
            Exchange::Probe { low, high } => {
                let hashes = Ledger::answer(low, high, history);
                let answer = Exchange::Samples { low, high, hashes };
                send(&mut self.replica, &mut self.frame, from, &answer);
            }
            Exchange::Inspect { slot, hashes } => {
                if let Some((index, record)) = first_other(slot, &hashes, self.records_of(slot)) {
                    let answer = Exchange::Finding {
                        slot,
                        index: index as u64,
                        record: record.unwrap_or_default(),
                    };
                    send(&mut self.replica, &mut self.frame, from, &answer);
                }
            }
            Exchange::Finding {
                slot,
                index,
                record,
            } => self.name(from, slot, index, &record, now),
            Exchange::Confession(difference) => match serde_json::from_slice(&difference) {
                Ok(difference) => self.confessed(from, difference),
                Err(error) => tracing::warn!(from, %error, "a confession makes no sense"),
            },
        }
        // Answers leave with the next turn of consensus.
        self.checking.stirred = true;
    }

    fn records_of(&self, slot: u64) -> &Recent {
        match &self.checking.evidence {
            Some((of, recent)) if *of == slot => recent,
            _ => self.output.recent(),
        }
    }

    /// The other one has told what it did.
    fn name(&mut self, from: NodeId, slot: u64, index: u64, theirs: &[u8], now: Instant) {
        let wanted =
            |known: &Difference| known.slot == slot && known.peer == from && known.place.is_none();
        if !self.checking.difference.as_ref().is_some_and(wanted) {
            return;
        }
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let ours = self.records_of(slot).record(slot, index);
        let place = place(&ours.unwrap_or_default(), theirs, &self.conns);
        let named_after_us = self.since_computed(now);
        let Some(difference) = &mut self.checking.difference else {
            return;
        };
        difference.place = place;
        difference.named_after_us = named_after_us;
        let text = difference.to_string();
        tracing::error!("{text}");
        if let Some(quarantine) = &mut self.checking.quarantine {
            quarantine.reason = text;
            if let Err(error) = quarantine.save(&self.config.data_dir) {
                tracing::warn!(%error, "the reason is not on disk");
            }
        }
        self.confess();
    }

    /// Tells the others where this replica was wrong, if it was.
    fn confess(&mut self) {
        let difference = self.checking.difference.as_ref();
        let Some(difference) = difference.filter(|it| it.minority == [self.id]) else {
            return;
        };
        // It is made of numbers and texts, which always can be written.
        let text = serde_json::to_vec(difference).unwrap_or_default();
        self.send_to_all(&Exchange::Confession(text));
    }

    fn confessed(&mut self, from: NodeId, difference: Difference) {
        let own = self.checking.difference.as_ref();
        let known = |own: &Difference| own.place.is_some() && !own.minority.is_empty();
        let better = own.is_none_or(|own| !known(own) || own.slot != difference.slot);
        if difference.minority == [from] && better {
            tracing::error!("{difference}");
            self.checking.difference = Some(difference);
        }
    }

    fn send_to_all(&mut self, what: &Exchange) {
        let linked = self.replica.peers().filter(|(_, up)| *up);
        let linked: Vec<NodeId> = linked.map(|(id, _)| id).collect();
        for peer in linked {
            send(&mut self.replica, &mut self.frame, peer, what);
        }
    }

    // ---- quarantine ----

    fn enter_quarantine(&mut self, slot: u64, now: Instant) -> Result<(), NodeError> {
        let before = self.checking.quarantine.take();
        let known = before.is_some();
        let replays = before.map_or(0, |before| before.replays);
        let again = replays < REPLAYS_MAX && self.checking.quarantines < QUARANTINES_MAX;
        let reason = self.checking.difference.as_ref().map(ToString::to_string);
        let quarantine = Quarantine {
            slot,
            reason: reason.unwrap_or_default(),
            replays: replays + u32::from(again),
        };
        quarantine.save(&self.config.data_dir)?;
        self.checking.quarantine = Some(quarantine);
        self.confess();
        self.checking.quarantines += u32::from(!known);
        if !again {
            tracing::error!(
                slot,
                "this replica's server is wrong and stays in quarantine"
            );
            return self.stand_aside(now);
        }
        tracing::error!(
            slot,
            "this replica's server is wrong: it starts from its genesis"
        );
        self.checking.evidence = Some((slot, self.output.take_recent()));
        self.stand_aside(now)?;
        self.start_from_nothing()
    }

    /// Serves nobody from the own server, and does not lead.
    pub(crate) fn stand_aside(&mut self, now: Instant) -> Result<(), NodeError> {
        self.replica.abstain(now, true);
        self.frontend.retire();
        self.sidecars.detach_all();
        self.life.offline();
        if self.checking.stand_in.is_none() && self.config.members.len() > 1 {
            match StandIn::start(&self.config) {
                Ok(stand_in) => self.checking.stand_in = Some(stand_in),
                Err(error) => tracing::warn!(%error, "clients are not served here"),
            }
        }
        Ok(())
    }

    /// Forgets all that followed from what the server did, and starts it in its genesis state.
    fn start_from_nothing(&mut self) -> Result<(), NodeError> {
        let id = sys::random_u64().map_err(NodeError::doing("cannot get random bytes"))?;
        self.frontend.start_over(id);
        self.conns = Conns::new();
        self.feeder.start_over();
        self.output.forget();
        self.trail.clear();
        let wrong_from = self.checking.quarantine.as_ref().map_or(1, |it| it.slot);
        // The checkpoints taken since are of a server that was wrong.
        if self.replica.first_slot() == 1 {
            return self.start_server();
        }
        match self.restore_server(true, wrong_from)? {
            StartPoint::Restored | StartPoint::Waits => Ok(()),
            StartPoint::FromGenesis => self.start_server(),
        }
    }

    fn rejoin_when_healed(&mut self, now: Instant) -> Result<(), NodeError> {
        let Checking {
            ledger, quarantine, ..
        } = &mut self.checking;
        let healed = |it: &Quarantine| !ledger.in_doubt() && ledger.agreed_upto() >= it.slot;
        if !quarantine.as_ref().is_some_and(healed) {
            return Ok(());
        }
        Quarantine::lift(&self.config.data_dir)?;
        tracing::warn!("this replica's server agrees with the others again: the quarantine ends");
        *quarantine = None;
        self.checking.stand_in = None;
        self.replica.abstain(now, false);
        Ok(())
    }
}

fn send(replica: &mut brolga_consensus::Replica, frame: &mut Vec<u8>, to: NodeId, what: &Exchange) {
    PeerFrame::Compare(&what.encode()).encode(frame);
    // What is lost with a link is said again when it is up.
    let _ = replica.send_app(to, frame);
}
