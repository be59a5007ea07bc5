//! Checkpoints that go from one node to another.
//!
//! ```text
//!  node that lacks a checkpoint                         node that has one
//!  donors   whom to ask                                 donor     a thread for each fetcher
//!  fetch    a thread: one attempt with one of them  ◀──▶          checkpoint held, sends throttled
//!  pieces   what to ask for next      files   what is there
//! ```
//!
//! # Model
//!
//! A node fetches when the leader has told it that its log cannot be continued, or when it has no
//! usable checkpoint of what is before its log. It goes on voting meanwhile. When a checkpoint is
//! whole, the node restarts with it, inside its process, and does what any node does that starts:
//! the server is brought back, the log goes on behind it.
//!
//! The data goes over a TCP connection of its own, to the same address as the links of consensus
//! ([`brolga_consensus::open_stream`]), between two threads that read, hash and write. So no message of
//! consensus waits behind a piece of a file, and no event loop reads a disk.
//!
//! Both threads have a lower priority: where processors are scarce, servers and event loops come
//! first.
//!
//! The part of a checkpoint that has come is kept when the fetcher, the donor or the connection
//! dies, and continued with any donor that has the same one, told by the hash of its manifest.
//! Replicas take checkpoints of their own, so another donor mostly has another one: then that is
//! fetched from its start, except for files that are here with the same content.
//!
//! # Invariants
//!
//! * A checkpoint that was fetched is there only when all of it was synced, read back and compared
//!   with its manifest.
//! * A donor's bytes go nowhere but into files that a checked manifest names, below the directory
//!   of the checkpoint.
//! * A checkpoint that is known to be unusable is not asked for.
//!
//! Deliberately absent: encryption, and trust in more than the cluster's number, as on the links of
//! consensus.

mod coordinator;
mod donor;
mod donors;
mod fetch;
mod files;
mod pieces;
mod progress;
mod throttle;
pub(crate) mod wire;

use brolga_os::sys;

/// Lowers the priority of the calling thread: servers and event loops come first.
fn lower_priority() {
    const BY: i32 = 10;
    if let Err(error) = sys::set_nice(BY) {
        tracing::debug!(%error, "the priority of a transfer cannot be lowered");
    }
}

pub use coordinator::TransferStatus;
pub(crate) use coordinator::{Coordinator, TransferState};
pub use fetch::{FetchError, FetchPlan, fetch};
pub use progress::{Progress, Seen};

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;
