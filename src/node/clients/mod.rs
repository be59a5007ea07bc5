//! Clients of the server: their TCP connections, datagrams and UNIX sockets at this node, and the
//! state of all connections of all nodes, as far as the log tells.
//!
//! * `frontend`: owns the sockets of this node's clients; `connection`: one of them;
//! * `listeners`: the published ports; `unix_sockets`: published UNIX sockets;
//! * `datagrams`: datagrams of clients, and those that the server sends unsolicited;
//! * `outbox`: events on their way to the leader;
//! * `connection_table`: the state of every connection, as far as the log tells;
//! * `saved`: connections in a checkpoint;
//! * `expiry`: connections whose node has failed.

use crate::clients::connection_table::ConnectionTable;
use crate::clients::expiry::Expiry;
use crate::clients::frontend::Frontend;

pub(crate) mod connection;
pub(crate) mod connection_table;
pub(crate) mod datagrams;
pub(crate) mod expiry;
pub(crate) mod frontend;
pub(crate) mod id_map;
pub(crate) mod listeners;
pub(crate) mod outbox;
pub(crate) mod saved;
pub(crate) mod unix_sockets;

/// The clients of this node, and all connections that the log knows.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) frontend: Frontend,
    pub(crate) conns: ConnectionTable,
    pub(crate) expiry: Expiry,
}

impl Clients {
    /// No clients, and no connections.
    pub(crate) fn new(frontend: Frontend) -> Self {
        Self {
            frontend,
            conns: ConnectionTable::new(),
            expiry: Expiry::default(),
        }
    }
}
