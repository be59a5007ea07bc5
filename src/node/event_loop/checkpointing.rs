//! Checkpoints, as far as they concern the rest of the node: the server gets no entries until it is
//! idle, it is dumped, the others are told, the log is truncated; and the server goes back to a
//! checkpoint.

use crate::checkpoint::coordination::{ClusterView, TokenMessage};
use crate::checkpoint::node_state::{HASHES_KEPT, NodeState, SERVER_DIR, SavedPort};
use crate::checkpoint::procedure::{
    CheckpointResult, Dumped, NotTaken, Outgoing, ServerView, Step,
};
use crate::checkpoint::restore::{StartPoint, load};
use crate::checkpoint::writer::Message;
use crate::clients::connection_table::ConnectionTable;
use crate::clients::listeners::Published;
use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::peers::frames::PeerFrame;
use crate::server::process::{Process, ServerHost};
use crate::server::tape::ServerTape;
use brolga_checkpoint::{Checkpoint, CheckpointError};
use brolga_consensus::{Ballot, NodeId};
use brolga_tape::record::Transport;
use std::time::Instant;

impl<H: ServerHost> Node<H> {
    // ---- when ----

    /// Begins a checkpoint if one is wanted and this node may take it.
    pub(crate) fn consider_checkpoint(&mut self, now: Instant) {
        let sound = self.is_sound();
        if self.checkpoints.is_wanted(sound, now) {
            let cluster = self.cluster_view();
            let messages = self.checkpoints.consider(&cluster, now);
            self.send_token_messages(messages);
        }
    }

    /// The server is worth a checkpoint.
    fn is_sound(&self) -> bool {
        self.server.is_running() && self.monitor.quarantine().is_none()
    }

    fn cluster_view(&self) -> ClusterView {
        let others = self.config.others();
        ClusterView {
            node: self.config.node,
            leader: self.links.leader(),
            ballot: self.links.leadership.ballot,
            connected: others.filter(|id| self.links.is_reachable(*id)).collect(),
        }
    }

    fn send_token_messages(&mut self, messages: Outgoing) {
        for (to, message) in messages {
            let frame = PeerFrame::CheckpointToken(message, self.links.leadership.ballot);
            if !self.links.send(to, &frame) {
                self.checkpoints.not_sent(to, message);
            }
        }
    }

    /// Tells a node whether a checkpoint is being taken here.
    pub(crate) fn tell_activity(&mut self, to: NodeId) {
        let activity = self.checkpoints.activity();
        self.send_token_messages(vec![(to, activity)]);
    }

    /// Another ballot counts: its leader is told whether a checkpoint is being taken here.
    pub(crate) fn token_ballot_changed(&mut self) {
        self.checkpoints.ballot_changed();
        if let Some(leader) = self
            .links
            .leader()
            .filter(|leader| *leader != self.config.node)
        {
            self.tell_activity(leader);
        }
    }

    /// Another node has sent a message about the checkpoint token.
    pub(crate) fn token_message(
        &mut self,
        from: NodeId,
        message: (TokenMessage, Ballot),
        now: Instant,
    ) {
        let (sound, cluster) = (self.is_sound(), self.cluster_view());
        let messages = self
            .checkpoints
            .receive(from, message, &cluster, sound, now);
        self.send_token_messages(messages);
    }

    /// No checkpoint is being taken any more, whatever came of it.
    fn release_token(&mut self) {
        let connected = self.cluster_view().connected.into_iter();
        let release = |id| (id, TokenMessage::Release);
        self.send_token_messages(connected.map(release).collect());
    }

    // ---- how ----

    /// Goes on with the checkpoint that is being taken, if one is.
    pub(crate) fn advance_checkpoint(&mut self, now: Instant) -> Result<(), NodeError> {
        if self.checkpoints.is_settling() {
            self.settle(now);
            return Ok(());
        }
        match self.checkpoints.poll_writer() {
            None => Ok(()),
            Some(Message::Dumped) => {
                self.server.feeder.allow(None);
                Ok(())
            }
            Some(Message::Done(done)) => self.written(done, now),
        }
    }

    /// Holds entries back until the server is idle; dumps it then.
    fn settle(&mut self, now: Instant) {
        let server = self.server_view();
        match self.checkpoints.settle(server) {
            Step::Feed(entries) => self.server.feeder.allow(entries),
            Step::Abandon => {
                self.server.feeder.allow(None);
                self.release_token();
            }
            Step::Fail(why) => {
                self.server.feeder.allow(None);
                self.conclude(&Err(why), now);
            }
            Step::Dump => {
                self.server.feeder.allow(Some(0));
                let Err(error) = self.begin_dump() else {
                    return;
                };
                self.server.feeder.allow(None);
                self.checkpoints.end();
                let result = match error {
                    CheckpointError::Exists(slot) => Ok(slot),
                    error => Err(NotTaken::Failed(error.to_string())),
                };
                self.conclude(&result, now);
            }
        }
    }

