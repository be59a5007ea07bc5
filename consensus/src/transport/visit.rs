//! Connections to a node's address that are for something else than consensus, such as bulk data,
//! which would only be in the way on a link.
//!
//! ```text
//! visitor ── Visit {version, cluster, number, 0} ──▶ node
//!         ◀── Hello {version, cluster, node, number} ── or Refuse {why}
//!             from here on the bytes are the caller's
//! ```
//!
//! Everything here waits; it is for threads that may. What a visitor is told apart, nothing is known
//! of it: it may be of a member or of nobody.

use super::outbox::Outbox;
use super::wire::{Hello, Kind, PREFIX_BYTES, VERSION, take_frame};
use crate::core::NodeId;
use bytes::BytesMut;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The longest answer: a reason in words.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// Somebody who does not even read the greeting is left alone.
const GREETING_PATIENCE: Duration = Duration::from_secs(1);

/// Somebody who has come by; both sides have said who they are.
#[derive(Debug)]
pub struct Visitor {
    /// The connection, on which calls wait.
    pub socket: TcpStream,
    /// The number that it gives itself; 0 if it has none.
    pub from: NodeId,
}

impl Visitor {
    /// Greets it; `None` if it is gone.
    pub(super) fn greeted(
        socket: TcpStream,
        cluster: u128,
        id: NodeId,
        from: NodeId,
    ) -> Option<Self> {
        let mut socket = socket;
        socket.set_nonblocking(false).ok()?;
        // The first bytes on a connection: they fit the kernel's buffer, so that nobody waits here.
        socket.set_write_timeout(Some(GREETING_PATIENCE)).ok()?;
        let hello = Hello {
            version: VERSION,
            cluster,
            from: id,
            to: from,
        };
        send(&mut socket, Kind::Hello, &hello).ok()?;
        Some(Self { socket, from })
    }
}

fn send(socket: &mut TcpStream, kind: Kind, hello: &Hello) -> io::Result<()> {
    let mut out = Outbox::default();
    out.push(kind, &hello.encode(), None);
    while out.bytes() > 0 {
        if !out.flush(socket)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// Connects to the node at `address`, as node `from` (0: none). Gives the connection, on which reads
/// and writes fail after `patience`, and the node's number.
///
/// # Errors
/// Whatever the system says; [`io::ErrorKind::PermissionDenied`] with the node's words if it refuses,
/// because it is of another cluster or version.
pub fn visit(
    address: SocketAddr,
    cluster: u128,
    from: NodeId,
    patience: Duration,
) -> io::Result<(TcpStream, NodeId)> {
    let mut socket = TcpStream::connect_timeout(&address, patience)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    let hello = Hello {
        version: VERSION,
        cluster,
        from,
        to: 0,
    };
    send(&mut socket, Kind::Visit, &hello)?;
    let (kind, body) = answer(&mut socket)?;
    let garbled = || io::Error::new(io::ErrorKind::InvalidData, "the answer makes no sense");
    match kind {
        Kind::Hello => {
            let hello = Hello::decode(body).ok_or_else(garbled)?;
            match (hello.version, hello.cluster) == (VERSION, cluster) {
                true => Ok((socket, hello.from)),
                false => Err(garbled()),
            }
        }
        Kind::Refuse => {
            let why = String::from_utf8_lossy(&body).into_owned();
            Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
        }
        _ => Err(garbled()),
    }
}

/// Reads one frame and not a byte more: what follows is the caller's.
fn answer(socket: &mut TcpStream) -> io::Result<(Kind, bytes::Bytes)> {
    let senseless = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut prefix = [0; PREFIX_BYTES];
    socket.read_exact(&mut prefix)?;
    let [a, b, c, d, ..] = prefix;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > ANSWER_BYTES_MAX {
        return Err(senseless("frame of a senseless length"));
    }
    let mut input = BytesMut::from(&prefix[..]);
    input.resize(PREFIX_BYTES + length, 0);
    socket.read_exact(&mut input[PREFIX_BYTES..])?;
    let frame = take_frame(&mut input, ANSWER_BYTES_MAX).map_err(senseless)?;
    frame.ok_or_else(|| senseless("half a frame"))
}
