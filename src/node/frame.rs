//! Frames: one header and one payload of bounded length, as the protocols between machines send
//! them.
//!
//! A [`Layout`] says where in the header a protocol keeps the length of the payload, the kind of
//! the message and the checksum of the payload. All numbers are little-endian; other bytes of a
//! header are zero.
//!
//! # Invariants
//!
//! * What comes in is not trusted: a length is checked before memory is set aside, and a checksum
//!   before the payload is handed out.
//! * The layouts of protocols that are in use never change; `golden` tests hold their bytes.

use std::io::{self, Read};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// No header is longer.
const HEADER_BYTES_MAX: usize = 16;

/// The places of the fields in the header of a protocol's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Length of the header.
    pub(crate) header_bytes: usize,
    /// The payload's length, `u32`.
    pub(crate) length_at: usize,
    /// The kind of the message, `u32`, if frames have one.
    pub(crate) kind_at: Option<usize>,
    /// XXH3 (64 bits) of the payload, seeded with the kind (or 0), if frames have a checksum.
    pub(crate) hash_at: Option<usize>,
    /// No payload is longer.
    pub(crate) payload_bytes_max: usize,
}

/// Bytes that are no frame of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// The payload is longer than any that the protocol has.
    #[error("a frame of {0} bytes is too long: is the other side of another version?")]
    TooLong(usize),
    /// The payload is not what was sent.
    #[error("a frame with a wrong checksum")]
    Checksum,
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The kind of the message; 0 if frames have none.
    pub(crate) kind: u32,
    /// The payload's length.
    pub(crate) length: usize,
    hash: Option<u64>,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    number.copy_from_slice(&bytes[at..at + N]);
    number
}

impl Layout {
    /// Writes the header of a frame whose payload is behind it already.
    pub(crate) fn seal(&self, frame: &mut [u8], kind: u32) {
        let (header, payload) = frame.split_at_mut(self.header_bytes);
        header.fill(0);
        self.fill(header, kind, payload.len());
        if let Some(at) = self.hash_at {
            let hash = xxh3_64_with_seed(payload, kind.into());
            header[at..][..8].copy_from_slice(&hash.to_le_bytes());
        }
    }

    fn fill(&self, header: &mut [u8], kind: u32, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        header[self.length_at..][..4].copy_from_slice(&length.to_le_bytes());
        if let Some(at) = self.kind_at {
            header[at..][..4].copy_from_slice(&kind.to_le_bytes());
        }
    }

    /// Makes a frame of a payload.
    ///
    /// # Errors
    /// The payload is too long.
    pub(crate) fn frame(&self, kind: u32, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
        self.check_length(payload.len())?;
        let mut frame = vec![0; self.header_bytes];
        frame.extend_from_slice(payload);
        self.seal(&mut frame, kind);
        Ok(frame)
    }

    /// Makes the header of a frame without a checksum, for a payload that is sent in pieces: the
    /// first `header_bytes` of what is returned.
    ///
    /// # Errors
    /// The payload is too long.
    pub(crate) fn header(
        &self,
        kind: u32,
        length: usize,
    ) -> Result<[u8; HEADER_BYTES_MAX], FrameError> {
        debug_assert!(self.hash_at.is_none(), "a checksum needs the payload");
        self.check_length(length)?;
        let mut header = [0; HEADER_BYTES_MAX];
        self.fill(&mut header, kind, length);
        Ok(header)
    }

    /// Reads a header; `None` when there are not as many bytes yet.
    ///
    /// # Errors
    /// The payload is too long.
    pub(crate) fn parse(&self, bytes: &[u8]) -> Result<Option<Header>, FrameError> {
        let Some(header) = bytes.get(..self.header_bytes) else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(number(header, self.length_at)) as usize;
        self.check_length(length)?;
        let kind = self
            .kind_at
            .map(|at| u32::from_le_bytes(number(header, at)));
        let hash = self
            .hash_at
            .map(|at| u64::from_le_bytes(number(header, at)));
        Ok(Some(Header {
            kind: kind.unwrap_or_default(),
            length,
            hash,
        }))
    }

    fn check_length(&self, length: usize) -> Result<(), FrameError> {
        match length <= self.payload_bytes_max {
            true => Ok(()),
            false => Err(FrameError::TooLong(length)),
        }
    }

    /// Reads one frame from `from` and its payload into `payload`, replacing what was there;
    /// returns the kind. No more memory is used than what comes.
    ///
    /// # Errors
    /// The connection broke, or what came is no frame ([`io::ErrorKind::InvalidData`]).
    pub(crate) fn read(&self, from: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<u32> {
        let mut header = [0; HEADER_BYTES_MAX];
        let header = &mut header[..self.header_bytes];
        from.read_exact(header)?;
        let header = self.parse(header)?;
        let Header { kind, length, hash } = header.ok_or(io::ErrorKind::UnexpectedEof)?;
        payload.clear();
        from.take(length as u64).read_to_end(payload)?;
        if payload.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match hash {
            Some(hash) if hash != xxh3_64_with_seed(payload, kind.into()) => {
                Err(FrameError::Checksum.into())
            }
            _ => Ok(kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKED: Layout = Layout {
        header_bytes: 16,
        length_at: 4,
        kind_at: Some(0),
        hash_at: Some(8),
        payload_bytes_max: 5000,
    };
    const PLAIN: Layout = Layout {
        header_bytes: 8,
        length_at: 0,
        kind_at: Some(4),
        hash_at: None,
        payload_bytes_max: 100,
    };

    #[test]
    fn a_frame_is_read_as_it_was_written_or_not_at_all() {
        for payload in [&b""[..], b"x", &[7; 3000]] {
            let frame = CHECKED.frame(3, payload).unwrap();
            let mut read = vec![1, 2, 3];
            assert_eq!(CHECKED.read(&mut &frame[..], &mut read).unwrap(), 3);
            assert_eq!(read, payload);
            for cut in 0..frame.len() {
                let cut = CHECKED.read(&mut &frame[..cut], &mut read);
                assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            }
            for at in (0..frame.len()).filter(|at| *at < 40 || at.is_multiple_of(97)) {
                for bit in 0..8 {
                    let mut wrong = frame.clone();
                    wrong[at] ^= 1 << bit;
                    let outcome = CHECKED.read(&mut &wrong[..], &mut read);
                    assert!(outcome.is_err(), "byte {at}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_header_is_that_of_a_frame_with_as_long_a_payload() {
        let frame = PLAIN.frame(9, b"payload").unwrap();
        let header = PLAIN.header(9, 7).unwrap();
        assert_eq!(frame, [&header[..8], b"payload"].concat());
        assert_eq!(PLAIN.parse(&header[..7]), Ok(None));
        let parsed = PLAIN.parse(&frame).unwrap().unwrap();
        assert_eq!((parsed.kind, parsed.length), (9, 7));
    }

    #[test]
    fn no_memory_is_set_aside_for_what_is_too_long() {
        let too_long = FrameError::TooLong(101);
        assert_eq!(PLAIN.frame(1, &[0; 101]), Err(too_long));
        assert_eq!(PLAIN.header(1, 101), Err(too_long));
        let mut header = PLAIN.header(1, 100).unwrap();
        header[0] = 101;
        assert_eq!(PLAIN.parse(&header), Err(too_long));
        let mut payload = Vec::new();
        let refused = PLAIN.read(&mut &header[..], &mut payload).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        assert_eq!(payload.capacity(), 0);
    }
}
