//! The protocol of a connection on which a checkpoint is fetched.
//!
//! ```text
//! frame   := kind u8, 3 zero bytes | length u32 | hash u64 | payload
//! hash    := XXH3 (64 bits) of the payload, seeded with the kind
//!
//! fetcher ── Ask {least slot, preferred checkpoint, refused ones} ──▶ donor
//!         ◀── Offer {slot, length and hash of its manifest} ── or Nothing {why}
//!         ── Read {file, offset, length} ──▶             several at once, answered in order
//!         ◀── Chunk {file, offset, bytes} ── or Hole {file, offset, length}: as many zeros
//! ```
//!
//! Files go by their place in the manifest, which is itself file [`MANIFEST`]. All integers are
//! little-endian. What comes in is not trusted: lengths are bounded before memory is set
//! aside, checksums are compared.

use crate::frame::Layout;
use std::io::{self, Read, Write};

/// Bytes of a file that are asked for at once, at most.
pub const CHUNK_BYTES: u32 = 256 << 10;
/// Number of the manifest among the files.
pub const MANIFEST: u32 = u32::MAX;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 16;
/// Bytes of a chunk's payload before the file's bytes.
pub const CHUNK_HEAD_BYTES: usize = 16;
/// No payload is longer.
const PAYLOAD_BYTES_MAX: usize = CHUNK_BYTES as usize + CHUNK_HEAD_BYTES;
/// The layout of frames.
const LAYOUT: Layout = Layout {
    header_bytes: HEADER_BYTES,
    length_at: 4,
    kind_at: Some(0),
    hash_at: Some(8),
    payload_bytes_max: PAYLOAD_BYTES_MAX,
};
/// No reason is longer.
const WHY_BYTES_MAX: usize = 1 << 10;
/// Bytes of the hashes of checkpoints that are refused, at most.
pub const EXCEPT_BYTES_MAX: usize = 64 * 16;

const ASK: u8 = 1;
const READ: u8 = 2;
const OFFER: u8 = 3;
const NOTHING: u8 = 4;
const CHUNK: u8 = 5;
const HOLE: u8 = 6;

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Place in the manifest, or [`MANIFEST`].
    pub file: u32,
    /// The first byte.
    pub offset: u64,
    /// Length: 1 to [`CHUNK_BYTES`].
    pub bytes: u32,
}

/// The identity of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointId {
    /// The slot.
    pub slot: u64,
    /// Hash of its manifest.
    pub manifest: u128,
}

/// A message, borrowed from the buffer that it was read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Asks for the newest checkpoint, or for one of which a part is here already if that is there
    /// too.
    Ask {
        /// Older ones are of no use.
        at_least: u64,
        /// See above.
        preferred: Option<CheckpointId>,
        /// Hashes of manifests, 16 bytes each: these are of no use either.
        except: &'a [u8],
    },
    /// A piece is wanted.
    Read(Piece),
    /// This one is there, and stays as long as the connection.
    Offer {
        /// Which.
        what: CheckpointId,
        /// Length of the manifest.
        manifest_bytes: u64,
    },
    /// There is none, or no more of it; the reason in words.
    Nothing(&'a str),
    /// The piece that was asked for.
    Chunk {
        /// File.
        file: u32,
        /// The first byte.
        offset: u64,
        /// Content.
        bytes: &'a [u8],
    },
    /// The piece that was asked for is all zeros.
    Hole(Piece),
}

