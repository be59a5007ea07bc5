//! The poll: what is done when a source of events is ready, and how long to sleep.

use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::event_loop::sources::{DOORBELL, PROCESS, TIMER, WAKER};
use crate::proxy::server::Handshake;
use crate::server::process::ServerHost;
use crate::status::Query;
use brolga_os::sys;
use mio::Events;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

impl<H: ServerHost> Node<H> {
    /// Handles what the poll has ready; true when the node was asked to stop.
    pub(super) fn take_ready(&mut self, events: &Events, now: Instant) -> Result<bool, NodeError> {
        if let Some(tape) = &mut self.server.tape {
            tape.tape_mut().cancel_doorbell();
        }
        for event in events {
            match event.token() {
                WAKER => {
                    if self.answer_queries() {
                        return Ok(true);
                    }
                }
                TIMER => self.sources.timer.rang(),
                DOORBELL => {
                    if let Some(tape) = &self.server.tape {
                        sys::drain_counter(tape.doorbell());
                    }
                }
                PROCESS => self.server_process_changed(now)?,
                token if self.clients.frontend.owns(token) => {
                    self.clients.frontend.handle(event, now);
                }
                token if self.links.replica.owns(token) => {
                    let links = &mut self.links;
                    links.replica.handle(event, now, &mut links.events);
                    self.serve_fetchers();
                    for joiner in self.links.replica.take_joiners() {
                        self.joins.accept(joiner);
                    }
                }
                token if self.proxies.server.owns(token) => self.proxy_ready(event),
                token => tracing::debug!(?token, "event for nobody"),
            }
        }
        Ok(false)
    }

    fn proxy_ready(&mut self, event: &mio::event::Event) {
        let listeners = self.clients.frontend.known_listeners();
        let handshake = Handshake {
            cluster: self.config.cluster.0,
            conns: &self.clients.conns,
            listeners: listeners.as_deref(),
        };
        let proxies = &mut self.proxies;
        proxies
            .server
            .handle(event, &handshake, &mut proxies.requests);
    }

    fn answer_queries(&mut self) -> bool {
        loop {
            // Whoever asked may have given up waiting: then the answer is dropped.
            match self.sources.queries.try_recv() {
                Ok(Query::Status(reply)) => drop(reply.send(self.status())),
                Ok(Query::HashesAt(slot, reply)) => {
                    let _ = reply.send(self.server.output.hashes_at(slot));
                }
                Ok(Query::Signal(signal, reply)) => self.signal(signal, reply),
                Ok(Query::Checkpoint(reply)) => self.checkpoints.request(reply),
                Ok(Query::Shutdown) => return true,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Returns the time for which the poll may sleep: `None` until something happens or the timer
    /// rings.
    pub(super) fn prepare_sleep(&mut self, now: Instant) -> Result<Option<Duration>, NodeError> {
        let proposer = self.ordering.proposer.wakeup(&self.view(now));
        let others = [
            proposer,
            self.server.feeder.wakeup(),
            self.clients.frontend.wakeup(),
            self.ordering.leader_link.wakeup(),
            self.expiry_deadline(now),
            self.proxies.report_at,
            self.monitor.wakeup(now),
            self.hash_log.wakeup(),
            self.checkpoints.wakeup(now),
            self.transfer.wakeup(),
        ];
        let replica = &self.links.replica;
        let deadline = others
            .into_iter()
            .flatten()
            .fold(replica.next_wakeup(), Instant::min);
        if deadline <= now || self.server.feeder.has_more(replica.chosen_upto()) {
            return Ok(Some(Duration::ZERO));
        }
        self.sources
            .timer
            .arm(deadline, now)
            .map_err(NodeError::doing("cannot set a timer"))?;
        let output_waits = self
            .server
            .tape
            .as_mut()
            .is_some_and(|tape| tape.tape_mut().ask_for_doorbell());
        Ok(output_waits.then_some(Duration::ZERO))
    }
}
