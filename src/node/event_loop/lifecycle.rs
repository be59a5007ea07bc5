//! The server's lifecycle and the rest of the node: the server is started and ended, crashes, says
//! what it does as a whole, and catches up before clients may connect.

use crate::checkpoint::restore::StartPoint;
use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::event_loop::sources::{DOORBELL, PROCESS};
use crate::server::lifecycle::{CRASHES_MAX, ServerEvent, ServerState, Watch};
use crate::server::process::{Objects, ServerHost, Started};
use brolga_consensus::Recovery;
use brolga_os::sys;
use mio::Registry;
use std::time::Instant;

fn watch(registry: &Registry) -> Watch<'_> {
    Watch {
        registry,
        process: PROCESS,
        doorbell: DOORBELL,
    }
}

impl<H: ServerHost> Node<H> {
    /// Starts the server in its genesis state; the whole log is fed to it.
    pub(super) fn start_server(&mut self) -> Result<(), NodeError> {
        self.end_server();
        self.server.start(&watch(self.sources.poll.registry()))?;
        self.clients.conns.server_restarts();
        self.monitor.restart();
        Ok(())
    }

    /// Ends the server, if one runs.
    pub(super) fn end_server(&mut self) {
        self.server.end();
        self.checkpoints.server_is_gone();
    }

    /// Takes over a server that was restored.
    pub(super) fn take_restored(
        &mut self,
        objects: Objects,
        started: Started,
    ) -> Result<(), NodeError> {
        let watch = watch(self.sources.poll.registry());
        Ok(self.server.take_restored(objects, started, &watch)?)
    }

    /// The poll says that the server's process may have ended.
    pub(super) fn server_process_changed(&mut self, now: Instant) -> Result<(), NodeError> {
        let Some(status) = self.server.take_exit()? else {
            return Ok(());
        };
        // What it has said before still counts.
        self.drain_output(now)?;
        let how = sys::describe_status(status);
        if self.end_output() {
            // Its last words may have to wait until others have said the same.
            return self.check_ever_listened(&how);
        }
        let too_often = self.server.crashed();
        if too_often && !self.server.lifecycle.has_ever_listened() {
            return Err(self.never_listened(how));
        }
        let slot = self.server.output.applied().slot;
        if too_often {
            let message =
                format!("the server crashed {CRASHES_MAX} times after slot {slot}: {how}");
            self.server_ended(ServerState::Faulted { message });
            return Ok(());
        }
        tracing::warn!(%how, slot, "the server crashed; restarting it, and replaying the log");
        self.restart_server()
    }

    /// Another server takes the place of one that cannot go on: from the newest checkpoint, or the
    /// genesis.
    pub(super) fn restart_server(&mut self) -> Result<(), NodeError> {
        match self.restore_server(false, u64::MAX)? {
            StartPoint::Restored | StartPoint::Waits => Ok(()),
            StartPoint::FromGenesis => self.start_server(),
        }
    }

    /// Fails, and so ends the node, if the server has ended for good before it listened on any
    /// port.
    fn check_ever_listened(&self, how: &str) -> Result<(), NodeError> {
        if self.server.is_gone() && !self.server.lifecycle.has_ever_listened() {
            return Err(self.never_listened(how.to_owned()));
        }
        Ok(())
    }

    fn never_listened(&self, how: String) -> NodeError {
        NodeError::ServerEnded {
            how,
            stderr_tail: self.server.host.stderr_tail(),
        }
    }

    fn server_ended(&mut self, state: ServerState) {
        self.server.lifecycle.end(state);
        self.clients.frontend.server_gone();
    }

    /// Handles the records about the server as a whole.
    pub(super) fn take_server_events(&mut self) -> Result<(), NodeError> {
        let mut events = std::mem::take(&mut self.server.lifecycle.events);
        for event in events.drain(..) {
            match event {
                ServerEvent::Listen(port) => {
                    self.server.lifecycle.listens();
                    self.clients.frontend.listen(port)?;
                }
                ServerEvent::Unlisten(listener) => self.clients.frontend.unlisten(listener),
                ServerEvent::Exit(status) => {
                    let how = sys::describe_status(status);
                    self.server_ended(ServerState::Exited { how: how.clone() });
                    self.check_ever_listened(&how)?;
                }
                ServerEvent::Fault(message) => {
                    let how = message.clone();
                    self.server_ended(ServerState::Faulted { message });
                    self.check_ever_listened(&how)?;
                }
                ServerEvent::SyscallFilter(errno) => {
                    self.server.lifecycle.syscall_filter.answered(errno);
                }
                ServerEvent::Caught(site) => self.server.lifecycle.syscall_filter.caught(site),
            }
        }
        // Keeps its memory; nothing was added meanwhile.
        self.server.lifecycle.events = events;
        Ok(())
    }

    /// Opens the ports once the server has repeated what was in the log when the node came up.
    pub(super) fn serve_when_caught_up(&mut self) -> Result<(), NodeError> {
        let barred = !self.peers.compatibility.may_serve()? || self.monitor.quarantine().is_some();
        if self.server.lifecycle.is_serving() || self.links.leader().is_none() || barred {
            return Ok(());
        }
        if self.server.lifecycle.ended.is_some() || self.checkpoints.is_missing() {
            return Ok(());
        }
        let replica = &self.links.replica;
        let chosen = match self.config.learner {
            None => replica.chosen_upto(),
            // It begins with nothing, and would find out bit by bit that there is more.
            Some(_) => replica.told_chosen_upto(),
        };
        // A node that has lost its disk knows of slots that others have voted on and it has not got
        // yet.
        let complete = !matches!(replica.recovery(), Recovery::CatchingUp { .. });
        if !self.server.has_caught_up(chosen, complete) {
            return Ok(());
        }
        self.note_that_it_serves()?;
        self.server.lifecycle.serve();
        Ok(self.clients.frontend.start_serving()?)
    }
}