impl<'a> Message<'a> {
    /// Writes the frame to `out`, replacing what was there.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.resize(HEADER_BYTES, 0);
        let kind = match *self {
            Self::Ask {
                at_least,
                preferred,
                except,
            } => {
                out.extend_from_slice(&at_least.to_le_bytes());
                out.extend_from_slice(&u64::from(preferred.is_some()).to_le_bytes());
                if let Some(preferred) = preferred {
                    put_id(out, preferred);
                }
                out.extend_from_slice(except);
                ASK
            }
            Self::Read(piece) => {
                put_piece(out, piece);
                READ
            }
            Self::Offer {
                what,
                manifest_bytes,
            } => {
                put_id(out, what);
                out.extend_from_slice(&manifest_bytes.to_le_bytes());
                OFFER
            }
            Self::Nothing(why) => {
                let most = (0..=why.len().min(WHY_BYTES_MAX)).rev();
                let end = most.into_iter().find(|at| why.is_char_boundary(*at));
                out.extend_from_slice(&why.as_bytes()[..end.unwrap_or_default()]);
                NOTHING
            }
            Self::Chunk {
                file,
                offset,
                bytes,
            } => {
                begin_chunk(out, file, offset);
                out.extend_from_slice(bytes);
                CHUNK
            }
            Self::Hole(piece) => {
                put_piece(out, piece);
                HOLE
            }
        };
        seal(out, kind);
    }

    /// Reads a payload; `None` when it is malformed.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(payload);
        let message = match kind {
            ASK => Self::Ask {
                at_least: rest.u64()?,
                preferred: match rest.u64()? {
                    0 => None,
                    1 => Some(rest.checkpoint_id()?),
                    _ => return None,
                },
                except: {
                    let except = std::mem::take(&mut rest.0);
                    let sound = except.len() % 16 == 0 && except.len() <= EXCEPT_BYTES_MAX;
                    sound.then_some(except)?
                },
            },
            READ => Self::Read(rest.piece()?),
            OFFER => Self::Offer {
                what: rest.checkpoint_id()?,
                manifest_bytes: rest.u64()?,
            },
            NOTHING => {
                let why = std::str::from_utf8(std::mem::take(&mut rest.0)).ok()?;
                Self::Nothing((why.len() <= WHY_BYTES_MAX).then_some(why)?)
            }
            CHUNK => {
                let Piece {
                    file,
                    offset,
                    bytes,
                } = rest.piece()?;
                let content = std::mem::take(&mut rest.0);
                let whole = content.len() == bytes as usize;
                whole.then_some(Self::Chunk {
                    file,
                    offset,
                    bytes: content,
                })?
            }
            HOLE => Self::Hole(rest.piece()?),
            _ => return None,
        };
        rest.0.is_empty().then_some(message)
    }
}

/// Makes `out` a frame with the content to be added, and [`end_chunk`] to be called then.
pub fn begin_chunk(out: &mut Vec<u8>, file: u32, offset: u64) {
    out.clear();
    out.resize(HEADER_BYTES, 0);
    put_piece(
        out,
        Piece {
            file,
            offset,
            bytes: 0,
        },
    );
}

/// See [`begin_chunk`].
pub fn end_chunk(out: &mut [u8]) {
    seal(out, CHUNK);
}

fn put_id(out: &mut Vec<u8>, id: CheckpointId) {
    out.extend_from_slice(&id.slot.to_le_bytes());
    out.extend_from_slice(&id.manifest.to_le_bytes());
}

fn put_piece(out: &mut Vec<u8>, piece: Piece) {
    out.extend_from_slice(&piece.file.to_le_bytes());
    out.extend_from_slice(&piece.bytes.to_le_bytes());
    out.extend_from_slice(&piece.offset.to_le_bytes());
}

/// Fills in the header of a frame whose payload is there.
fn seal(out: &mut [u8], kind: u8) {
    if kind == CHUNK {
        let content = out.len() - HEADER_BYTES - CHUNK_HEAD_BYTES;
        let content = u32::try_from(content).unwrap_or(u32::MAX);
        out[HEADER_BYTES + 4..HEADER_BYTES + 8].copy_from_slice(&content.to_le_bytes());
    }
    LAYOUT.seal(out, kind.into());
}

struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn checkpoint_id(&mut self) -> Option<CheckpointId> {
        Some(CheckpointId {
            slot: self.u64()?,
            manifest: self.take().map(u128::from_le_bytes)?,
        })
    }

    /// Reads a piece that is not empty and whose end is a number.
    fn piece(&mut self) -> Option<Piece> {
        let (file, bytes) = (self.u32()?, self.u32()?);
        let offset = self.u64()?;
        let sound =
            (1..=CHUNK_BYTES).contains(&bytes) && offset.checked_add(bytes.into()).is_some();
        sound.then_some(Piece {
            file,
            offset,
            bytes,
        })
    }
}

