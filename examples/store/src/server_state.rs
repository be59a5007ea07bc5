//! The state that all connections of a server share: the store, the flag that stops it, and the
//! figures for `INFO`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::options::SyncMode;
use crate::store::{Store, lock};

/// The state that all threads of a server share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) stop: Stop,
    pub(crate) address: SocketAddr,
    sync: SyncMode,
    connections: AtomicUsize,
    started: Instant,
    run_id: String,
}

/// A flag that a thread can wait for.
#[derive(Default)]
pub(crate) struct Stop {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Raises the flag and wakes the waiting thread.
    pub(crate) fn raise(&self) {
        *lock(&self.raised) = true;
        self.changed.notify_all();
    }

    /// Waits until the flag is raised.
    pub(crate) fn wait(&self) {
        let raised = lock(&self.raised);
        let waited = self.changed.wait_while(raised, |raised| !*raised);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    /// The state of a server that listens on `address`, at its start.
    pub(crate) fn new(store: Store, address: SocketAddr, sync: SyncMode) -> io::Result<Self> {
        Ok(Shared {
            store,
            stop: Stop::default(),
            address,
            sync,
            connections: AtomicUsize::new(0),
            started: Instant::now(),
            run_id: random_id()?,
        })
    }

    /// Returns the reply to `INFO`.
    pub(crate) fn info(&self, keys: usize) -> String {
        let mut text = String::new();
        let mut section = |name: &str, fields: &[(&str, &dyn std::fmt::Display)]| {
            let gap = if text.is_empty() { "" } else { "\r\n" };
            // Writing to a String cannot fail.
            let _ = write!(text, "{gap}# {name}\r\n");
            for (field, value) in fields {
                let _ = write!(text, "{field}:{value}\r\n");
            }
        };
        section(
            "Server",
            &[
                ("brolga_store_version", &env!("CARGO_PKG_VERSION")),
                ("process_id", &process::id()),
                ("run_id", &self.run_id),
                ("tcp_port", &self.address.port()),
                ("uptime_in_seconds", &self.started.elapsed().as_secs()),
            ],
        );
        section(
            "Clients",
            &[(
                "connected_clients",
                &self.connections.load(Ordering::Relaxed),
            )],
        );
        section("Persistence", &[("sync", &self.sync.name())]);
        section("Keyspace", &[("keys", &keys)]);
        text
    }
}

/// Counts a connection while it lives.
pub(crate) struct Counted(Arc<Shared>);

impl Counted {
    /// Counts one more connection; `None` if there are `connections_max` already.
    pub(crate) fn new(shared: &Arc<Shared>, connections_max: usize) -> Option<Self> {
        let count = shared.connections.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(shared));
        (count < connections_max).then_some(counted)
    }
}

impl Counted {
    /// Returns the state that the connection shares with others.
    pub(crate) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns an identifier that differs between runs of the store.
fn random_id() -> io::Result<String> {
    let mut bytes = [0; 20];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
