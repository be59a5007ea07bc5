//! Expiry: the leader closes the connections of nodes and stand-alone frontends that have been
//! silent for long, so that a server does not keep them for ever; and soon those that the server
//! has opened through a node that cannot be reached.

use crate::clients::connection_table::{ConnectionTable, KnownFrontend};
use crate::clients::id_map::IdMap;
use brolga_consensus::NodeId;
use brolga_tape::entry::{CloseHow, EntryBuilder, Event};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A node that cannot be reached for longer has lost its clients.
const NODE_DOWN_MAX: Duration = Duration::from_secs(60);
/// A stand-alone frontend that is attached to no node for longer has lost its clients. It gives up
/// by itself well before, and what a node tells of it is up to [`ALIVE_INTERVAL`] old.
const PROXY_SILENT_MAX: Duration = Duration::from_secs(30);
/// A node that cannot be reached for longer has lost the connections that the server has opened
/// through it. Much shorter: nobody sends on them meanwhile, while the server waits for answers;
/// and it can open others.
const DIALLER_DOWN_MAX: Duration = Duration::from_secs(1);
/// The leader is told this often which stand-alone frontends are attached.
pub(crate) const ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Nodes to which there is no link, each with the time since when.
pub(crate) type DownSince = BTreeMap<NodeId, Instant>;

/// The clocks of frontends that may have failed.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    /// The time at which each stand-alone frontend that the log knows was last heard of; used by
    /// the leader only.
    heard: IdMap<u64, Instant>,
    /// The last time at which connections that the server has opened were proposed to be closed.
    diallers_expired: Option<Instant>,
}

impl Expiry {
    /// A stand-alone frontend is attached to some node.
    pub(crate) fn heard(&mut self, frontend: u64, now: Instant) {
        self.heard.insert(frontend, now);
    }

    /// This node has not listened so far: all stand-alone frontends count as heard of now.
    pub(crate) fn restart_clocks(&mut self) {
        self.heard.clear();
    }

    /// Returns the time at which a stand-alone frontend was last heard of; `now` if nobody has
    /// asked before.
    fn last_heard(&mut self, frontend: u64, now: Instant) -> Instant {
        *self.heard.entry(frontend).or_insert(now)
    }

    /// Returns the time at which the first frontend expires.
    pub(crate) fn deadline(
        &mut self,
        conns: &ConnectionTable,
        down: &DownSince,
        now: Instant,
    ) -> Option<Instant> {
        let deadline = |(frontend, known): (u64, KnownFrontend)| {
            if known.is_proxy(frontend) {
                return Some(self.last_heard(frontend, now) + PROXY_SILENT_MAX);
            }
            Some(*down.get(&known.node)? + NODE_DOWN_MAX)
        };
        let clients = conns.frontends().filter_map(deadline).min();
        let frontends = conns.frontends();
        let diallers = frontends.filter_map(|(_, known)| self.dialler_deadline(known, down));
        clients.into_iter().chain(diallers.min()).min()
    }

    /// The time at which a frontend has been down for too long to keep the server's connections. If
    /// the proposal to close them is lost, it is made again after the same time.
    fn dialler_deadline(&self, known: KnownFrontend, down: &DownSince) -> Option<Instant> {
        let since = *down.get(&known.node).filter(|_| known.outgoing > 0)?;
        let proposed = self.diallers_expired;
        let from = proposed.map_or(since, |proposed| since.max(proposed));
        Some(from + DIALLER_DOWN_MAX)
    }

    /// Returns the events that close the connections of all frontends that have expired.
    pub(crate) fn expire(
        &mut self,
        conns: &ConnectionTable,
        down: &mut DownSince,
        now: Instant,
    ) -> EntryBuilder {
        let mut gone = EntryBuilder::new();
        self.expire_diallers(conns, down, now, &mut gone);
        for (frontend, known) in conns.frontends() {
            // The clock of a frontend that expires starts over: if the proposal is lost, it is made
            // again after the same time.
            if known.is_proxy(frontend) {
                if self.last_heard(frontend, now) + PROXY_SILENT_MAX > now {
                    continue;
                }
                self.heard(frontend, now);
            } else {
                match down.get_mut(&known.node) {
                    Some(since) if *since + NODE_DOWN_MAX <= now => *since = now,
                    _ => continue,
                }
            }
            tracing::info!(
                node = known.node,
                "no contact for long: its clients' connections expire"
            );
            gone.push(&Event::FrontendGone { frontend });
        }
        gone
    }

    fn expire_diallers(
        &mut self,
        conns: &ConnectionTable,
        down: &DownSince,
        now: Instant,
        gone: &mut EntryBuilder,
    ) {
        let before = gone.event_count();
        for (frontend, known) in conns.frontends() {
            let deadline = self.dialler_deadline(known, down);
            if deadline.is_none_or(|at| at > now) {
                continue;
            }
            let (node, count) = (known.node, known.outgoing);
            tracing::info!(
                node,
                count,
                "no contact: the server's connections through it expire"
            );
            for conn in conns.outgoing_of(frontend) {
                let how = CloseHow::Reset;
                gone.push(&Event::Close {
                    conn,
                    offset: 0,
                    how,
                });
            }
        }
        if gone.event_count() > before {
            self.diallers_expired = Some(now);
        }
    }
}
