//! The state of a node at a slot, apart from its server, as it lies in a checkpoint (file `node`).
//!
//! The server is at slot *k*, and so are the records that it has written. What the log says of
//! connections may be known further, up to `seen`: that is kept as it is, because events that are
//! shown twice change nothing, and the rest of the log is shown from there on.
//!
//! Not in it, because it does not outlive a node daemon or is the log's own business: the node's
//! own clients (the next daemon's frontend ends their connections through the log), leadership,
//! membership, what is under way to the leader.

use crate::clients::saved::{SavedConns, SavedOutput};
use crate::server::hashes::SlotHashes;
use brolga_tape::record::Transport;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Name of the file within a checkpoint.
pub const FILE_NAME: &str = "node";
/// Directory within a checkpoint that holds the image of the server.
pub const SERVER_DIR: &str = "server";
/// Version of the format.
const VERSION: u32 = 1;
/// Slots before *k* whose hashes are kept, so that a divergence found later can be traced back.
pub const HASHES_KEPT: u64 = 4096;

/// The state of a node: see the description of this module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    pub(crate) version: u32,
    /// Slot *k* and the hashes there.
    pub applied: SlotHashes,
    /// Virtual time of the server's earliest timer.
    pub deadline_ns: u64,
    /// Every slot up to this one was looked at.
    pub seen: u64,
    /// The last of them with an entry in it.
    pub last_entry: u64,
    /// The time of the last entry seen.
    pub time_ns: u64,
    /// Hashes of some slots up to *k*, in order.
    pub hashes: Vec<SlotHashes>,
    /// Ports of the server.
    pub ports: Vec<SavedPort>,
    /// Connections, as far as the log tells.
    pub conns: SavedConns,
    /// Output that stand-alone frontends have not acknowledged.
    pub unacked_output: Vec<SavedOutput>,
}

/// A port of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPort {
    /// The server's listener.
    pub listener: u32,
    /// The port.
    pub address: SocketAddr,
    /// The port takes datagrams.
    pub datagrams: bool,
    /// The server did not ask for this port.
    pub chosen: bool,
}

impl SavedPort {
    pub(crate) fn transport(&self) -> Transport {
        match self.datagrams {
            true => Transport::Datagram,
            false => Transport::Stream,
        }
    }
}

impl NodeState {
    /// A state of this version, to be filled in.
    pub fn new(applied: SlotHashes) -> Self {
        Self {
            version: VERSION,
            applied,
            ..Self::default()
        }
    }

    /// Writes it to the checkpoint in `directory`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        let bytes = bincode::serde::encode_to_vec(self, bincode::config::standard())
            .map_err(io::Error::other)?;
        fs::write(directory.join(FILE_NAME), bytes)
    }

    /// Reads it from the checkpoint in `directory`, which was verified.
    ///
    /// # Errors
    /// It cannot be read, or is of another version.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let bytes = fs::read(directory.join(FILE_NAME))?;
        let (state, _): (Self, usize) =
            bincode::serde::decode_from_slice(&bytes, bincode::config::standard())
                .map_err(io::Error::other)?;
        if state.version != VERSION {
            let what = format!("the node state is of version {}", state.version);
            return Err(io::Error::other(what));
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::saved::{SavedConn, SavedFrontend};
    use crate::testing::hexadecimal;

    /// A state in which every list has one element.
    fn state() -> NodeState {
        let hashes = SlotHashes {
            slot: 7,
            output_hash: 1,
            schedule_hash: 2,
        };
        NodeState {
            deadline_ns: 3,
            seen: 8,
            last_entry: 7,
            time_ns: 4,
            hashes: vec![hashes],
            ports: vec![SavedPort {
                listener: 1,
                address: SocketAddr::from(([127, 0, 0, 1], 80)),
                datagrams: false,
                chosen: true,
            }],
            conns: SavedConns {
                conns: vec![SavedConn {
                    id: (5, 6),
                    owner: 5,
                    input_next: 9,
                    ended: false,
                    credit: 10,
                }],
                frontends: vec![SavedFrontend {
                    id: 5,
                    node: 1,
                    last_counter: 6,
                    heard: 0,
                    outgoing: 0,
                }],
                asked_upto: 11,
                unanswered: vec![(11, SocketAddr::from(([127, 0, 0, 1], 81)))],
                answered: vec![12],
            },
            unacked_output: vec![SavedOutput {
                id: (5, 6),
                base: 13,
                bytes: b"out".to_vec(),
                consumed: 14,
                fin: false,
                closed: Some(true),
            }],
            ..NodeState::new(hashes)
        }
    }

    #[test]
    fn golden_bytes() {
        let dir = tempfile::tempdir().unwrap();
        state().save(dir.path()).unwrap();
        let bytes = fs::read(dir.path().join(FILE_NAME)).unwrap();
        let golden = "0107010203080704010701020101007f0000015000010105060509000a0105010600000b010b007f\
            00000151010c0105060d036f75740e000101";
        assert_eq!(hexadecimal(&bytes), golden);
        assert_eq!(NodeState::load(dir.path()).unwrap(), state());
    }

    #[test]
    fn another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = state();
        state.version = VERSION + 1;
        state.save(dir.path()).unwrap();
        let error = NodeState::load(dir.path()).unwrap_err().to_string();
        assert_eq!(error, "the node state is of version 2");
    }
}
