//! Clients of the server: their TCP connections, datagrams and UNIX sockets, as this node owns
//! them, and
//! what the log says of all connections of all nodes.
//!
//! * `frontend`: owns the sockets of this node's clients; `connection`: one of them; `listeners`:
//!   the published ports;
//! * `datagrams`: clients' datagrams; `outbound_datagrams`: those that the server sends unasked;
//! * `unix_sockets`: where published UNIX sockets lie;
//! * `connection_table`: the state of every connection, as far as the log tells;
//! * `expiry`: connections whose node has failed.

use crate::clients::connection_table::Conns;
use crate::clients::expiry::Expiry;
use crate::clients::frontend::Frontend;

pub(crate) mod connection;
pub(crate) mod connection_table;
pub(crate) mod datagrams;
pub(crate) mod expiry;
pub(crate) mod frontend;
pub(crate) mod listeners;
pub(crate) mod outbound_datagrams;
pub(crate) mod unix_sockets;

/// The clients of this node, and all connections that the log knows.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) frontend: Frontend,
    pub(crate) conns: Conns,
    pub(crate) expiry: Expiry,
}

impl Clients {
    /// No clients, and no connections.
    pub(crate) fn new(frontend: Frontend) -> Self {
        Self {
            frontend,
            conns: Conns::new(),
            expiry: Expiry::default(),
        }
    }
}
