//! Divergence monitor: compares the hashes of this server's output with the peers', decides how
//! much output is released, and puts a server that is found faulty into quarantine.
//!
//! Output leaves a node
//!
//! * at once, as long as no replica is known to differ (the default);
//! * when a majority has computed the same, up to the same slot (`vote`, and whenever replicas
//!   differ and no majority has settled yet which is right).
//!
//! A node whose server is in the minority goes into *quarantine*: its clients are disconnected, a
//! frontend that uses the other replicas takes its ports over, it does not lead. Its log is sound,
//! so it goes on to vote on slots. Its server starts from the genesis once: when it then agrees
//! with a majority at the slot where it was faulty, or later, the quarantine ends.
//!
//! The monitor keeps the state and decides; messages to be sent gather in [`Monitor::take_outbox`],
//! and the event loop does what concerns the rest of the node.

use crate::clients::connection_table::ConnectionTable;
use crate::divergence::agreement::{Agreement, Dispute, Question, Verdict};
use crate::divergence::fallback::FallbackFrontend;
use crate::divergence::messages::DivergenceMessage;
use crate::divergence::output_commit::OutputCommit;
use crate::divergence::quarantine::{Quarantine, QuarantineError};
use crate::divergence::report::{DivergenceReport, RECORDS_MAX, first_difference, locate};
use crate::server::hashes::SlotHashes;
use crate::server::output::Output;
use crate::server::recent_outputs::RecentOutputs;
use brolga_config::NodeConfig;
use brolga_consensus::NodeId;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the others are told how far the server is, while it moves. With `vote` they are told
/// at once, because clients wait for it.
const TELL_INTERVAL: Duration = Duration::from_millis(10);
/// Replays from the genesis in one quarantine: a server that is faulty again will always be.
const REPLAYS_MAX: u32 = 1;
/// Quarantines of one node daemon that end in a replay.
const QUARANTINES_MAX: u32 = 3;

/// The nodes that a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipient {
    One(NodeId),
    /// All nodes that are linked with this one.
    All,
}

/// The state of the comparison with the other replicas.
#[derive(Debug)]
pub(crate) struct Monitor {
    node: NodeId,
    data_dir: PathBuf,
    vote: bool,
    agreement: Agreement,
    pub(crate) output_commit: OutputCommit,
    quarantine: Option<Quarantine>,
    /// Quarantines of this daemon so far.
    quarantines: u32,
    fallback: Option<FallbackFrontend>,
    /// The last report, kept for status queries.
    report: Option<DivergenceReport>,
    /// The records of a server that was faulty, at that slot.
    evidence: Option<(u64, RecentOutputs)>,
    /// The time when the own server had computed the slot in `report`.
    computed_at: Option<Instant>,
    /// The slot that the others were told of last.
    told: u64,
    told_at: Option<Instant>,
    tell_at: Option<Instant>,
    /// The slot that was compared last.
    compared: u64,
    /// A message has come since, or a link.
    stirred: bool,
    outbox: Vec<(Recipient, DivergenceMessage)>,
}

impl Monitor {
    pub(crate) fn new(config: &NodeConfig, quarantine: Option<Quarantine>) -> Self {
        let agreement = match config.learner {
            None => Agreement::new(config.others()),
            Some(_) => Agreement::of_learner(config.others()),
        };
        Self {
            node: config.node,
            data_dir: config.data_dir.clone(),
            vote: config.vote,
            agreement,
            output_commit: OutputCommit::new(!config.vote),
            quarantine,
            quarantines: 0,
            fallback: None,
            report: None,
            evidence: None,
            computed_at: None,
            told: 0,
            told_at: None,
            tell_at: None,
            compared: 0,
            stirred: false,
            outbox: Vec::new(),
        }
    }

    /// The server starts from slot 1 again.
    pub(crate) fn restart(&mut self) {
        self.agreement.restart();
        self.output_commit.restart();
        self.compared = 0;
    }

    pub(crate) fn peer_up(&mut self, peer: NodeId) {
        self.agreement.peer_up(peer);
        self.told = 0;
        self.stirred = true;
    }

    pub(crate) fn peer_down(&mut self, peer: NodeId) {
        self.agreement.peer_down(peer);
    }

    pub(crate) fn quarantine(&self) -> Option<&Quarantine> {
        self.quarantine.as_ref()
    }

    pub(crate) fn report(&self) -> Option<&DivergenceReport> {
        self.report.as_ref()
    }

    /// Says why output is held back, if the user should know.
    pub(crate) fn waiting(&self) -> Option<String> {
        let dispute = self.agreement.dispute()?;
        Some(format!(
            "replicas differ from slot {} on and no majority says who is right: answers are held back",
            dispute.slot
        ))
    }

    /// The time to go on although nothing has happened.
    pub(crate) fn wakeup(&self, now: Instant) -> Option<Instant> {
        if self.stirred {
            Some(now)
        } else {
            self.tell_at
        }
    }

    /// Takes the messages that are to be sent, in order.
    pub(crate) fn take_outbox(&mut self) -> Vec<(Recipient, DivergenceMessage)> {
        std::mem::take(&mut self.outbox)
    }

