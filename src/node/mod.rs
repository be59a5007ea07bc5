//! The node daemon: one replica, one thread, one poll.
//!
//! The reactor ([`Node`]) owns everything and does, turn by turn: take what the poll has ready
//! (clients, links to the other nodes, the doorbell of the server, queries), drain what the server
//! has answered, send up or propose what clients have said, let consensus work, feed what is chosen
//! to the server, sleep. Batches form by themselves: whatever has gathered during a turn goes together.
//!
//! The parts know little of each other, and most do no input or output of their own:
//!
//! * `frontend`, `client`, `listeners`: the clients' TCP connections; `datagrams`: their datagrams,
//!   `errands`: those that the server sends unasked;
//! * `upstream`, `peer_frames`: their way to the leader;
//! * `company`: which nodes are of the same kind; `away`: who is given up; `learners`: those who follow
//!   and do not vote; `proposer`: what a leader proposes and when;
//! * `feeder`, `tape_map`: from the log to the server; `conns`: what the log says of connections;
//! * `sidecar`: a frontend that runs alone; `sidecars`, `retained`: the nodes' side of it; `wire`:
//!   what they speak;
//! * `operator`: signals that an operator sends;
//! * `output`, `recent`: from the server back, and the hashes by which replicas are compared;
//! * `checking`: replicas are compared as they go; `ledger`: who agrees with whom, and who is wrong;
//!   `exchange`: what is said about it; `difference`: it in words; `gate`: output that is held back;
//!   `quarantine`: a replica that is wrong;
//! * `checkpoints`: the replica as it was at a slot, on disk and back; `snapshot`: the node's part of it;
//! * `retention`: how much of the log is kept;
//! * `transfer`: one that comes from another node, or goes there;
//! * `triggers`: when one is due and whose turn it is; `staggering`: it carried out;
//! * `trail`: the hashes on disk; `traces`: all that the server does, on disk; `replay`: a recorded
//!   log once more, without a node; `knowledge`: what a node would know then;
//! * `server`: the process; `status`: what one can ask; `sys`: the operating system.

mod away;
mod backstop;
mod checking;
mod checkpoints;
mod client;
mod company;
mod conns;
mod datagrams;
mod difference;
mod errands;
mod error;
mod exchange;
mod feeder;
mod frontend;
mod gate;
mod knowledge;
mod learners;
mod ledger;
mod life;
mod listeners;
mod operator;
mod output;
mod peer_frames;
mod proposer;
mod quarantine;
mod reactor;
mod recent;
mod replay;
mod retained;
mod retention;
mod server;
mod sidecar;
mod sidecars;
mod snapshot;
mod staggering;
mod status;
mod sys;
mod taking;
mod tape_map;
mod timer;
mod traces;
mod trail;
mod transfer;
mod triggers;
mod turn;
mod unix_sockets;
mod upstream;
mod wire;

#[cfg(test)]
mod checkpoint_tests;
#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod divergence_tests;
#[cfg(test)]
mod fake_server;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod image_tests;

pub use backstop::{Backstop, CaughtSite, FilterState};
pub use checkpoints::Taken;
pub use datagrams::DatagramCounts;
pub use difference::{Connection, Difference, Place};
pub use error::NodeError;
pub use operator::Ordered;
pub use output::SlotHashes;
pub use proposer::Proposed;
pub use quarantine::{Quarantine, QuarantineError};
pub use reactor::Node;
pub use replay::{Keep, Recording, Replayed, recorded_hashes, replay};
pub use server::{Dumper, ServerHost, Started, WrappedServer};
pub use sidecar::{Sidecar, SidecarConfig, SidecarHandle};
pub use status::{LearnerStatus, NodeHandle, NodeStatus, Peer, Query, Role, ServerState};
pub use taking::TakingStatus;
pub use traces::{Compared, Fork, compare as compare_traces, traces};
pub use transfer::{
    FetchError, FetchPlan, Progress, Seen, TransferStatus, fetch as fetch_checkpoint,
};
