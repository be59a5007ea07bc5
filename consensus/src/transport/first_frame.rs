//! The first frame in each direction of a connection that another protocol takes over afterwards.
//!
//! Calls block, for at most the timeouts of the socket; they are for threads that may wait.

use super::outbox::Outbox;
use super::wire::{Kind, PREFIX_BYTES, take_frame};
use bytes::{Buf, Bytes, BytesMut};
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest answer: a reason in words.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// Connects; reads and writes on the connection fail after `timeout`.
pub(super) fn connect(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, timeout)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    Ok(socket)
}

/// Writes one frame.
pub(super) fn send(socket: &mut TcpStream, kind: Kind, body: &[u8]) -> io::Result<()> {
    let mut out = Outbox::default();
    out.push(kind, body, None);
    while out.bytes() > 0 {
        if !out.flush(socket)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// Reads one frame and not a byte more: the bytes after it belong to the caller.
pub(super) fn receive(socket: &mut TcpStream) -> io::Result<(Kind, Bytes)> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut input = BytesMut::zeroed(PREFIX_BYTES);
    socket.read_exact(&mut input)?;
    let length = (&input[..]).get_u32_le() as usize;
    if length > ANSWER_BYTES_MAX {
        return Err(invalid("a frame of an impossible length".to_owned()));
    }
    input.resize(PREFIX_BYTES + length, 0);
    socket.read_exact(&mut input[PREFIX_BYTES..])?;
    let frame = take_frame(&mut input, ANSWER_BYTES_MAX);
    let frame = frame.map_err(|error| invalid(error.to_string()))?;
    frame.ok_or_else(|| invalid("half a frame".to_owned()))
}
