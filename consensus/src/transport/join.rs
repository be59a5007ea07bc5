//! Joining: a machine that is to become a learner, and knows an address only, asks there for the
//! cluster.
//!
//! ```text
//! joiner ── Join {magic, version} ──▶ node
//!        ◀── JoinAccepted             ── or Refuse {why}
//!            from here on the bytes are the caller's
//! ```
//!
//! The connection then leaves the transport and its thread: [`super::Transport::take_joiners`].

use super::error::Refusal;
use super::first_frame::{connect, receive, send};
use super::outbox::Outbox;
use super::wire::{Kind, VERSION};
use bytes::{Buf, Bytes};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const MAGIC: [u8; 4] = *b"BRLJ";

/// The reason why a joiner gets no connection. One line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Nobody is there.
    #[error("nobody answers at {address}: {source}")]
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// Another service is there.
    #[error("{address} is not the peer address of a Brolga node: {what}")]
    NotANode {
        /// The address.
        address: SocketAddr,
        /// Its behaviour.
        what: String,
    },
    /// The node refuses.
    #[error("the node at {address} refuses: {why}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// The node's reason.
        why: String,
    },
}

/// The joiner's request.
pub(super) fn request() -> Vec<u8> {
    let mut body = MAGIC.to_vec();
    body.extend_from_slice(&VERSION.to_le_bytes());
    body
}

/// Checks that a frame's body is the request of a joiner of this version.
pub(super) fn check_request(mut body: Bytes) -> Result<(), Refusal> {
    if body.len() != MAGIC.len() + 4 || body.split_to(MAGIC.len()) != MAGIC[..] {
        return Err(Refusal::NotANode);
    }
    match body.get_u32_le() {
        VERSION => Ok(()),
        found => Err(Refusal::JoinerVersion { found }),
    }
}

/// Asks the node at `address` for a connection on which it describes its cluster. Reads and writes
/// on it fail after `timeout`.
///
/// # Errors
/// See [`JoinError`].
pub fn join(address: SocketAddr, timeout: Duration) -> Result<TcpStream, JoinError> {
    let not_a_node = |what: String| JoinError::NotANode { address, what };
    let mut socket =
        connect(address, timeout).map_err(|source| JoinError::Unreachable { address, source })?;
    let answer = send(&mut socket, Kind::Join, &request()).and_then(|()| receive(&mut socket));
    match answer {
        Ok((Kind::JoinAccepted, _)) => Ok(socket),
        Ok((Kind::Refuse, why)) => Err(JoinError::Refused {
            address,
            why: String::from_utf8_lossy(&why).into_owned(),
        }),
        Ok(_) => Err(not_a_node("it answers something else".into())),
        Err(error) => Err(not_a_node(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it does not answer".into(),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => "it hangs up".into(),
            _ => error.to_string(),
        })),
    }
}

/// Answers a joiner's request on a connection that the node has written nothing to before: the
/// answer fits the kernel's buffer.
pub(super) fn accept(socket: &mut impl io::Write) -> io::Result<()> {
    let mut out = Outbox::default();
    out.push(Kind::JoinAccepted, &[], None);
    out.flush(socket).map(drop)
}

/// Reads a joiner's request from a fresh connection and accepts it, as a node's transport does.
///
/// # Errors
/// The connection is gone, or the other side is no joiner.
pub fn receive_joiner(socket: &mut TcpStream) -> io::Result<()> {
    let (kind, body) = receive(socket)?;
    if kind != Kind::Join {
        return Err(io::Error::other(Refusal::OutOfOrder(kind.name())));
    }
    check_request(body).map_err(io::Error::other)?;
    accept(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_request_itself_is_understood() {
        let whole = request();
        assert_eq!(check_request(Bytes::from(whole.clone())), Ok(()));
        for cut in 0..whole.len() {
            assert!(check_request(Bytes::copy_from_slice(&whole[..cut])).is_err());
        }
        for at in 0..whole.len() {
            let mut wrong = whole.clone();
            wrong[at] ^= 1;
            assert!(check_request(Bytes::from(wrong)).is_err(), "byte {at}");
        }
        let mut longer = whole;
        longer.push(0);
        assert!(check_request(Bytes::from(longer)).is_err());
    }
}
