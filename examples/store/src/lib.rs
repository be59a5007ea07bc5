//! A small, ordinary key-value server: the storage service bundled with Brolga.
//!
//! There is **no replication code here**, on purpose. This is the kind of program that Brolga is
//! for: one process, blocking sockets, a thread per connection, mutexes, condition variables and a
//! database on disk. Run by itself, it is a durable single-node store; run under Brolga, it is a
//! replicated one, with the same code.
//!
//! Reading order:
//! - [`resp`]: the wire format (RESP2 and inline commands), parsing and replies; no I/O.
//! - `command`: the commands, parsed from requests.
//! - `view`: the keys in memory and the writes not yet on disk; the effect of each command; no I/O.
//! - `disk`: the keys on disk, in a redb database.
//! - `store`: joins the two with a lock and leader/follower group commit.
//! - `server_state`: the state that all connections share.
//! - `session`, `server`: one connection; all of them.
//! - `options`, `error`: the command line, and the errors that end the store.
//!
//! # Guarantees
//!
//! Commands are linearizable: each takes effect, atomically, in the order in which the store's lock
//! is taken, and the commands of one connection in the order sent.
//!
//! **No reply is sent before everything it reveals is durable.** A write is acknowledged after the
//! transaction that holds it has committed; a read of a key with a write still on its way to disk
//! is answered after that write has committed. So a reply never reveals something that a crash
//! could undo. A read of any other key waits for nothing.
//!
//! If a transaction cannot be committed (a full disk), the store stops: its memory is then ahead of
//! what it can make durable.
//!
//! # Limits
//!
//! All keys and values are held in memory as well. Keys do not expire; there is one database (0); a
//! key is at most [`KEY_BYTES_MAX`] and a value [`VALUE_BYTES_MAX`] long.
#![forbid(unsafe_code)]

mod command;
mod disk;
mod error;
mod options;
pub mod resp;
mod server;
mod server_state;
mod session;
mod store;
mod view;

pub use command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use error::StoreError;
pub use options::{Options, SyncMode};
pub use server::Server;

/// Serves until killed, or until a client sends `SHUTDOWN`, which is the only way this returns
/// `Ok`.
///
/// Prints one line on standard output once connections are accepted. The caller is expected to end
/// the process when this returns: threads that are blocked on their clients, and the listening
/// socket, stay until then.
pub fn run(options: Options) -> Result<(), StoreError> {
    let server = Server::bind(options)?;
    server.announce();
    server.serve()
}
