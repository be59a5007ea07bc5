//! One iteration of the event loop, after the poll's events were taken in.
//!
//! The order matters for latency: what is chosen goes to the server first, so that it works while
//! the node goes on; requests are proposed before consensus does its own work, which
//! sends them and hands them to the journal in the same go.

use crate::error::NodeError;
use crate::event_loop::node::Node;
use crate::server::output::ServerClock;
use crate::server::process::ServerHost;
use brolga_consensus::Flush;
use std::time::Instant;

impl<H: ServerHost> Node<H> {
    pub(super) fn iterate(&mut self, now: Instant) -> Result<(), NodeError> {
        self.take_replica_events(now);
        self.drain_output(now)?;
        self.advance_checkpoint(now)?;
        self.consider_checkpoint(now);
        self.server.check_stall();
        self.observe_and_feed(now)?;
        self.compare(now)?;
        self.serve_when_caught_up()?;
        self.dial();
        self.clients.frontend.tick(now);
        self.clients.frontend.serve_touched();
        self.send_requests(now);
        self.propose(now);
        let flush = self.who_flushes();
        let links = &mut self.links;
        links.replica.turn(now, flush, &mut links.events);
        self.take_replica_events(now);
        self.observe_and_feed(now)?;
        self.report_proxies(now);
        self.proxies.server.flush();
        self.hash_log.tick(now);
        Ok(())
    }

    /// The node waits for the disk itself when nobody waits for the node meanwhile: the server has
    /// nothing to do, so no answer can come, or nobody here would get it. What clients say has to
    /// wait for the entry that is being written anyway.
    fn who_flushes(&self) -> Flush {
        let last = self.server.feeder.last_entry();
        let rests = |clock: ServerClock| clock.idle && clock.slot == last;
        let serves = self.clients.frontend.client_count() > 0
            || self.clients.frontend.outgoing_count() > 0
            || self.proxies.server.attached().next().is_some()
            || !self.clients.frontend.datagram_addresses().is_empty();
        match self.server.output.clock().is_some_and(rests) || !serves {
            true => Flush::Here,
            false => Flush::Aside,
        }
    }
}
