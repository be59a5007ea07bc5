//! Multi-Paxos for Brolga: a replicated, durable, totally ordered log of opaque values.
//!
//! Three independent parts and the shell that joins them:
//!
//! * [`core`]: the protocol as a state machine without clocks, threads, files or sockets;
//! * [`journal`]: the durable log of the core's operations, group-committed by one writer at a
//!   time;
//! * [`transport`]: framed TCP links between the nodes on the caller's `mio::Poll`;
//! * [`replica`]: [`Replica`], which the node daemon's event loop drives.
//!
//! An iteration of the caller's event loop looks like this:
//!
//! ```text
//! poll.poll(&mut ready, replica.next_wakeup() - now)
//! for event in ready { if replica.owns(event.token()) { replica.handle(event, now, &mut events) } }
//! while replica.can_propose() && input is waiting { replica.propose(batch) }
//! replica.turn(now, flush, &mut events)    // always last: journal batch, timers, socket flush
//! replica.read_chosen(cursor, ...)         // values of chosen slots, in slot order
//! ```
//!
//! `wake` (given to [`Replica::open`]) is called from the journal's thread when a batch is durable;
//! it has to make `poll` return, typically through a `mio::Waker`, and `turn` must then be called.
//!
//! What callers have to know:
//!
//! * [`Replica::propose`] fails with [`ProposeError`] (`NotLeader` or `TooLarge`), never because
//!   the window is full: [`Replica::can_propose`] is the flow control.
//! * What a deposed leader had proposed may or may not be chosen: only reading the log tells.
//! * [`Event::Damaged`] reports a part of the log on disk that cannot be read for a lagging peer.
//! * A failed write or flush of the log ends the process with a message.
//! * [`ReplicaConfig::new`] fills in the default times.
//!
//! * A node that is no member is a *learner*: it follows the log and never counts for a quorum.
//! * A node with an empty log does not vote before it knows what it may have voted on: see
//!   [`Recovery`] and [`ReplicaConfig::new_cluster`].
//! * The log is shortened by [`Replica::truncate`] only; a node that lacks what was dropped hears
//!   of it ([`Event::Behind`]), gets a checkpoint by the caller's means, and goes on
//!   ([`Replica::install`]).
//!
//! Deliberately absent: membership change, leases, reads other than of the log, checkpoints
//! themselves, encryption. A slot's value is opaque; the empty value is a *noop* which the log
//! itself puts in when a new leader closes a gap, and which a state machine must skip.
//!
//! Standard terms: *slot* (a position of the log, from 1), *ballot* (a leadership attempt),
//! *quorum* (any majority of the members), *promise* (phase 1 vote), *accept* (phase 2 vote),
//! *chosen* (accepted at one ballot by a quorum, for ever), *commit* (a node's knowledge of the
//! contiguous chosen prefix).
#![forbid(unsafe_code)]

mod backoff;
pub mod core;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod journal;
pub mod replica;
#[cfg(test)]
mod sim;
pub mod transport;

pub use crate::backoff::Backoff;
pub use crate::core::{
    Ballot, IoSeq, LEARNERS_FROM, LEARNERS_MAX, Micros, NodeId, Recovery, Slot, Value,
};
pub use replica::{
    ConfigError, Event, Flush, OpenError, ProposeError, ReadError, Replica, ReplicaConfig, TOKENS,
};
pub use transport::{JoinError, UpgradedStream, join, open_stream};
