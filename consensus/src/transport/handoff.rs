//! Stream handoff: a connection to a node's address that serves another protocol than consensus,
//! such as bulk data, which would delay the messages of a link.
//!
//! ```text
//! client ── Upgrade {version, cluster, number, 0} ──▶ node
//!        ◀── Hello {version, cluster, node, number} ── or Refuse {why}
//!            from here on the bytes are the caller's
//! ```
//!
//! The cluster and the version are checked. The client need not be a member, and nobody checks the
//! number that it gives.

use super::first_frame::{connect, receive, send};
use super::wire::{Hello, Kind, VERSION};
use crate::core::NodeId;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A client that does not read the greeting is dropped after this time.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that has left the transport. Both sides have said hello.
#[derive(Debug)]
pub struct UpgradedStream {
    /// The connection, in blocking mode.
    pub socket: TcpStream,
    /// The number that the client gives; 0 if it has none.
    pub from: NodeId,
}

impl UpgradedStream {
    /// Greets the client; `None` if it is gone.
    pub(super) fn greet(
        socket: TcpStream,
        cluster: u128,
        id: NodeId,
        from: NodeId,
    ) -> Option<Self> {
        let mut socket = socket;
        socket.set_nonblocking(false).ok()?;
        // The first bytes on a connection fit the kernel's buffer, so this does not block.
        socket.set_write_timeout(Some(GREETING_TIMEOUT)).ok()?;
        let hello = Hello {
            version: VERSION,
            cluster,
            from: id,
            to: from,
        };
        send(&mut socket, Kind::Hello, &hello.encode()).ok()?;
        Some(Self { socket, from })
    }
}

/// Connects to the node at `address` for a protocol of the caller's own, as node `from` (0: none).
/// Returns the connection, on which reads and writes fail after `timeout`, and the node's number.
///
/// # Errors
/// The system's error; [`io::ErrorKind::PermissionDenied`] with the node's reason if it refuses,
/// because it is of another cluster or version.
pub fn open_stream(
    address: SocketAddr,
    cluster: u128,
    from: NodeId,
    timeout: Duration,
) -> io::Result<(TcpStream, NodeId)> {
    let mut socket = connect(address, timeout)?;
    let hello = Hello {
        version: VERSION,
        cluster,
        from,
        to: 0,
    };
    send(&mut socket, Kind::Upgrade, &hello.encode())?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not a node's");
    match receive(&mut socket)? {
        (Kind::Hello, body) => {
            let hello = Hello::decode(body).ok_or_else(invalid)?;
            match (hello.version, hello.cluster) == (VERSION, cluster) {
                true => Ok((socket, hello.from)),
                false => Err(invalid()),
            }
        }
        (Kind::Refuse, why) => {
            let why = String::from_utf8_lossy(&why).into_owned();
            Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
        }
        _ => Err(invalid()),
    }
}
