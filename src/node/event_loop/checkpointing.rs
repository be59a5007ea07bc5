//! Checkpoints of this replica, as far as they concern the rest of the node: entries are held back until
//! the server is idle, the server is dumped, others are told, the log is truncated; and the server goes
//! back to a checkpoint.

use crate::checkpoint::node_state::{SERVER_DIR, SavedPort, Snapshot, TRAIL_SLOTS};
use crate::checkpoint::procedure::{Back, Checkpoints, Stage, Taken};
use crate::checkpoint::schedule::Word as TurnWord;
use crate::checkpoint::writer::{Dump, Gauge, Mouth, Word, told_in_log, write};
use crate::clients::connection_table::Conns;
use crate::clients::frontend::Published;
use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::peers::frames::PeerFrame;
use crate::server::process::ServerHost;
use crate::server::tape::TapeMap;
use brolga_checkpoint::{Checkpoint, CheckpointError, Position, Provenance};
use brolga_consensus::{Ballot, NodeId};
use std::sync::Arc;
use std::sync::mpsc::{TryRecvError, channel};
use std::time::Instant;
use tokio::sync::oneshot;

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
                self.say_of_turns(leader, TurnWord::Ask);
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
        self.say_to_all(TurnWord::Busy);
    }

    /// Nothing is taken any more, whatever came of it.
    pub(crate) fn checkpoint_over(&mut self) {
        self.say_to_all(TurnWord::Over);
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

    fn say_of_turns(&mut self, to: NodeId, word: TurnWord) -> bool {
        PeerFrame::Turn(word, self.leadership.ballot).encode(&mut self.frame);
        self.replica.send_app(to, &self.frame)
    }

    fn say_to_all(&mut self, word: TurnWord) {
        for other in self.living() {
            // One whose link is down is told when it is up.
            self.say_of_turns(other, word);
        }
    }

    fn say_whether_busy(&mut self, to: NodeId) {
        let word = match self.checkpoints.is_busy() {
            true => TurnWord::Busy,
            false => TurnWord::Idle,
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
    pub(crate) fn hear_of_turns(
        &mut self,
        from: NodeId,
        word: TurnWord,
        ballot: Ballot,
        now: Instant,
    ) {
        self.checkpoints.turns.hear(from, word, ballot);
        let current = ballot == self.leadership.ballot;
        match word {
            TurnWord::Ask if current && self.leadership.leader == Some(self.id) => {
                if self.turn_is_free() && self.say_of_turns(from, TurnWord::Take) {
                    self.checkpoints.turns.give(from);
                }
            }
            // It says so itself when that is over.
            TurnWord::Take if self.checkpoints.is_busy() => {}
            TurnWord::Take => {
                let leads = self.leadership.leader == Some(from);
                if current && leads && self.wants_checkpoint(now) {
                    self.begin_checkpoint();
                } else {
                    self.say_of_turns(from, TurnWord::Over);
                }
            }
            TurnWord::Ask | TurnWord::Busy | TurnWord::Idle | TurnWord::Over => {}
        }
    }

    /// Somebody wants a checkpoint: it is taken when it is this node's turn.
    pub(crate) fn wish_checkpoint(&mut self, reply: oneshot::Sender<Taken>) {
        if self.checkpoints.is_missing() {
            // Whoever asked may have given up waiting.
            let _ = reply.send(Err(
                "there is no server here: a checkpoint is fetched".into()
            ));
            return;
        }
        self.checkpoints.waiting.push(reply);
    }

    fn answer_wishes(&mut self, taken: &Taken) {
        for reply in self.checkpoints.waiting.drain(..) {
            // Whoever asked may have given up waiting.
            let _ = reply.send(taken.clone());
        }
    }

    /// Goes on with a checkpoint, if one was asked for.
    pub(crate) fn advance_checkpoint(&mut self, now: Instant) -> Result<(), NodeError> {
        match &mut self.checkpoints.stage {
            Stage::None => Ok(()),
            Stage::Settling => {
                self.settle(now);
                Ok(())
            }
            Stage::Writing {
                words_rx, dumped, ..
            } => match words_rx.try_recv() {
                Err(TryRecvError::Empty) => Ok(()),
                Ok(Word::Dumped) => {
                    *dumped = true;
                    self.feeder.allow(None);
                    Ok(())
                }
                Ok(Word::Done(done)) => self.written(done, now),
                Err(TryRecvError::Disconnected) => {
                    let died = CheckpointError::Failed("the thread that writes it died".into());
                    self.written(Err(died), now)
                }
            },
        }
    }

    /// Holds entries back until the server is idle; dumps it then.
    fn settle(&mut self, now: Instant) {
        if self.life.ended.is_some() {
            self.feeder.allow(None);
            self.checkpoints.stage = Stage::None;
            return self.settled(&Err("the server has ended".into()), now);
        }
        if !self.is_sound() && !self.checkpoints.is_wished() {
            self.checkpoints.stage = Stage::None;
            self.feeder.allow(None);
            return self.checkpoint_over();
        }
        let ready = self.is_running();
        let held = self.checking.gate.held_bytes() > 0 || self.checking.quarantine().is_some();
        if !ready || held {
            self.feeder.allow(None);
            return;
        }
        let applied = self.output.applied().slot;
        let Some(clock) = self.output.clock().filter(|_| applied == self.feeder.fed()) else {
            return self.feeder.allow(Some(0));
        };
        if !clock.idle {
            // It goes on with the next one only.
            return self.feeder.allow(Some(1));
        }
        self.feeder.allow(Some(0));
        // It says that it is idle a moment before it sleeps, and only there can it be brought back.
        let asleep = |tape: &TapeMap| tape.tape().server_is_asleep();
        if !self.tape.as_ref().is_some_and(asleep) {
            self.checkpoints.look_again = true;
            return;
        }
        let outcome = self.begin_dump(clock.deadline_ns);
        if let Err(error) = outcome {
            self.feeder.allow(None);
            self.checkpoints.stage = Stage::None;
            let taken = match error {
                CheckpointError::Exists(slot) => Ok(slot),
                error => Err(error.to_string()),
            };
            self.settled(&taken, now);
        }
    }

    fn begin_dump(&mut self, deadline_ns: u64) -> Result<(), CheckpointError> {
        let snapshot = self.snapshot(deadline_ns);
        let applied = snapshot.applied;
        let staged = self.checkpoints.directory.stage(applied.slot)?;
        let bytes = self.tape_bytes();
        let dumper = self.host.dumper(bytes)?;
        let pid = self.server_pid();
        let about = Provenance {
            cluster: self.config.cluster.0,
            node: self.id,
            position: Position {
                slot: applied.slot,
                output_hash: applied.output_hash,
                schedule_hash: applied.schedule_hash,
            },
            fingerprint: self.checkpoints.identity.clone(),
        };
        self.checkpoints.triggers.begun();
        tracing::info!(slot = applied.slot, "a checkpoint is taken");
        let (words_tx, words_rx) = channel();
        let mouth = Mouth {
            words_tx,
            waker: Arc::clone(&self.checkpoints.waker),
        };
        let gauge = Arc::new(Gauge::new(applied.slot));
        let seen = Arc::clone(&gauge);
        let compression = self.checkpoints.compression;
        let work = move || {
            let dump = Dump {
                pid,
                dumper,
                compression,
            };
            let done = write(staged, about, &snapshot, dump, (&mouth, &seen));
            mouth.say(Word::Done(done.map(|checkpoint| checkpoint.slot())));
        };
        std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(work)?;
        self.checkpoints.stage = Stage::Writing {
            words_rx,
            pid,
            dumped: false,
            gauge,
        };
        Ok(())
    }

    /// The first process of the server that runs.
    fn server_pid(&self) -> u32 {
        let pid = self
            .process
            .as_ref()
            .map_or(0, crate::server::process::Process::pid);
        pid.unsigned_abs()
    }

    fn snapshot(&self, deadline_ns: u64) -> Snapshot {
        let applied = self.output.applied();
        let port = |port: Published| SavedPort {
            listener: port.listener,
            address: port.address,
            datagrams: port.transport == brolga_tape::record::Transport::Datagram,
            chosen: port.chosen,
        };
        let oldest = applied.slot.saturating_sub(TRAIL_SLOTS);
        Snapshot {
            deadline_ns,
            seen: self.feeder.seen(),
            last_entry: self.feeder.last_entry(),
            time_ns: self.proposer.last_time().unwrap_or_default(),
            trail: self.output.history().between(oldest, applied.slot - 1),
            ports: self.frontend.known().into_iter().map(port).collect(),
            conns: self.conns.save(),
            retained: self.sidecars.save(),
            ..Snapshot::new(applied)
        }
    }

    /// Nothing is under way any more.
    fn settled(&mut self, taken: &Taken, now: Instant) {
        let triggers = &mut self.checkpoints.triggers;
        match taken {
            Ok(_) => triggers.succeeded(now),
            Err(error) if triggers.failed(error, now) => {
                tracing::warn!(
                    "no checkpoint was taken, the last one is as good as before: {error}"
                );
            }
            Err(error) => tracing::debug!("no checkpoint was taken, again: {error}"),
        }
        self.answer_wishes(taken);
        self.tell_of_checkpoint(None);
        self.checkpoint_over();
    }

    fn written(
        &mut self,
        done: Result<u64, CheckpointError>,
        now: Instant,
    ) -> Result<(), NodeError> {
        self.feeder.allow(None);
        let stage = std::mem::take(&mut self.checkpoints.stage);
        if let (Err(CheckpointError::Interrupted(why)), Stage::Writing { pid, .. }) = (&done, stage)
            && pid == self.server_pid()
        {
            self.replace_server(why)?;
        }
        let taken = match done {
            Ok(slot) => {
                tracing::info!(slot, "the checkpoint is whole");
                let keep = self.checkpoints.keep;
                if let Err(error) = self.checkpoints.directory.prune(keep) {
                    tracing::warn!(%error, "old checkpoints stay");
                }
                self.look_at_checkpoints()?;
                Ok(slot)
            }
            Err(error) => Err(error.to_string()),
        };
        self.settled(&taken, now);
        self.drop_log(now);
        Ok(())
    }

    /// Something was done to the server that other replicas' servers know nothing of: another takes its
    /// place, from the last checkpoint or from the start.
    fn replace_server(&mut self, why: &str) -> Result<(), NodeError> {
        tracing::warn!(%why, "the server is not fit to go on; another takes its place");
        match self.restore_server(false, u64::MAX)? {
            Back::Restored | Back::Waits => Ok(()),
            Back::FromGenesis => self.start_server(),
        }
    }

    fn look_at_checkpoints(&mut self) -> Result<(), NodeError> {
        let listing = self.checkpoints.directory.list()?;
        for (_, error) in &listing.damaged {
            tracing::error!("{error}");
        }
        self.checkpoints.slots = listing.whole.iter().map(Checkpoint::slot).collect();
        Ok(())
    }

    // ---- what others can do without ----

    /// Tells one node, or all, which checkpoint is the newest here.
    pub(crate) fn tell_of_checkpoint(&mut self, to: Option<NodeId>) {
        let slot = self.checkpoints.newest().unwrap_or_default();
        PeerFrame::Checkpoint(slot).encode(&mut self.frame);
        let all: Vec<NodeId> = self.replica.peers().map(|(id, _)| id).collect();
        for peer in all {
            if to.is_none_or(|to| to == peer) {
                // One whose link is down is told when it is up.
                let _ = self.replica.send_app(peer, &self.frame);
            }
        }
    }

    /// Another node has a checkpoint, or has none.
    pub(crate) fn told_of_checkpoint(&mut self, from: NodeId, slot: u64, now: Instant) {
        self.transfer.told(from, slot);
        self.checkpoints.retention.told(from, slot);
        self.drop_log(now);
    }

    /// Another node fetches one.
    pub(crate) fn told_of_fetch(&mut self, from: NodeId, slot: u64, now: Instant) {
        let logged = self.checkpoints.triggers.logged_bytes();
        let retention = &mut self.checkpoints.retention;
        retention.fetches(from, slot, logged, now);
        self.drop_log(now);
    }

    fn drop_log(&mut self, now: Instant) {
        let Checkpoints {
            retention,
            slots,
            triggers,
            ..
        } = &self.checkpoints;
        if let Some(upto) = retention.droppable(slots, triggers.logged_bytes(), now)
            && self.replica.truncate(upto)
        {
            tracing::info!(upto, "the log is dropped behind checkpoints");
        }
    }

    // ---- going back ----

    /// Brings the server back from the newest checkpoint that is whole and that the log continues.
    /// `at_start`: the node knows nothing yet and takes over what it knew then. Only checkpoints of
    /// slots before `limit` are looked at.
    pub(crate) fn restore_server(&mut self, at_start: bool, limit: u64) -> Result<Back, NodeError> {
        self.look_at_checkpoints()?;
        let listing = self.checkpoints.directory.list()?;
        for checkpoint in listing.whole {
            let slot = checkpoint.slot();
            if slot + 1 < self.replica.first_slot() || slot >= limit {
                continue;
            }
            let went = self.restore_from(&checkpoint, at_start);
            match went {
                Ok(()) => {
                    tracing::info!(slot, "the server is brought back from a checkpoint");
                    return Ok(Back::Restored);
                }
                Err(error) => {
                    tracing::error!(slot, "{error}; the next older checkpoint is tried");
                    self.refuse(&checkpoint, &error);
                }
            }
        }
        match self.replica.first_slot() {
            1 => Ok(Back::FromGenesis),
            first if self.config.others().next().is_some() => {
                self.go_without_server(first, limit)?;
                Ok(Back::Waits)
            }
            first => Err(NodeError::NoCheckpoint { first }),
        }
    }

    /// One that cannot be restored here is not fetched from others; one that is only damaged here may be.
    fn refuse(&mut self, checkpoint: &Checkpoint, error: &CheckpointError) {
        if !matches!(error, CheckpointError::Corrupt { .. })
            && let Ok(hash) = checkpoint.manifest.hash()
        {
            self.transfer.refuse(hash);
        }
    }

    /// Votes and learns, until a checkpoint was fetched.
    fn go_without_server(&mut self, first: u64, limit: u64) -> Result<(), NodeError> {
        tracing::error!(
            first,
            "the log begins at this slot and there is no usable checkpoint of the slots before: one is \
             fetched from another replica"
        );
        // What a server took that was found wrong is of no use to anybody.
        for checkpoint in self.checkpoints.directory.list()?.whole {
            if checkpoint.slot() >= limit {
                self.checkpoints.directory.remove(&checkpoint.path)?;
            }
        }
        self.look_at_checkpoints()?;
        self.end_server();
        self.checkpoints.missing = Some(first);
        self.replica.abstain(Instant::now(), true);
        self.frontend.retire();
        self.sidecars.detach_all();
        self.life.offline();
        Ok(())
    }

    fn restore_from(
        &mut self,
        checkpoint: &Checkpoint,
        at_start: bool,
    ) -> Result<(), CheckpointError> {
        let manifest = &checkpoint.manifest;
        let foreign = |what: &str| Err(CheckpointError::Failed(format!("it is of {what}")));
        if manifest.cluster != self.config.cluster.0 {
            return foreign("another cluster");
        }
        if let Some(objection) = self.checkpoints.identity.objection(&manifest.fingerprint) {
            return Err(CheckpointError::Failed(objection));
        }
        // One that was fetched just now was read back just now.
        if self.transfer.lore.fetched.take() != Some(checkpoint.slot()) {
            checkpoint.verify(&mut told_in_log(checkpoint.slot(), manifest.bytes()))?;
        }
        let snapshot = Snapshot::load(&checkpoint.path)?;
        let slot = snapshot.applied.slot;
        let bytes = self.tape_bytes();
        self.end_server();
        let image = checkpoint.path.join(SERVER_DIR);
        let (objects, started) = self.host.restore(&image, bytes)?;
        self.watch_restored(objects, started)
            .map_err(|error| CheckpointError::Failed(error.to_string()))?;
        self.life.restored_from = Some(slot);
        self.feeder.restart_after(slot);
        let now = Instant::now();
        let trail = &snapshot.trail;
        self.output
            .resume(snapshot.applied, snapshot.deadline_ns, trail, now);
        self.checking.restart();
        self.replica.install(now, slot);
        if at_start {
            self.take_over_knowledge(snapshot, now)?;
        } else {
            self.conns.server_goes_back(&snapshot.conns);
        }
        Ok(())
    }

    /// The node knows what it knew when the checkpoint was taken.
    fn take_over_knowledge(
        &mut self,
        snapshot: Snapshot,
        now: Instant,
    ) -> Result<(), CheckpointError> {
        self.conns = Conns::load(&snapshot.conns);
        self.sidecars.load(snapshot.retained);
        self.feeder.resume(snapshot.seen, snapshot.last_entry);
        if snapshot.time_ns > 0 {
            self.proposer.observe_time(snapshot.time_ns, now);
        }
        for port in &snapshot.ports {
            let published = Published {
                listener: port.listener,
                address: port.address,
                transport: port.transport(),
                chosen: port.chosen,
            };
            let opened = self.frontend.listen(published);
            opened.map_err(|error| CheckpointError::Failed(error.to_string()))?;
        }
        Ok(())
    }
}
