//! Divergence messages: what nodes send each other to compare their servers.
//!
//! ```text
//! message := kind u64 | words | bytes
//! ```

use crate::server::hashes::SlotHashes;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DivergenceMessage {
    /// The last slot that the sender's server has applied, and its hashes.
    Applied(SlotHashes),
    /// Tell of slots above `low` and up to `high`, `high` itself among them.
    Probe {
        /// Not this one.
        low: u64,
        /// This one too.
        high: u64,
    },
    /// Answer to `Probe`, with its limits: what is still known.
    Samples {
        /// See [`DivergenceMessage::Probe`].
        low: u64,
        /// See [`DivergenceMessage::Probe`].
        high: u64,
        /// In the order of slots.
        hashes: Vec<SlotHashes>,
    },
    /// The sender's output hash after each record of a slot: which of them is the first that
    /// differs?
    Inspect {
        /// The slot.
        slot: u64,
        /// The hashes.
        hashes: Vec<u64>,
    },
    /// Answer to `Inspect`: the first record that differs, as the answering server wrote it.
    Finding {
        /// The slot.
        slot: u64,
        /// Number of equal records before it.
        index: u64,
        /// Empty when there is none, or it was forgotten.
        record: Vec<u8>,
    },
    /// A majority has found the sender's server faulty: its divergence report
    /// ([`super::report::DivergenceReport`]) as JSON. The sender starts again and forgets, so that
    /// others may have to hear of it in this way.
    Report(Vec<u8>),
}

const APPLIED: u64 = 1;
const PROBE: u64 = 2;
const SAMPLES: u64 = 3;
const INSPECT: u64 = 4;
const FINDING: u64 = 5;
const REPORT: u64 = 6;

impl DivergenceMessage {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |words: &[u64]| {
            for word in words {
                out.extend_from_slice(&word.to_le_bytes());
            }
        };
        match self {
            Self::Applied(hashes) => {
                put(&[APPLIED]);
                put(&words(*hashes));
            }
            Self::Probe { low, high } => put(&[PROBE, *low, *high]),
            Self::Samples { low, high, hashes } => {
                put(&[SAMPLES, *low, *high]);
                for one in hashes {
                    put(&words(*one));
                }
            }
            Self::Inspect { slot, hashes } => {
                put(&[INSPECT, *slot]);
                put(hashes);
            }
            Self::Finding {
                slot,
                index,
                record,
            } => {
                put(&[FINDING, *slot, *index]);
                out.extend_from_slice(record);
            }
            Self::Report(report) => {
                put(&[REPORT]);
                out.extend_from_slice(report);
            }
        }
        out
    }

    /// Decodes a message; `None` when it is malformed.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut word = || {
            let (first, others) = rest.split_first_chunk::<8>()?;
            rest = others;
            Some(u64::from_le_bytes(*first))
        };
        Some(match word()? {
            APPLIED => Self::Applied(all_hashes(rest).filter(|all| all.len() == 1)?[0]),
            PROBE => {
                let (low, high) = (word()?, word()?);
                rest.is_empty().then_some(Self::Probe { low, high })?
            }
            SAMPLES => Self::Samples {
                low: word()?,
                high: word()?,
                hashes: all_hashes(rest)?,
            },
            INSPECT => Self::Inspect {
                slot: word()?,
                hashes: all_words(rest)?,
            },
            FINDING => Self::Finding {
                slot: word()?,
                index: word()?,
                record: rest.to_vec(),
            },
            REPORT => Self::Report(rest.to_vec()),
            _ => return None,
        })
    }
}

fn words(hashes: SlotHashes) -> [u64; 3] {
    [hashes.slot, hashes.output_hash, hashes.schedule_hash]
}

fn all_words(bytes: &[u8]) -> Option<Vec<u64>> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let words = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk));
    rest.is_empty().then(|| words.collect())
}

fn all_hashes(bytes: &[u8]) -> Option<Vec<SlotHashes>> {
    let words = all_words(bytes)?;
    let (chunks, rest) = words.as_chunks::<3>();
    let hashes = chunks.iter().map(|chunk| SlotHashes {
        slot: chunk[0],
        output_hash: chunk[1],
        schedule_hash: chunk[2],
    });
    rest.is_empty().then(|| hashes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hexadecimal;

    #[test]
    fn golden_bytes() {
        let hashes = SlotHashes {
            slot: 7,
            output_hash: 1,
            schedule_hash: 2,
        };
        let golden = [
            (
                DivergenceMessage::Applied(hashes),
                "0100000000000000070000000000000001000000000000000200000000000000",
            ),
            (
                DivergenceMessage::Probe { low: 3, high: 9 },
                "020000000000000003000000000000000900000000000000",
            ),
            (
                DivergenceMessage::Samples {
                    low: 3,
                    high: 9,
                    hashes: vec![hashes],
                },
                "0300000000000000030000000000000009000000000000000700000000000000\
                 01000000000000000200000000000000",
            ),
            (
                DivergenceMessage::Inspect {
                    slot: 7,
                    hashes: vec![5],
                },
                "040000000000000007000000000000000500000000000000",
            ),
            (
                DivergenceMessage::Finding {
                    slot: 7,
                    index: 2,
                    record: b"record".to_vec(),
                },
                "0500000000000000070000000000000002000000000000007265636f7264",
            ),
            (
                DivergenceMessage::Report(b"{}".to_vec()),
                "06000000000000007b7d",
            ),
        ];
        for (message, golden) in golden {
            assert_eq!(hexadecimal(&message.encode()), golden, "{message:?}");
        }
    }

    #[test]
    fn messages_survive_the_round_trip_and_broken_ones_are_refused() {
        let hashes = SlotHashes {
            slot: 7,
            output_hash: 1,
            schedule_hash: u64::MAX,
        };
        let messages = [
            DivergenceMessage::Applied(hashes),
            DivergenceMessage::Probe { low: 3, high: 9 },
            DivergenceMessage::Samples {
                low: 3,
                high: 9,
                hashes: vec![hashes, hashes],
            },
            DivergenceMessage::Inspect {
                slot: 9,
                hashes: vec![1, 2, 3],
            },
            DivergenceMessage::Finding {
                slot: 9,
                index: 2,
                record: b"record".to_vec(),
            },
            DivergenceMessage::Report(b"{}".to_vec()),
        ];
        for message in messages {
            let bytes = message.encode();
            assert_eq!(DivergenceMessage::decode(&bytes), Some(message.clone()));
            let whole = matches!(
                message,
                DivergenceMessage::Finding { .. } | DivergenceMessage::Report(_)
            );
            let cut = DivergenceMessage::decode(&bytes[..bytes.len() - 1]);
            assert_eq!(cut.is_some(), whole, "{message:?}");
        }
        assert_eq!(DivergenceMessage::decode(&[]), None);
        assert_eq!(DivergenceMessage::decode(&[9; 8]), None);
    }
}
