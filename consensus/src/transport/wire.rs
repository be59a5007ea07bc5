//! The bytes between two nodes.
//!
//! A frame is `length u32, crc u32, kind u8, body`; length and checksum cover kind and body. All
//! integers are little-endian. A value is the last thing in a message, so that it needs no length and
//! can be sent from where it is and received as a slice of the input.

use super::error::FrameError;
use crate::core::{AcceptedEntry, Ballot, Echo, Msg, NodeId};
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

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hello = 1,
    Refuse = 2,
    Ping = 3,
    Message = 4,
    App = 5,
    /// A hello from somebody who wants the connection for something else: see [`super::handoff`].
    Upgrade = 6,
    /// Somebody wants to know the cluster: see [`mod@super::join`].
    Join = 7,
    /// Answer to that.
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

/// Takes the next whole frame, of at most `limit` bytes, off the input; `None` if it is not whole yet.
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

const PROBE: u8 = 1;
const PROBE_REPLY: u8 = 2;
const PREPARE: u8 = 3;
const PROMISE: u8 = 4;
const ACCEPT: u8 = 5;
const ACCEPTED: u8 = 6;
const HEARTBEAT: u8 = 7;
const COMMIT: u8 = 8;
const REJECT: u8 = 9;
const RESIGN: u8 = 10;
const ASK: u8 = 11;
const ANSWER: u8 = 12;
const BEHIND: u8 = 13;

/// Small, growable, on the stack as long as a message is: all but phase 1b fit.
pub(super) struct Head {
    bytes: Vec<u8>,
}

impl Head {
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(64),
        }
    }

    fn start(&mut self, tag: u8) -> &mut Self {
        self.bytes.clear();
        self.bytes.push(tag);
        self
    }

    fn word(&mut self, word: u64) -> &mut Self {
        self.bytes.extend_from_slice(&word.to_le_bytes());
        self
    }

    fn ballot(&mut self, ballot: Ballot) -> &mut Self {
        self.word(ballot.round).word(ballot.node)
    }

    fn value(&mut self, value: &Bytes) -> &mut Self {
        self.word(value.len() as u64);
        self.bytes.extend_from_slice(value);
        self
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Encodes a message into `head`, all but the value it may end with, which is returned.
pub(super) fn encode<'a>(msg: &'a Msg, head: &mut Head) -> Option<&'a Bytes> {
    match msg {
        Msg::Probe { nonce, commit } => head.start(PROBE).word(*nonce).word(*commit),
        Msg::ProbeReply {
            nonce,
            granted,
            promised,
        } => head
            .start(PROBE_REPLY)
            .word(*nonce)
            .word(u64::from(*granted))
            .ballot(*promised),
        Msg::Prepare { ballot, from } => head.start(PREPARE).ballot(*ballot).word(*from),
        Msg::Promise {
            ballot,
            commit,
            entries,
        } => {
            head.start(PROMISE)
                .ballot(*ballot)
                .word(*commit)
                .word(entries.len() as u64);
            for entry in entries {
                head.word(entry.slot)
                    .ballot(entry.ballot)
                    .value(&entry.value);
            }
            head
        }
        Msg::Accept {
            ballot,
            slot,
            commit,
            value,
        } => {
            head.start(ACCEPT).ballot(*ballot).word(*slot).word(*commit);
            return Some(value);
        }
        Msg::Accepted {
            ballot,
            upto,
            seen,
            barrier,
            echo,
        } => {
            head.start(ACCEPTED)
                .ballot(*ballot)
                .word(*upto)
                .word(*seen)
                .word(*barrier);
            if let Some(Echo { beat, next }) = echo {
                head.word(*beat).word(*next);
            }
            head
        }
        Msg::Heartbeat {
            ballot,
            commit,
            next,
            beat,
        } => head
            .start(HEARTBEAT)
            .ballot(*ballot)
            .word(*commit)
            .word(*next)
            .word(*beat),
        Msg::Commit { ballot, commit } => head.start(COMMIT).ballot(*ballot).word(*commit),
        Msg::Behind { ballot, first } => head.start(BEHIND).ballot(*ballot).word(*first),
        Msg::Ask { nonce } => head.start(ASK).word(*nonce),
        Msg::Answer {
            nonce,
            promised,
            last,
            lost,
        } => head
            .start(ANSWER)
            .word(*nonce)
            .ballot(*promised)
            .word(*last)
            .word(u64::from(*lost)),
        Msg::Reject { promised } => head.start(REJECT).ballot(*promised),
        Msg::Resign { ballot } => head.start(RESIGN).ballot(*ballot),
    };
    None
}

