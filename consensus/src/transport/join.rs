//! A node that is to become a learner and knows nothing but an address asks there for an introduction.
//!
//! ```text
//! newcomer ── Join {magic, version} ──▶ node
//!          ◀── Welcome                  ── or Refuse {why}
//!              from here on the bytes are the caller's
//! ```
//!
//! The connection leaves the transport and its thread with that: [`super::Transport::take_newcomers`].
//! Everything in here waits, and is for threads that may.

use super::outbox::Outbox;
use super::wire::{Kind, PREFIX_BYTES, VERSION, take_frame};
use bytes::{Buf, Bytes, BytesMut};
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const JOIN_MAGIC: [u8; 4] = *b"BRLJ";
/// The longest answer: a reason in words.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// Why there is no introduction. One line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Nobody is there.
    #[error("nobody answers at {address}: {source}")]
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// Somebody else is there.
    #[error("{address} is not the peer address of a Brolga node: {what}")]
    NotANode {
        /// The address.
        address: SocketAddr,
        /// What it did instead.
        what: String,
    },
    /// The node does not want to.
    #[error("the node at {address} refuses: {why}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// Its words.
        why: String,
    },
}

/// What a newcomer says first.
pub(super) fn question() -> Vec<u8> {
    let mut body = JOIN_MAGIC.to_vec();
    body.extend_from_slice(&VERSION.to_le_bytes());
    body
}

/// Whether that was said, by somebody of this version.
pub(super) fn check_question(mut body: Bytes) -> Result<(), String> {
    if body.len() != JOIN_MAGIC.len() + 4 || body.split_to(JOIN_MAGIC.len()) != JOIN_MAGIC[..] {
        return Err("not a Brolga node".into());
    }
    match body.get_u32_le() {
        VERSION => Ok(()),
        version => Err(format!(
            "the newcomer speaks version {version}, the cluster {VERSION}"
        )),
    }
}

/// Asks the node at `address` for a connection on which it introduces its cluster. Reads and writes on it
/// fail after `patience`.
///
/// # Errors
/// See [`JoinError`].
pub fn join(address: SocketAddr, patience: Duration) -> Result<TcpStream, JoinError> {
    let unreachable = |source| JoinError::Unreachable { address, source };
    let not_a_node = |what: String| JoinError::NotANode { address, what };
    let socket = TcpStream::connect_timeout(&address, patience);
    let mut socket = socket.map_err(unreachable)?;
    prepare(&socket, patience).map_err(unreachable)?;
    match ask(&mut socket).and_then(|()| answer(&mut socket)) {
        Ok((Kind::Welcome, _)) => Ok(socket),
        Ok((Kind::Refuse, why)) => Err(JoinError::Refused {
            address,
            why: String::from_utf8_lossy(&why).into_owned(),
        }),
        Ok(_) => Err(not_a_node("it says something else".into())),
        Err(error) => Err(not_a_node(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it says nothing".into(),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => "it hangs up".into(),
            _ => error.to_string(),
        })),
    }
}

/// What a node says to a newcomer once it has understood it, on a connection that nothing was said on by
/// the node before: it fits the kernel's buffer.
pub(super) fn welcome(socket: &mut impl io::Write) -> io::Result<()> {
    let mut out = Outbox::default();
    out.push(Kind::Welcome, &[], None);
    out.flush(socket).map(drop)
}

/// Hears a newcomer's question on a fresh connection and welcomes it, as a node's transport does.
///
/// # Errors
/// The connection is gone, or it is no newcomer.
pub fn receive_newcomer(socket: &mut TcpStream) -> io::Result<()> {
    let (kind, body) = answer(socket)?;
    if kind != Kind::Join {
        return Err(io::Error::other("no newcomer"));
    }
    check_question(body).map_err(io::Error::other)?;
    welcome(socket)
}

fn prepare(socket: &TcpStream, patience: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))
}

fn ask(socket: &mut TcpStream) -> io::Result<()> {
    let mut out = Outbox::default();
    out.push(Kind::Join, &question(), None);
    out.flush(socket)?;
    match out.bytes() {
        0 => Ok(()),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Reads one frame and not a byte more: what follows is the caller's.
fn answer(socket: &mut TcpStream) -> io::Result<(Kind, Bytes)> {
    let senseless = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut input = BytesMut::zeroed(PREFIX_BYTES);
    socket.read_exact(&mut input)?;
    let length = (&input[..]).get_u32_le() as usize;
    if length > ANSWER_BYTES_MAX {
        return Err(senseless("its answer makes no sense"));
    }
    input.resize(PREFIX_BYTES + length, 0);
    socket.read_exact(&mut input[PREFIX_BYTES..])?;
    let frame = take_frame(&mut input, ANSWER_BYTES_MAX).map_err(senseless)?;
    frame.ok_or_else(|| senseless("its answer is half a frame"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_question_itself_is_understood() {
        let whole = question();
        assert_eq!(check_question(Bytes::from(whole.clone())), Ok(()));
        for cut in 0..whole.len() {
            assert!(check_question(Bytes::copy_from_slice(&whole[..cut])).is_err());
        }
        for at in 0..whole.len() {
            let mut wrong = whole.clone();
            wrong[at] ^= 1;
            assert!(check_question(Bytes::from(wrong)).is_err(), "byte {at}");
        }
        let mut longer = whole;
        longer.push(0);
        assert!(check_question(Bytes::from(longer)).is_err());
    }
}
