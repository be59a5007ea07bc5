//! The state of a node besides its server, rebuilt by a replay, so that the result can be a
//! checkpoint like a node's own.
//!
//! It is the node's bookkeeping of connections, ports and unacknowledged output, without any
//! clients.

use crate::checkpoint::node_state::{NodeState, SavedPort};
use crate::clients::connection_table::ConnectionTable;
use crate::proxy::unacked_output::UnackedOutput;
use crate::server::hashes::SlotHashes;
use brolga_tape::entry::Entry;
use brolga_tape::record::{Record, Transport};

/// The state that a node would have at a slot of a replay.
#[derive(Debug, Default)]
pub(crate) struct ReplayedState {
    conns: ConnectionTable,
    unacked: UnackedOutput,
    ports: Vec<SavedPort>,
    /// Every slot up to this one was looked at.
    seen: u64,
    last_entry: u64,
    time_ns: u64,
}

impl ReplayedState {
    /// The state that a node had when it took a checkpoint.
    pub(crate) fn load(state: NodeState) -> Self {
        Self {
            conns: ConnectionTable::load(&state.conns),
            unacked: UnackedOutput::load(state.unacked_output),
            ports: state.ports,
            seen: state.seen,
            last_entry: state.last_entry,
            time_ns: state.time_ns,
        }
    }

    /// Returns the state for a checkpoint, with the server at `applied`.
    pub(crate) fn snapshot(
        &self,
        applied: SlotHashes,
        deadline_ns: u64,
        hashes: Vec<SlotHashes>,
    ) -> NodeState {
        NodeState {
            deadline_ns,
            seen: self.seen,
            last_entry: self.last_entry,
            time_ns: self.time_ns,
            hashes,
            ports: self.ports.clone(),
            conns: self.conns.save(),
            unacked_output: self.unacked.save(),
            ..NodeState::new(applied)
        }
    }

    /// Looks at an entry of the log, unless it is known.
    pub(crate) fn entry(&mut self, slot: u64, bytes: &[u8]) {
        if slot <= self.seen {
            return;
        }
        (self.seen, self.last_entry) = (slot, slot);
        let Ok(entry) = Entry::parse(bytes) else {
            return;
        };
        self.time_ns = entry.time_ns;
        for event in entry.events().flatten() {
            self.conns.apply(&event);
            self.unacked.event(&event);
        }
    }

    /// Looks at what the server has done.
    pub(crate) fn record(&mut self, record: &Record<'_>) {
        match *record {
            Record::Data { conn, .. }
            | Record::Consumed { conn, .. }
            | Record::Fin { conn, .. }
            | Record::Closed { conn, .. } => {
                let known = self.conns.frontend(conn.frontend);
                if known.is_some_and(|known| known.is_proxy(conn.frontend)) {
                    self.unacked.record(conn, record, &self.conns);
                }
                if matches!(record, Record::Closed { .. }) {
                    self.conns.closed_by_server(conn);
                }
            }
            Record::Connect { conn, address } => self.conns.asked_by_server(conn, address),
            Record::Listen {
                listener,
                address,
                transport,
                chosen,
            } => self.ports.push(SavedPort {
                listener,
                address,
                datagrams: transport == Transport::Datagram,
                chosen,
            }),
            Record::Unlisten { listener } => self.ports.retain(|port| port.listener != listener),
            _ => {}
        }
    }
}