    fn send(&mut self, to: NodeId, message: DivergenceMessage) {
        self.outbox.push((Recipient::One(to), message));
    }

    // ---- comparing ----

    /// Compares what the own server has applied since the last call. Returns false when nothing is
    /// new.
    pub(crate) fn progressed(&mut self, output: &Output) -> bool {
        let applied = output.applied().slot;
        let stirred = std::mem::take(&mut self.stirred);
        if !stirred && applied == self.compared {
            return false;
        }
        self.compared = applied;
        self.agreement.progressed(applied, output.history());
        true
    }

    /// Goes on with disputes: reports them, counts votes, asks questions. Returns the slot at which
    /// a majority has found the own server faulty; then it is to be called again.
    pub(crate) fn settle(&mut self, output: &Output, now: Instant) -> Option<u64> {
        let history = output.history();
        loop {
            if self.agreement.find_dispute(history) {
                self.begin_report(output);
            }
            let Some((dispute, verdict)) = self.agreement.decide() else {
                break;
            };
            self.judged(&dispute, &verdict, now);
            if verdict == Verdict::SelfFaulty {
                return Some(dispute.slot);
            }
        }
        while let Some(Question { to, low, high }) = self.agreement.next_question(history) {
            self.send(to, DivergenceMessage::Probe { low, high });
        }
        None
    }

    /// Reports a dispute, and asks the other replica what exactly it did.
    fn begin_report(&mut self, output: &Output) {
        let Some(dispute) = self.agreement.dispute() else {
            return;
        };
        let (slot, with) = (dispute.slot, dispute.with);
        tracing::warn!(slot, with, "replicas differ");
        let reported = |known: &DivergenceReport| known.minority == [with] && known.slot <= slot;
        if !dispute.exact && self.report.as_ref().is_some_and(reported) {
            return; // It has started again since, and does not know any more.
        }
        self.report = Some(DivergenceReport::new(self.node, dispute));
        self.computed_at = output.seen_at(slot);
        let hashes = output.recent().hashes(slot, RECORDS_MAX);
        self.send(with, DivergenceMessage::Inspect { slot, hashes });
    }

    fn judged(&mut self, dispute: &Dispute, verdict: &Verdict, now: Instant) {
        let judged_after_us = self.since_computed(now);
        let node = self.node;
        let report = self
            .report
            .get_or_insert_with(|| DivergenceReport::new(node, dispute));
        report.minority = match verdict {
            Verdict::OthersFaulty(others) => others.clone(),
            Verdict::SelfFaulty => vec![node],
        };
        report.judged_after_us = judged_after_us;
        tracing::error!("{report}");
    }

    fn since_computed(&self, now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(self.computed_at?);
        u64::try_from(since.as_micros()).ok()
    }

    /// The slot up to which output is released.
    pub(crate) fn output_limit(&mut self) -> u64 {
        let in_doubt = self.agreement.in_doubt();
        if in_doubt && self.quarantine.is_some() {
            // Output of a faulty server is never released.
            self.output_commit.restart();
        }
        match self.vote || in_doubt {
            true => self.agreement.agreed_upto(),
            false => u64::MAX,
        }
    }

    // ---- messages ----

    /// Tells the others how far the own server is, when it is time.
    pub(crate) fn tell(&mut self, applied: SlotHashes, now: Instant) {
        self.tell_at = None;
        if applied.slot == 0 || applied.slot == self.told {
            return;
        }
        let due = self.told_at.map(|at| at + TELL_INTERVAL);
        if let Some(due) = due.filter(|due| *due > now && !self.vote) {
            self.tell_at = Some(due);
            return;
        }
        self.told = applied.slot;
        self.told_at = Some(now);
        let message = DivergenceMessage::Applied(applied);
        self.outbox.push((Recipient::All, message));
    }

    /// Takes in a message of another node. Returns the hashes that it has told of its own server.
    pub(crate) fn receive(
        &mut self,
        from: NodeId,
        bytes: &[u8],
        (output, conns): (&Output, &ConnectionTable),
        now: Instant,
    ) -> Option<SlotHashes> {
        let Some(message) = DivergenceMessage::decode(bytes) else {
            tracing::warn!(
                from,
                "malformed divergence message: is that node of another version?"
            );
            return None;
        };
        // Answers leave with the next iteration.
        self.stirred = true;
        let history = output.history();
        match message {
            DivergenceMessage::Applied(hashes) => {
                self.agreement.report(from, hashes, history);
                return Some(hashes);
            }
            DivergenceMessage::Samples { low, high, hashes } => {
                self.agreement.samples(from, (low, high), &hashes, history);
            }
            DivergenceMessage::Probe { low, high } => {
                let hashes = Agreement::answer(low, high, history);
                self.send(from, DivergenceMessage::Samples { low, high, hashes });
            }
            DivergenceMessage::Inspect { slot, hashes } => {
                let records = self.records_of(slot, output);
                if let Some((index, record)) = first_difference(slot, &hashes, records) {
                    let answer = DivergenceMessage::Finding {
                        slot,
                        index: index as u64,
                        record: record.unwrap_or_default(),
                    };
                    self.send(from, answer);
                }
            }
            DivergenceMessage::Finding {
                slot,
                index,
                record,
            } => self.found(from, (slot, index, &record), (output, conns), now),
            DivergenceMessage::Report(report) => match serde_json::from_slice(&report) {
                Ok(report) => self.reported(from, report),
                Err(error) => tracing::warn!(from, %error, "malformed divergence report"),
            },
        }
        None
    }

