//! The node daemon: one replica, one thread, one poll.
//!
//! The event loop ([`Node`]) owns everything and does, iteration by iteration: take what the poll
//! has ready (clients, links to the other nodes, the doorbell of the server, queries), drain the
//! output of the server, send requests to the leader or propose them, let consensus work, feed what
//! is chosen to the server, sleep. Batches form by themselves: whatever has gathered during an
//! iteration goes together.
//!
//! The rooms know little of each other, and most do no input or output of their own: each has a
//! description of its own. From the bottom up, each room imports only those before it:
//!
//! `frame`, `join`, `clients`, `server`, `ordering`, `checkpoint`, `proxy`, `peers`, `divergence`,
//! `error`, `transfer`, `replay`, `status`, `event_loop`.
//!
//! `event_loop` is the only one that names all of them, and `impl Node` stands only there.

mod checkpoint;
mod clients;
mod divergence;
mod error;
mod event_loop;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod join;
mod ordering;
mod peers;
mod proxy;
mod replay;
mod server;
mod status;
mod transfer;

#[cfg(test)]
mod testing;

pub use checkpoint::procedure::{CheckpointResult, NotTaken};
pub use checkpoint::writer::WriterStatus;
pub use clients::datagrams::DatagramCounts;
pub use divergence::quarantine::{Quarantine, QuarantineError};
pub use divergence::report::{Connection, DivergenceReport, Location};
pub use error::NodeError;
pub use event_loop::node::Node;
pub use ordering::operator_signals::Ordered;
pub use ordering::proposer::Proposed;
pub use peers::learners::LearnerStatus;
pub use proxy::error::ProxyError;
pub use proxy::frontend::{ProxyConfig, ProxyFrontend, ProxyHandle};
pub use replay::runner::{Keep, NotKept, Recording, Replayed, recorded_hashes, replay};
pub use replay::trace_diff::{Compared, Fork, compare as compare_traces};
pub use server::hashes::SlotHashes;
pub use server::lifecycle::ServerState;
pub use server::process::{Dumper, ServerHost, Started, WrappedServer};
pub use server::syscall_filter::{CaughtSite, FilterState, SyscallFilterStatus};
pub use server::traces::traces;
pub use status::{NodeHandle, NodeStatus, Peer, Query, Role};
pub use transfer::{
    FetchError, FetchPlan, Progress, Seen, TransferStatus, fetch as fetch_checkpoint,
};