    fn server_view(&self) -> ServerView {
        let applied = self.server.output.applied().slot;
        let clock = self.server.output.clock();
        let asleep = |tape: &ServerTape| tape.tape().server_is_asleep();
        ServerView {
            ended: self.server.lifecycle.ended.is_some(),
            running: self.server.is_running(),
            quarantined: self.monitor.quarantine().is_some(),
            output_held: self.monitor.output_commit.held_bytes() > 0,
            applied_all: clock.is_some() && applied == self.server.feeder.fed(),
            idle: clock.is_some_and(|clock| clock.idle),
            asleep: self.server.tape.as_ref().is_some_and(asleep),
        }
    }

    fn begin_dump(&mut self) -> Result<(), CheckpointError> {
        let deadline_ns = self
            .server
            .output
            .clock()
            .map_or(0, |clock| clock.deadline_ns);
        let state = self.node_state(deadline_ns);
        let bytes = self.server.tape_bytes();
        let server = Dumped {
            cluster: self.config.cluster.0,
            node: self.config.node,
            pid: self.server_pid(),
            dumper: || self.server.host.dumper(bytes),
        };
        self.checkpoints.dump(state, server)
    }

    /// The first process of the server that runs.
    fn server_pid(&self) -> u32 {
        self.server
            .process
            .as_ref()
            .map_or(0, Process::pid)
            .unsigned_abs()
    }

    fn node_state(&self, deadline_ns: u64) -> NodeState {
        let applied = self.server.output.applied();
        let port = |port: Published| SavedPort {
            listener: port.listener,
            address: port.address,
            datagrams: port.transport == Transport::Datagram,
            chosen: port.chosen,
        };
        let oldest = applied.slot.saturating_sub(HASHES_KEPT);
        NodeState {
            deadline_ns,
            seen: self.server.feeder.seen(),
            last_entry: self.server.feeder.last_entry(),
            time_ns: self.ordering.proposer.last_time().unwrap_or_default(),
            hashes: self
                .server
                .output
                .history()
                .between(oldest, applied.slot - 1),
            ports: self
                .clients
                .frontend
                .known()
                .into_iter()
                .map(port)
                .collect(),
            conns: self.clients.conns.save(),
            unacked_output: self.proxies.server.save(),
            ..NodeState::new(applied)
        }
    }

    /// The writer has ended.
    fn written(
        &mut self,
        done: Result<u64, CheckpointError>,
        now: Instant,
    ) -> Result<(), NodeError> {
        self.server.feeder.allow(None);
        let dumped = self.checkpoints.end();
        if let Err(CheckpointError::Interrupted(why)) = &done
            && dumped == Some(self.server_pid())
        {
            self.replace_server(why)?;
        }
        let result = match done {
            Ok(slot) => {
                self.checkpoints.completed(slot)?;
                Ok(slot)
            }
            Err(error) => Err(NotTaken::Failed(error.to_string())),
        };
        self.conclude(&result, now);
        self.truncate_log(now);
        Ok(())
    }

    /// The interrupted dump has changed the server in a way that other replicas' servers know
    /// nothing of: another takes its place, from the last checkpoint or from the start.
    fn replace_server(&mut self, why: &str) -> Result<(), NodeError> {
        tracing::warn!(%why, "the dump was interrupted and left the server unusable; restarting it");
        self.restart_server()
    }

    /// Nothing is being taken any more.
    fn conclude(&mut self, result: &CheckpointResult, now: Instant) {
        self.checkpoints.conclude(result, now);
        self.tell_of_checkpoint(None);
        self.release_token();
    }

    // ---- the log behind it ----

    /// Tells one node, or all, which checkpoint is the newest here.
    pub(crate) fn tell_of_checkpoint(&mut self, to: Option<NodeId>) {
        let slot = self.checkpoints.newest().unwrap_or_default();
        let all: Vec<NodeId> = self.links.replica.peers().map(|(id, _)| id).collect();
        for peer in all {
            if to.is_none_or(|to| to == peer) {
                // A node whose link is down is told when it is up.
                self.links.send(peer, &PeerFrame::Checkpoint(slot));
            }
        }
    }

