//! Who is away for good: the leader lets go of the clients of nodes and proxies that have been
//! silent for long, so that a server does not keep their connections for ever; and soon of what the
//! server has opened through a node that is away.

use crate::clients::connection_table::KnownFrontend;
use crate::event_loop::node::Node;
use crate::peers::frames::PeerFrame;
use crate::proxy::server::is_proxy;
use crate::server::process::ServerHost;
use brolga_tape::entry::{CloseHow, EntryBuilder, Event};
use std::time::{Duration, Instant};

/// A node that is away for longer has lost its clients.
const NODE_AWAY_MAX: Duration = Duration::from_secs(60);
/// A stand-alone frontend that is attached to no node for longer has lost its clients. It gives up
/// by itself well before, and what a node tells of it is up to [`ALIVE_INTERVAL`] old.
const PROXY_AWAY_MAX: Duration = Duration::from_secs(30);
/// A node that is away for longer has lost the connections that the server has opened through it.
/// Much shorter: nobody sends on them meanwhile, while the server waits for answers; and it can
/// open others.
const DIALLER_AWAY_MAX: Duration = Duration::from_secs(1);
/// The leader is told this often which proxies are attached.
const ALIVE_INTERVAL: Duration = Duration::from_secs(5);

impl<H: ServerHost> Node<H> {
    /// When the leader has to look after those who are away.
    pub(crate) fn absence_deadline(&mut self, now: Instant) -> Option<Instant> {
        if !self.replica.can_propose() {
            return None;
        }
        let Self {
            conns,
            proxies,
            absent,
            ..
        } = self;
        let deadline = |(frontend, known)| {
            if is_proxy(frontend, known) {
                return Some(proxies.last_seen(frontend, now) + PROXY_AWAY_MAX);
            }
            Some(*absent.get(&known.node)? + NODE_AWAY_MAX)
        };
        let clients = conns.frontends().filter_map(deadline).min();
        clients.into_iter().chain(self.dialler_deadline()).min()
    }

    /// When the leader lets go of connections that the server has opened through an absent node.
    fn dialler_deadline(&self) -> Option<Instant> {
        let frontends = self.conns.frontends();
        frontends
            .filter_map(|(_, known)| self.dialler_away_at(known))
            .min()
    }

    /// When a frontend has been away for too long to keep the server's connections. Should the
    /// proposal to give them up get lost, it is made again after the same time.
    fn dialler_away_at(&self, known: KnownFrontend) -> Option<Instant> {
        let since = *self
            .absent
            .get(&known.node)
            .filter(|_| known.outgoing > 0)?;
        let from = self
            .dialler_given_up
            .map_or(since, |proposed| since.max(proposed));
        Some(from + DIALLER_AWAY_MAX)
    }

    /// The leader lets go of the clients of those who have been away for long.
    pub(crate) fn give_up_the_absent(&mut self, now: Instant) {
        if self
            .absence_deadline(now)
            .is_none_or(|deadline| deadline > now)
        {
            return;
        }
        let mut gone = EntryBuilder::new();
        self.give_up_diallers(now, &mut gone);
        let Self {
            conns,
            proxies,
            absent,
            ..
        } = self;
        for (frontend, known) in conns.frontends() {
            // Should the proposal get lost, it is made again after the same time: the clock of
            // whoever is given up starts over.
            if is_proxy(frontend, known) {
                if proxies.last_seen(frontend, now) + PROXY_AWAY_MAX > now {
                    continue;
                }
                proxies.lives(frontend, now);
            } else {
                match absent.get_mut(&known.node) {
                    Some(since) if *since + NODE_AWAY_MAX <= now => *since = now,
                    _ => continue,
                }
            }
            tracing::info!(node = known.node, "away for long: its clients are given up");
            gone.push(&Event::FrontendGone { frontend });
        }
        self.proposer
            .push(gone.event_count(), gone.encoded_events());
    }

    fn give_up_diallers(&mut self, now: Instant, gone: &mut EntryBuilder) {
        let before = gone.event_count();
        for (frontend, known) in self.conns.frontends() {
            if self.dialler_away_at(known).is_none_or(|at| at > now) {
                continue;
            }
            let (node, count) = (known.node, known.outgoing);
            tracing::info!(node, count, "away: the server's connections are given up");
            for conn in self.conns.outgoing_of(frontend) {
                let how = CloseHow::Reset;
                gone.push(&Event::Close {
                    conn,
                    offset: 0,
                    how,
                });
            }
        }
        if gone.event_count() > before {
            self.dialler_given_up = Some(now);
        }
    }

    /// Tells the leader now and then which proxies are attached here.
    pub(crate) fn report_proxies(&mut self, now: Instant) {
        if self.alive_at.is_some_and(|at| at > now) {
            return;
        }
        let attached: Vec<u64> = self.proxies.attached().collect();
        self.alive_at = (!attached.is_empty()).then(|| now + ALIVE_INTERVAL);
        let Some(leader) = self.leadership.leader.filter(|_| !attached.is_empty()) else {
            return;
        };
        if leader == self.id {
            for frontend in attached {
                self.proxies.lives(frontend, now);
            }
            return;
        }
        let numbers: Vec<u8> = attached.iter().flat_map(|id| id.to_le_bytes()).collect();
        PeerFrame::Alive(&numbers).encode(&mut self.frame);
        // The next report makes up for one that is lost.
        let _ = self.replica.send_app(leader, &self.frame);
    }

    /// Another node has told which proxies are attached there.
    pub(crate) fn proxies_live(&mut self, numbers: &[u8], now: Instant) {
        for number in numbers.chunks_exact(8) {
            if let Ok(number) = number.try_into() {
                self.proxies.lives(u64::from_le_bytes(number), now);
            }
        }
    }
}