/// Reads one frame from `from` into `buffer`; returns its kind.
///
/// # Errors
/// The connection broke, or what came is no frame.
pub fn receive(from: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<u8> {
    let kind = LAYOUT.read(from, buffer)?;
    u8::try_from(kind).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a frame"))
}

/// Writes one message.
///
/// # Errors
/// The connection broke.
pub fn send(to: &mut impl Write, message: &Message<'_>, buffer: &mut Vec<u8>) -> io::Result<()> {
    message.encode(buffer);
    to.write_all(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hexadecimal;

    const PIECE: Piece = Piece {
        file: 3,
        offset: 1 << 40,
        bytes: 5,
    };
    const ID: CheckpointId = CheckpointId {
        slot: 77,
        manifest: 1 << 100,
    };

    fn messages() -> Vec<Message<'static>> {
        vec![
            Message::Ask {
                at_least: 9,
                preferred: None,
                except: &[],
            },
            Message::Ask {
                at_least: 9,
                preferred: Some(ID),
                except: &[7; 32],
            },
            Message::Read(PIECE),
            Message::Offer {
                what: ID,
                manifest_bytes: 1234,
            },
            Message::Nothing("there is none"),
            Message::Chunk {
                file: 3,
                offset: 9,
                bytes: b"bytes",
            },
            Message::Hole(PIECE),
        ]
    }

    #[test]
    fn messages_survive_the_wire() {
        let mut stream = Vec::new();
        let mut frame = Vec::new();
        for message in messages() {
            send(&mut stream, &message, &mut frame).unwrap();
        }
        let (mut from, mut buffer) = (&stream[..], Vec::new());
        for message in messages() {
            let kind = receive(&mut from, &mut buffer).unwrap();
            assert_eq!(Message::decode(kind, &buffer), Some(message));
        }
        assert!(from.is_empty());
    }

    #[test]
    fn golden_bytes() {
        let golden = [
            "01000000100000004139ed8a87d8b49809000000000000000000000000000000",
            "010000004800000082d925357fc6a483090000000000000001000000000000004d000000\
             000000000000000000000000000000001000000007070707070707070707070707070707\
             07070707070707070707070707070707",
            "020000001000000060aa7cc9b07ee82203000000050000000000000000010000",
            "03000000200000005a9d8fb098d44fed4d00000000000000000000000000000000000000\
             10000000d204000000000000",
            "040000000d000000f484630b9f941b217468657265206973206e6f6e65",
            "050000001500000013585576403ca2430300000005000000090000000000000062797465\
             73",
            "06000000100000003b8d9e3f1d51635303000000050000000000000000010000",
        ];
        for (message, golden) in messages().iter().zip(golden) {
            let mut frame = Vec::new();
            message.encode(&mut frame);
            assert_eq!(hexadecimal(&frame), golden, "{message:?}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for message in messages() {
            let (mut frame, mut buffer) = (Vec::new(), Vec::new());
            message.encode(&mut frame);
            for at in 0..frame.len() {
                assert!(
                    receive(&mut &frame[..at], &mut buffer).is_err(),
                    "cut at {at}"
                );
                let mut flipped = frame.clone();
                flipped[at] ^= 4;
                assert!(receive(&mut &flipped[..], &mut buffer).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn no_memory_is_set_aside_for_what_is_too_long() {
        let mut frame = Vec::new();
        Message::Nothing("").encode(&mut frame);
        frame[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut buffer = Vec::new();
        receive(&mut &frame[..], &mut buffer).unwrap_err();
        assert!(buffer.capacity() < PAYLOAD_BYTES_MAX);
        let long = "ä".repeat(WHY_BYTES_MAX);
        Message::Nothing(&long).encode(&mut frame);
        let kind = receive(&mut &frame[..], &mut buffer).unwrap();
        assert_eq!(buffer.len(), WHY_BYTES_MAX);
        assert!(Message::decode(kind, &buffer).is_some());
    }
}
