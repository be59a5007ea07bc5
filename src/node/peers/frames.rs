//! Messages between nodes beside those of consensus, over the same links.
//!
//! ```text
//! frame := kind u8, 3 zero bytes | count u32 | payload
//! ```

use crate::checkpoint::coordination::TokenMessage;
use brolga_consensus::Ballot;

/// A frame, borrowed from the received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerFrame<'a> {
    /// Events of a frontend, for the leader to order: how many, and their encoding.
    Forward(u32, &'a [u8]),
    /// Answer to `Forward`: this node does not lead; send it again to whoever does.
    NotLeader,
    /// To the leader: these stand-alone frontends are attached (numbers of eight bytes).
    Alive(&'a [u8]),
    /// The sender's newest whole checkpoint is of this slot; 0: it has none.
    Checkpoint(u64),
    /// The sender fetches the checkpoint of this slot, or has, and needs the log behind it; 0: no
    /// more.
    Fetching(u64),
    /// About the checkpoint token, under the sender's ballot (its round and its leader).
    CheckpointToken(TokenMessage, Ballot),
    /// The fingerprint of a server; see [`crate::peers::compatibility::CompatibilityMessage`].
    Introduce(&'a [u8]),
    /// Servers are compared; see [`crate::divergence::messages::DivergenceMessage`].
    Compare(&'a [u8]),
}

const HEADER_BYTES: usize = 8;
const FORWARD: u8 = 1;
const NOT_LEADER: u8 = 2;
const ALIVE: u8 = 3;
const COMPARE: u8 = 4;
const CHECKPOINT: u8 = 5;
const INTRODUCE: u8 = 6;
const CHECKPOINT_TOKEN: u8 = 8;
const FETCHING: u8 = 9;

impl<'a> PeerFrame<'a> {
    /// Writes the frame to `out`, replacing what was there.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (slot, mut ballot);
        let (kind, count, payload): (u8, u32, &[u8]) = match *self {
            Self::Checkpoint(of) => {
                slot = of.to_le_bytes();
                (CHECKPOINT, 0, &slot)
            }
            Self::Fetching(of) => {
                slot = of.to_le_bytes();
                (FETCHING, 0, &slot)
            }
            Self::CheckpointToken(message, under) => {
                ballot = under.round.to_le_bytes().to_vec();
                ballot.extend_from_slice(&under.node.to_le_bytes());
                (CHECKPOINT_TOKEN, message.number(), &ballot)
            }
            Self::Forward(count, events) => (FORWARD, count, events),
            Self::NotLeader => (NOT_LEADER, 0, &[]),
            Self::Alive(frontends) => (ALIVE, 0, frontends),
            Self::Compare(message) => (COMPARE, 0, message),
            Self::Introduce(message) => (INTRODUCE, 0, message),
        };
        out.clear();
        out.extend_from_slice(&[kind, 0, 0, 0]);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(payload);
    }

    /// Reads a frame; `None` when it is of a kind that this version does not know.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_at_checked(HEADER_BYTES)?;
        let count = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        match header[0] {
            FORWARD => Some(Self::Forward(count, payload)),
            NOT_LEADER => Some(Self::NotLeader),
            ALIVE => Some(Self::Alive(payload)),
            COMPARE => Some(Self::Compare(payload)),
            INTRODUCE => Some(Self::Introduce(payload)),
            CHECKPOINT => Some(Self::Checkpoint(u64::from_le_bytes(
                payload.try_into().ok()?,
            ))),
            FETCHING => Some(Self::Fetching(u64::from_le_bytes(payload.try_into().ok()?))),
            CHECKPOINT_TOKEN => {
                let (round, node) = payload.split_first_chunk()?;
                let ballot = Ballot {
                    round: u64::from_le_bytes(*round),
                    node: u64::from_le_bytes(node.try_into().ok()?),
                };
                Some(Self::CheckpointToken(
                    TokenMessage::of_number(count)?,
                    ballot,
                ))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hexadecimal;

    #[test]
    fn golden_bytes() {
        let ballot = Ballot { round: 7, node: 2 };
        let golden = [
            (PeerFrame::Forward(3, b"abc"), "0100000003000000616263"),
            (PeerFrame::NotLeader, "0200000000000000"),
            (PeerFrame::Alive(&[7; 2]), "03000000000000000707"),
            (PeerFrame::Compare(b"ab"), "04000000000000006162"),
            (PeerFrame::Checkpoint(9), "05000000000000000900000000000000"),
            (PeerFrame::Introduce(b"{}"), "06000000000000007b7d"),
            (
                PeerFrame::CheckpointToken(TokenMessage::Release, ballot),
                "080000000400000007000000000000000200000000000000",
            ),
            (PeerFrame::Fetching(9), "09000000000000000900000000000000"),
        ];
        for (frame, golden) in golden {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            assert_eq!(hexadecimal(&bytes), golden, "{frame:?}");
        }
    }

    #[test]
    fn frames_survive_the_round_trip() {
        let mut bytes = vec![1, 2, 3];
        let alive = [7; 16];
        for frame in [
            PeerFrame::Forward(3, b"abc"),
            PeerFrame::NotLeader,
            PeerFrame::Alive(&alive),
            PeerFrame::Compare(b"hashes"),
            PeerFrame::Introduce(b"{}"),
            PeerFrame::Checkpoint(1 << 40),
            PeerFrame::Fetching(1 << 41),
            PeerFrame::CheckpointToken(TokenMessage::Idle, Ballot { round: 7, node: 2 }),
        ] {
            frame.encode(&mut bytes);
            assert_eq!(PeerFrame::decode(&bytes), Some(frame));
        }
        assert_eq!(PeerFrame::decode(b"short"), None);
        assert_eq!(PeerFrame::decode(&[99; 8]), None);
    }
}
