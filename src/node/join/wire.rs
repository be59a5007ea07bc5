//! The protocol between a joiner and a member.
//!
//! ```text
//! frame := length u32 | XXH3 (64 bits) of the payload | payload
//! ```
//!
//! All integers are little-endian.

use crate::frame::Layout;
use anyhow::{Context, bail};
use brolga_config::NodeConfig;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// No payload is longer.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// The layout of frames.
const LAYOUT: Layout = Layout {
    header_bytes: 12,
    length_at: 0,
    kind_at: None,
    hash_at: Some(4),
    payload_bytes_max: PAYLOAD_BYTES_MAX,
};

/// A request of a joiner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// For the cluster's configuration: a [`ClusterInfo`] as JSON.
    ClusterInfo,
    /// For the files that the server starts with.
    Genesis,
}

impl Request {
    /// Encodes the payload.
    pub fn encode(self) -> [u8; 1] {
        match self {
            Self::ClusterInfo => [1],
            Self::Genesis => [2],
        }
    }

    /// Decodes a payload.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        match payload {
            [1] => Some(Self::ClusterInfo),
            [2] => Some(Self::Genesis),
            _ => None,
        }
    }
}

/// The cluster, as a member tells it to a joiner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// The version of the member's program, for the message when the rest cannot be understood.
    pub version: String,
    /// The configuration of the member.
    pub config: serde_json::Value,
}

impl ClusterInfo {
    /// Makes it of a member's configuration.
    ///
    /// # Errors
    /// The configuration cannot be written as JSON.
    pub fn of(config: &NodeConfig) -> serde_json::Result<Self> {
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            config: serde_json::to_value(config)?,
        })
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// The configuration is of another version, or cannot work.
    pub fn config(self) -> anyhow::Result<NodeConfig> {
        let (theirs, ours) = (self.version, env!("CARGO_PKG_VERSION"));
        let mut config: NodeConfig = serde_json::from_value(self.config).with_context(|| {
            format!("the cluster's configuration cannot be read here (brolga {theirs} there, {ours} here)")
        })?;
        // It is checked again when it is complete; files of another machine cannot be checked.
        let genesis = config.genesis.take();
        match config.problem() {
            Some(what) => bail!("the cluster's configuration cannot work: {what}"),
            None => {
                config.genesis = genesis;
                Ok(config)
            }
        }
    }
}

/// Writes one frame.
///
/// # Errors
/// As the connection has them; a payload that is too long.
pub fn write_frame(to: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    to.write_all(&LAYOUT.frame(0, payload)?)
}

/// Reads one frame.
///
/// # Errors
/// As the connection has them; [`io::ErrorKind::InvalidData`] for what is no frame.
pub fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut payload = Vec::new();
    LAYOUT.read(from, &mut payload)?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hexadecimal;

    #[test]
    fn golden_bytes() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &Request::ClusterInfo.encode()).unwrap();
        write_frame(&mut bytes, &Request::Genesis.encode()).unwrap();
        write_frame(&mut bytes, &[]).unwrap();
        assert_eq!(
            hexadecimal(&bytes),
            "01000000ebce86ebd2f92ee101\
             01000000ffdf939e6c2ef4c902\
             00000000c294d3380580062d"
        );
    }

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
    fn requests_survive_and_nothing_else_is_one() {
        for request in [Request::ClusterInfo, Request::Genesis] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        for wrong in [&b""[..], &[0], &[3], &[1, 1], &[2, 0]] {
            assert_eq!(Request::decode(wrong), None);
        }
    }
}