/// Decodes a message; `None` if it makes no sense.
pub(super) fn decode(mut body: Bytes) -> Option<Msg> {
    let body = &mut body;
    let msg = match body.try_get_u8().ok()? {
        PROBE => Msg::Probe {
            nonce: word(body)?,
            commit: word(body)?,
        },
        PROBE_REPLY => Msg::ProbeReply {
            nonce: word(body)?,
            granted: word(body)? != 0,
            promised: ballot(body)?,
        },
        PREPARE => Msg::Prepare {
            ballot: ballot(body)?,
            from: word(body)?,
        },
        PROMISE => promise(body)?,
        ACCEPT => Msg::Accept {
            ballot: ballot(body)?,
            slot: word(body)?,
            commit: word(body)?,
            value: std::mem::take(body),
        },
        ACCEPTED => Msg::Accepted {
            ballot: ballot(body)?,
            upto: word(body)?,
            seen: word(body)?,
            barrier: word(body)?,
            echo: match body.is_empty() {
                true => None,
                false => Some(Echo {
                    beat: word(body)?,
                    next: word(body)?,
                }),
            },
        },
        HEARTBEAT => Msg::Heartbeat {
            ballot: ballot(body)?,
            commit: word(body)?,
            next: word(body)?,
            beat: word(body)?,
        },
        COMMIT => Msg::Commit {
            ballot: ballot(body)?,
            commit: word(body)?,
        },
        RESIGN => Msg::Resign {
            ballot: ballot(body)?,
        },
        REJECT => Msg::Reject {
            promised: ballot(body)?,
        },
        BEHIND => Msg::Behind {
            ballot: ballot(body)?,
            first: word(body)?,
        },
        ASK => Msg::Ask { nonce: word(body)? },
        ANSWER => Msg::Answer {
            nonce: word(body)?,
            promised: ballot(body)?,
            last: word(body)?,
            lost: word(body)? != 0,
        },
        _ => return None,
    };
    body.is_empty().then_some(msg)
}

fn promise(body: &mut Bytes) -> Option<Msg> {
    let (ballot_, commit) = (ballot(body)?, word(body)?);
    let count = word(body)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (slot, ballot) = (word(body)?, ballot(body)?);
        let length = usize::try_from(word(body)?).ok()?;
        if body.len() < length {
            return None;
        }
        entries.push(AcceptedEntry {
            slot,
            ballot,
            value: body.split_to(length),
        });
    }
    Some(Msg::Promise {
        ballot: ballot_,
        commit,
        entries,
    })
}

fn word(body: &mut Bytes) -> Option<u64> {
    body.try_get_u64_le().ok()
}

fn ballot(body: &mut Bytes) -> Option<Ballot> {
    Some(Ballot {
        round: word(body)?,
        node: word(body)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(msg: &Msg) {
        let mut head = Head::new();
        let value = encode(msg, &mut head).cloned().unwrap_or_default();
        let mut body = head.bytes().to_vec();
        body.extend_from_slice(&value);
        assert_eq!(decode(Bytes::from(body.clone())).as_ref(), Some(msg));
        if !matches!(msg, Msg::Accept { .. }) {
            body.push(0);
            assert_eq!(decode(Bytes::from(body.clone())), None, "trailing bytes");
        }
        for cut in 0..head.bytes().len() {
            // The echo is optional, so an acknowledgement may end before it.
            let shorter = decode(Bytes::copy_from_slice(&head.bytes()[..cut]));
            assert!(shorter.is_none() || matches!(shorter, Some(Msg::Accepted { .. })));
        }
    }

    #[test]
    fn messages_survive_the_wire() {
        let ballot = Ballot { round: 7, node: 3 };
        let value = Bytes::from_static(b"value");
        let entry = AcceptedEntry {
            slot: 9,
            ballot,
            value: value.clone(),
        };
        let echo = Some(Echo { beat: 4, next: 12 });
        for msg in [
            Msg::Probe {
                nonce: 1,
                commit: 2,
            },
            Msg::ProbeReply {
                nonce: 1,
                granted: true,
                promised: ballot,
            },
            Msg::Prepare { ballot, from: 5 },
            Msg::Promise {
                ballot,
                commit: 3,
                entries: vec![entry.clone(), entry],
            },
            Msg::Promise {
                ballot,
                commit: 3,
                entries: vec![],
            },
            Msg::Accept {
                ballot,
                slot: 8,
                commit: 7,
                value,
            },
            Msg::Accept {
                ballot,
                slot: 8,
                commit: 7,
                value: Bytes::new(),
            },
            Msg::Accepted {
                ballot,
                upto: 4,
                seen: 6,
                barrier: 0,
                echo: None,
            },
            Msg::Accepted {
                ballot,
                upto: 4,
                seen: 6,
                barrier: 9,
                echo,
            },
            Msg::Behind { ballot, first: 100 },
            Msg::Ask { nonce: 9 },
            Msg::Answer {
                nonce: 9,
                promised: ballot,
                last: 77,
                lost: true,
            },
            Msg::Heartbeat {
                ballot,
                commit: 4,
                next: 9,
                beat: 2,
            },
            Msg::Commit { ballot, commit: 11 },
            Msg::Reject { promised: ballot },
            Msg::Resign { ballot },
        ] {
            round_trip(&msg);
        }
    }

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
