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
//! whole, the node starts anew with it, inside its process, and does what any node does that starts:
//! the server is brought back, the log goes on behind it.
//!
//! The data goes over a TCP connection of its own, to the same address as the links of consensus
//! ([`brolga_consensus::open_stream`]), between two threads that read, hash and write. So no message of
//! consensus waits behind a piece of a file, and no reactor reads a disk.
//!
//! Both threads are nice: where processors are scarce, servers and reactors come first.
//!
//! What has come of a checkpoint is kept when the fetcher, the donor or the connection dies, and
//! continued with any donor that has the same one, told by the hash of its manifest. Replicas take
//! checkpoints of their own, so another donor mostly has another one: then that is fetched from its
//! start, except for files that are here with the same content.
//!
//! # Invariants
//!
//! * A checkpoint that was fetched is there only when all of it was synced, read back and compared
//!   with its manifest.
//! * A donor's bytes go nowhere but into files that a checked manifest names, below the directory of
//!   the checkpoint.
//! * Nothing is asked of a donor that is known to be of no use.
//!
//! Deliberately absent: encryption, and trust in more than the cluster's number, as on the links of
//! consensus.

pub(crate) mod coordinator;
mod donor;
pub(crate) mod donors;
pub(crate) mod fetch;
mod files;
mod pieces;
mod progress;
mod throttle;
mod wire;

use brolga_os::sys;

/// What both threads begin with.
fn set_nice() {
    const BY: i32 = 10;
    if let Err(error) = sys::set_nice(BY) {
        tracing::debug!(%error, "a transfer is as important as all else");
    }
}

pub use coordinator::TransferStatus;
pub(crate) use coordinator::{Lore, Transfer};
pub use fetch::{FetchError, FetchPlan, fetch};
pub use progress::{Progress, Seen};

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;
