//! What is said on a connection of a newcomer.
//!
//! ```text
//! frame := length u32 | XXH3 (64 bits) of the payload | payload
//! ```
//!
//! All integers are little-endian.

use std::io::{self, Read, Write};
use xxhash_rust::xxh3::xxh3_64;

/// No payload is longer.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Bytes before the payload.
const HEADER_BYTES: usize = 12;

/// What a newcomer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which cluster is this?
    Introduction,
    /// The files that the server starts with.
    Genesis,
}

impl Question {
    /// Its payload.
    pub fn encode(self) -> [u8; 1] {
        match self {
            Self::Introduction => [1],
            Self::Genesis => [2],
        }
    }

    /// The other way round.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        match payload {
            [1] => Some(Self::Introduction),
            [2] => Some(Self::Genesis),
            _ => None,
        }
    }
}

/// Writes one frame.
///
/// # Errors
/// As the connection has them; a payload that is too long.
pub fn write_frame(to: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).ok();
    let length = length.filter(|length| *length as usize <= PAYLOAD_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("too much for one frame"))?;
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&xxh3_64(payload).to_le_bytes());
    to.write_all(&header)?;
    to.write_all(payload)
}

/// Reads one frame; no more than it says is set aside, and no more than [`PAYLOAD_BYTES_MAX`].
///
/// # Errors
/// As the connection has them; [`io::ErrorKind::InvalidData`] for what makes no sense.
pub fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let senseless = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut header = [0; HEADER_BYTES];
    from.read_exact(&mut header)?;
    let [a, b, c, d, hash @ ..] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err(senseless("frame of a senseless length"));
    }
    let mut payload = Vec::new();
    from.take(length as u64).read_to_end(&mut payload)?;
    if payload.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match xxh3_64(&payload) == u64::from_le_bytes(hash) {
        true => Ok(payload),
        false => Err(senseless("frame with a wrong checksum")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_or_not_at_all() {
        for payload in [&b""[..], b"x", &[7; 3000]] {
            let mut bytes = Vec::new();
            write_frame(&mut bytes, payload).unwrap();
            assert_eq!(read_frame(&mut &bytes[..]).unwrap(), payload);
            for cut in 0..bytes.len() {
                assert!(read_frame(&mut &bytes[..cut]).is_err(), "cut at {cut}");
            }
            for at in (0..bytes.len()).filter(|at| *at < 40 || at.is_multiple_of(97)) {
                for bit in 0..8 {
                    let mut wrong = bytes.clone();
                    wrong[at] ^= 1 << bit;
                    assert!(read_frame(&mut &wrong[..]).is_err(), "byte {at}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn questions_survive_and_nothing_else_is_one() {
        for question in [Question::Introduction, Question::Genesis] {
            assert_eq!(Question::decode(&question.encode()), Some(question));
        }
        for wrong in [&b""[..], &[0], &[3], &[1, 1], &[2, 0]] {
            assert_eq!(Question::decode(wrong), None);
        }
    }
}