    fn records_of<'a>(&'a self, slot: u64, output: &'a Output) -> &'a RecentOutputs {
        match &self.evidence {
            Some((of, recent)) if *of == slot => recent,
            _ => output.recent(),
        }
    }

    /// The other replica has told what it did.
    fn found(
        &mut self,
        from: NodeId,
        (slot, index, theirs): (u64, u64, &[u8]),
        (output, conns): (&Output, &ConnectionTable),
        now: Instant,
    ) {
        let wanted = |known: &DivergenceReport| {
            known.slot == slot && known.peer == from && known.place.is_none()
        };
        if !self.report.as_ref().is_some_and(wanted) {
            return;
        }
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let ours = self.records_of(slot, output).record(slot, index);
        let location = locate(&ours.unwrap_or_default(), theirs, conns);
        let named_after_us = self.since_computed(now);
        let Some(report) = &mut self.report else {
            return;
        };
        report.place = location;
        report.named_after_us = named_after_us;
        let text = report.to_string();
        tracing::error!("{text}");
        if let Some(quarantine) = &mut self.quarantine {
            quarantine.reason = text;
            if let Err(error) = quarantine.save(&self.data_dir) {
                tracing::warn!(%error, "the reason of the quarantine could not be saved");
            }
        }
        self.send_report();
    }

    /// Sends the others the report on this replica, if it is the faulty one.
    fn send_report(&mut self) {
        let report = self.report.as_ref();
        let Some(report) = report.filter(|it| it.minority == [self.node]) else {
            return;
        };
        // It is made of numbers and texts, which always can be written.
        let text = serde_json::to_vec(report).unwrap_or_default();
        let message = DivergenceMessage::Report(text);
        self.outbox.push((Recipient::All, message));
    }

    /// A replica has sent the report on itself.
    fn reported(&mut self, from: NodeId, report: DivergenceReport) {
        let own = self.report.as_ref();
        let known = |own: &DivergenceReport| own.place.is_some() && !own.minority.is_empty();
        let better = own.is_none_or(|own| !known(own) || own.slot != report.slot);
        if report.minority == [from] && better {
            tracing::error!("{report}");
            self.report = Some(report);
        }
    }

    // ---- quarantine ----

    /// Puts the own server, which is faulty at `slot`, into quarantine. Returns true when it is to
    /// start again from its genesis.
    pub(crate) fn enter_quarantine(&mut self, slot: u64) -> Result<bool, QuarantineError> {
        let before = self.quarantine.take();
        let known = before.is_some();
        let replays = before.map_or(0, |before| before.replays);
        let again = replays < REPLAYS_MAX && self.quarantines < QUARANTINES_MAX;
        let reason = self.report.as_ref().map(ToString::to_string);
        let quarantine = Quarantine {
            slot,
            reason: reason.unwrap_or_default(),
            replays: replays + u32::from(again),
        };
        quarantine.save(&self.data_dir)?;
        self.quarantine = Some(quarantine);
        self.send_report();
        self.quarantines += u32::from(!known);
        match again {
            true => tracing::error!(
                slot,
                "this replica's server is faulty: it starts from its genesis"
            ),
            false => tracing::error!(
                slot,
                "this replica's server is faulty and stays in quarantine"
            ),
        }
        Ok(again)
    }

    /// Keeps what the faulty server did at `slot`, to answer questions about it.
    pub(crate) fn keep_evidence(&mut self, slot: u64, recent: RecentOutputs) {
        self.evidence = Some((slot, recent));
    }

    /// Serves clients from the other replicas, if there are any.
    pub(crate) fn start_fallback(&mut self, config: &NodeConfig) {
        if self.fallback.is_some() || config.members.len() <= 1 {
            return;
        }
        match FallbackFrontend::start(config) {
            Ok(fallback) => self.fallback = Some(fallback),
            Err(error) => tracing::warn!(%error, "clients are not served here"),
        }
    }

    /// Ends the quarantine when the server agrees again. Returns true when it has ended.
    pub(crate) fn leave_quarantine_when_healed(&mut self) -> Result<bool, QuarantineError> {
        let agreement = &self.agreement;
        let healed = |it: &Quarantine| !agreement.in_doubt() && agreement.agreed_upto() >= it.slot;
        if !self.quarantine.as_ref().is_some_and(healed) {
            return Ok(false);
        }
        Quarantine::lift(&self.data_dir)?;
        tracing::warn!("this replica's server agrees with the others again: the quarantine ends");
        self.quarantine = None;
        self.fallback = None;
        Ok(true)
    }
}
