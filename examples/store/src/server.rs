//! All connections: one thread accepts them, and each is served by a thread of its own.
//!
//! The thread that calls [`Server::serve`] only waits for the store to stop: std offers no way to
//! call an acceptor back from `accept`. An idle server is entirely blocked, and nothing wakes it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::session;
use crate::store::{Store, lock};
use crate::{Options, StoreError, SyncMode};

/// Enough for a session and for a commit, which the leader does on its own stack.
const STACK_BYTES: usize = 1 << 20;
/// How long to wait when out of descriptors or memory; not waited for otherwise.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A store that is open and listening; connections wait until it is served.
pub struct Server {
    listener: TcpListener,
    data_dir: PathBuf,
    keys: usize,
    connections_max: usize,
    shared: Arc<Shared>,
}

/// What the threads of a server share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) stop: Stop,
    address: SocketAddr,
    sync: SyncMode,
    connections: AtomicUsize,
    started: Instant,
    run_id: String,
}

/// A flag that can be waited for.
#[derive(Default)]
pub(crate) struct Stop {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn raise(&self) {
        *lock(&self.raised) = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let raised = lock(&self.raised);
        let waited = self.changed.wait_while(raised, |raised| !*raised);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Server {
    /// Opens the data and starts to listen.
    pub fn bind(options: Options) -> Result<Self, StoreError> {
        let store = Store::open(&options.data_dir, options.sync)?;
        let failed = |source| StoreError::Listen {
            address: options.listen,
            source,
        };
        let listener = TcpListener::bind(options.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let keys = store.run(|view| view.len()).unwrap_or_default();
        let shared = Shared {
            store,
            stop: Stop::default(),
            address,
            sync: options.sync,
            connections: AtomicUsize::new(0),
            started: Instant::now(),
            run_id: random_id().map_err(StoreError::Start)?,
        };
        Ok(Server {
            listener,
            data_dir: options.data_dir,
            keys,
            connections_max: options.max_connections,
            shared: Arc::new(shared),
        })
    }

    /// The address listened on, with the port the system chose if port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// Says on standard output that connections are accepted, and where.
    pub fn announce(&self) {
        let (address, keys, directory) = (self.local_addr(), self.keys, self.data_dir.display());
        let mut stdout = io::stdout().lock();
        // Nobody may be reading it; that is no reason not to serve.
        let _ = writeln!(stdout, "ready on {address}, {keys} keys in {directory}");
        let _ = stdout.flush();
    }

    /// Serves until `SHUTDOWN` (`Ok`), or until writes cannot be committed any more.
    pub fn serve(self) -> Result<(), StoreError> {
        let Server {
            listener,
            connections_max,
            shared,
            ..
        } = self;
        let acceptor = Arc::clone(&shared);
        spawn(move || accept(&listener, connections_max, &acceptor)).map_err(StoreError::Start)?;
        shared.stop.wait();
        shared.store.close()
    }
}

impl Shared {
    /// The text that `INFO` answers with.
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

/// One of the connections that are counted; not any more when dropped.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>, connections_max: usize) -> Option<Self> {
        let count = shared.connections.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(shared));
        (count < connections_max).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, connections_max: usize, shared: &Arc<Shared>) {
    for id in 1.. {
        let stream = next_connection(listener);
        let Some(counted) = Counted::new(shared, connections_max) else {
            refuse(stream, b"-ERR max number of clients reached\r\n");
            continue;
        };
        // A session that ends with an error has lost its client, and there is nobody to tell.
        let serve = move || drop(session::serve(stream, id, &counted.0));
        if let Err(error) = spawn(serve) {
            eprintln!("brolga-store: no thread to serve a connection, closed it: {error}");
        }
    }
}

fn next_connection(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return stream,
            Err(error) if transient(&error) => {}
            Err(error) => {
                eprintln!("brolga-store: cannot accept a connection: {error}");
                thread::sleep(ACCEPT_RETRY);
            }
        }
    }
}

/// The connection was gone before it was accepted, or a signal came: nothing is short.
fn transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}

fn refuse(mut stream: TcpStream, reason: &[u8]) {
    // The client may be gone already.
    let _ = stream.write_all(reason);
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map(drop)
}

/// Tells one run of the store from another.
fn random_id() -> io::Result<String> {
    let mut bytes = [0; 20];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
