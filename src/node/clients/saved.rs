//! Connections, frontends and unacknowledged output, as they lie in a checkpoint.
//!
//! The order and the types of the fields are the format on disk.

use brolga_tape::ConnId;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Frontend and counter.
pub(crate) type Id = (u64, u64);

pub(crate) fn id(conn: ConnId) -> Id {
    (conn.frontend, conn.counter)
}

pub(crate) fn conn_of((frontend, counter): Id) -> ConnId {
    ConnId { frontend, counter }
}

/// A connection that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedConn {
    /// The connection.
    pub id: Id,
    /// The frontend that has it.
    pub owner: u64,
    /// Input bytes committed.
    pub input_next: u64,
    /// The client's end of stream is committed.
    pub ended: bool,
    /// Output that the client has got.
    pub credit: u64,
}

/// A frontend that the log knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedFrontend {
    /// The frontend.
    pub id: u64,
    /// The node that it belongs to.
    pub node: u64,
    /// The last connection it opened.
    pub last_counter: u64,
    /// The number of the last datagram from it.
    pub heard: u64,
    /// Number of its connections that the server opened.
    pub outgoing: u64,
}

/// All connections and frontends, each kind in the order of its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedConns {
    /// Open connections.
    pub conns: Vec<SavedConn>,
    /// Frontends.
    pub frontends: Vec<SavedFrontend>,
    /// The last connection that the server has asked for.
    pub asked_upto: u64,
    /// Asked for and not answered.
    pub unanswered: Vec<(u64, SocketAddr)>,
    /// Answered and not closed by the server.
    pub answered: Vec<u64>,
}

/// Output of one connection that is held for its stand-alone frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedOutput {
    /// The connection.
    pub id: Id,
    /// Position of the first byte.
    pub base: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Input that the server has taken.
    pub consumed: u64,
    /// The server has ended its stream.
    pub fin: bool,
    /// The server has closed the connection; true: by a reset.
    pub closed: Option<bool>,
}