    /// Another node has a checkpoint, or has none (slot 0).
    pub(crate) fn told_of_checkpoint(&mut self, from: NodeId, slot: u64, now: Instant) {
        self.transfer.told(from, slot);
        self.checkpoints.told(from, slot);
        self.truncate_log(now);
    }

    /// Another node fetches a checkpoint.
    pub(crate) fn told_of_fetch(&mut self, from: NodeId, slot: u64, now: Instant) {
        self.checkpoints.fetches(from, slot, now);
        self.truncate_log(now);
    }

    fn truncate_log(&mut self, now: Instant) {
        if let Some(upto) = self.checkpoints.droppable(now)
            && self.links.replica.truncate(upto)
        {
            tracing::info!(upto, "the log is truncated behind checkpoints");
        }
    }

    // ---- going back ----

    /// Restores the server from the newest checkpoint that is complete and that the log continues.
    /// `at_start`: the node knows nothing yet, and takes over the state that it had then. Only
    /// checkpoints of slots before `limit` count.
    pub(crate) fn restore_server(
        &mut self,
        at_start: bool,
        limit: u64,
    ) -> Result<StartPoint, NodeError> {
        let first = self.links.replica.first_slot();
        for checkpoint in self.checkpoints.usable(first, limit)? {
            let slot = checkpoint.slot();
            let Err(error) = self.restore_from(&checkpoint, at_start) else {
                tracing::info!(slot, "the server is restored from a checkpoint");
                return Ok(StartPoint::Restored);
            };
            tracing::error!(slot, "{error}; trying the next older checkpoint");
            // One that cannot be restored here is not fetched from others; one that is only damaged
            // here may be.
            if !matches!(error, CheckpointError::Corrupt { .. })
                && let Ok(hash) = checkpoint.manifest.hash()
            {
                self.transfer.refuse(hash);
            }
        }
        let first = self.links.replica.first_slot();
        if first == 1 {
            return Ok(StartPoint::FromGenesis);
        }
        if self.config.others().next().is_none() {
            return Err(NodeError::NoCheckpoint { first });
        }
        self.go_without_server(first, limit)?;
        Ok(StartPoint::Waits)
    }

    /// Votes and learns, until a checkpoint was fetched.
    fn go_without_server(&mut self, first: u64, limit: u64) -> Result<(), NodeError> {
        tracing::error!(
            first,
            "the log begins at this slot and there is no usable checkpoint of the slots before: one is \
             fetched from another replica"
        );
        self.checkpoints.remove_from(limit)?;
        self.end_server();
        self.checkpoints.set_missing(first);
        self.links.replica.abstain(Instant::now(), true);
        self.clients.frontend.retire();
        self.proxies.server.detach_all();
        self.server.lifecycle.stop_serving();
        Ok(())
    }

    fn restore_from(
        &mut self,
        checkpoint: &Checkpoint,
        at_start: bool,
    ) -> Result<(), CheckpointError> {
        self.checkpoints
            .check_origin(checkpoint, self.config.cluster.0)?;
        // A checkpoint that was fetched just now was read back just now.
        let verified = self.transfer.take_fetched(checkpoint.slot());
        let state = load(checkpoint, verified)?;
        let slot = state.applied.slot;
        let bytes = self.server.tape_bytes();
        self.end_server();
        let image = checkpoint.path.join(SERVER_DIR);
        let (objects, started) = self.server.host.restore(&image, bytes)?;
        self.take_restored(objects, started)
            .map_err(|error| CheckpointError::Failed(error.to_string()))?;
        self.server.lifecycle.restored_from = Some(slot);
        self.server.feeder.restart_after(slot);
        let now = Instant::now();
        self.server
            .output
            .resume(state.applied, state.deadline_ns, &state.hashes, now);
        self.monitor.restart();
        self.links.replica.install(now, slot);
        if at_start {
            self.take_over(state, now)?;
        } else {
            self.clients.conns.server_goes_back(&state.conns);
        }
        Ok(())
    }

    /// The node has the state again that it had when the checkpoint was taken.
    fn take_over(&mut self, state: NodeState, now: Instant) -> Result<(), CheckpointError> {
        self.clients.conns = ConnectionTable::load(&state.conns);
        self.proxies.server.load(state.unacked_output);
        self.server.feeder.resume(state.seen, state.last_entry);
        if state.time_ns > 0 {
            self.ordering.proposer.observe_time(state.time_ns, now);
        }
        for port in &state.ports {
            let published = Published {
                listener: port.listener,
                address: port.address,
                transport: port.transport(),
                chosen: port.chosen,
            };
            let opened = self.clients.frontend.listen(published);
            opened.map_err(|error| CheckpointError::Failed(error.to_string()))?;
        }
        Ok(())
    }
}
