//! The bytes between two nodes.
//!
//! A frame is `length u32, crc u32, kind u8, body`; length and checksum cover kind and body. All
//! integers are little-endian. A value is the last thing in a message, so that it needs no length
//! and can be sent from where it is and received as a slice of the input.

use crate::core::NodeId;
use bytes::{Buf, Bytes, BytesMut};

/// Version of the protocol; nodes of different versions refuse each other.
pub const VERSION: u32 = 2;
/// Largest frame body: phase 1 may report a window of votes and one more value.
pub const BODY_BYTES_MAX: usize = 128 << 20;
/// Largest frame body from a side that has not said hello.
pub(super) const GREETING_BYTES_MAX: usize = 4 << 10;
/// Bytes in front of a frame's kind.
pub(super) const PREFIX_BYTES: usize = 8;

const HELLO_MAGIC: [u8; 4] = *b"BRLG";

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is zero, or above the limit.
    #[error("a frame of an impossible length")]
    Length,
    /// The checksum does not match.
    #[error("a frame with a wrong checksum")]
    Checksum,
    /// No kind has this number.
    #[error("a frame of unknown kind")]
    Kind,
}

/// The kind of a frame: what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hello = 1,
    Refuse = 2,
    Ping = 3,
    Message = 4,
    App = 5,
    /// A hello of a client that wants the connection for another protocol: see [`super::handoff`].
    Upgrade = 6,
    /// A joiner asks for the cluster: see [`mod@super::join`].
    Join = 7,
    /// The answer to a joiner.
    JoinAccepted = 8,
}

impl Kind {
    /// The kind in words.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Hello => "hello",
            Kind::Refuse => "refusal",
            Kind::Ping => "ping",
            Kind::Message => "consensus message",
            Kind::App => "application frame",
            Kind::Upgrade => "upgrade request",
            Kind::Join => "join request",
            Kind::JoinAccepted => "answer to a join request",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Kind::Hello,
            2 => Kind::Refuse,
            3 => Kind::Ping,
            4 => Kind::Message,
            5 => Kind::App,
            6 => Kind::Upgrade,
            7 => Kind::Join,
            8 => Kind::JoinAccepted,
            _ => return None,
        })
    }
}

/// Takes the next whole frame, of at most `limit` bytes, off the input; `None` if it is not whole
/// yet.
pub(super) fn take_frame(
    input: &mut BytesMut,
    limit: usize,
) -> Result<Option<(Kind, Bytes)>, FrameError> {
    let Some(prefix) = input.get(..PREFIX_BYTES) else {
        return Ok(None);
    };
    let mut prefix = prefix;
    let length = prefix.get_u32_le() as usize;
    let crc = prefix.get_u32_le();
    if length == 0 || length > limit {
        return Err(FrameError::Length);
    }
    if input.len() < PREFIX_BYTES + length {
        input.reserve(PREFIX_BYTES + length - input.len());
        return Ok(None);
    }
    input.advance(PREFIX_BYTES);
    let mut body = input.split_to(length).freeze();
    if crc32c::crc32c(&body) != crc {
        return Err(FrameError::Checksum);
    }
    let kind = Kind::from_byte(body.get_u8()).ok_or(FrameError::Kind)?;
    Ok(Some((kind, body)))
}

/// First frame in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub version: u32,
    pub cluster: u128,
    pub from: NodeId,
    pub to: NodeId,
}

impl Hello {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        out.extend_from_slice(&HELLO_MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.cluster.to_le_bytes());
        out.extend_from_slice(&self.from.to_le_bytes());
        out.extend_from_slice(&self.to.to_le_bytes());
        out
    }

    pub fn decode(mut body: Bytes) -> Option<Self> {
        if body.len() < 40 || body.split_to(4) != HELLO_MAGIC[..] {
            return None;
        }
        Some(Self {
            version: body.get_u32_le(),
            cluster: body.get_u128_le(),
            from: body.get_u64_le(),
            to: body.get_u64_le(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_frames_are_refused() {
        let mut input = BytesMut::from(&[0u8; 12][..]);
        assert!(take_frame(&mut input, 100).is_err());
        let mut input = BytesMut::from(&[2u8, 0, 0, 0, 1, 2, 3, 4, 3, 3][..]);
        assert!(take_frame(&mut input, 100).is_err());
        let mut input = BytesMut::from(&[2u8, 0, 0, 0, 1][..]);
        assert_eq!(take_frame(&mut input, 100), Ok(None));
    }
}
