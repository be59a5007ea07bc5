//! All connections: one thread accepts them, and each is served by a thread of its own.
//!
//! The thread that calls [`Server::serve`] only waits for the store to stop, because the standard
//! library cannot interrupt `accept`. All threads of an idle server are blocked, without timeouts.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::error::StoreError;
use crate::options::Options;
use crate::server_state::{Counted, Shared};
use crate::session;
use crate::store::Store;

/// Enough for a session and for a commit, which the leader does on its own stack.
const STACK_BYTES: usize = 1 << 20;
/// Delay before the next attempt when descriptors or memory are short.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// An open store with a listening socket. Connections wait until [`Server::serve`] is called.
pub struct Server {
    listener: TcpListener,
    data_dir: PathBuf,
    keys: usize,
    connections_max: usize,
    shared: Arc<Shared>,
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
        let shared = Shared::new(store, address, options.sync).map_err(StoreError::Start)?;
        Ok(Server {
            listener,
            data_dir: options.data_dir,
            keys,
            connections_max: options.max_connections,
            shared: Arc::new(shared),
        })
    }

    /// Returns the address of the listening socket, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// Prints on standard output that connections are accepted, and on which address.
    pub fn announce(&self) {
        let (address, keys, directory) = (self.local_addr(), self.keys, self.data_dir.display());
        let mut stdout = io::stdout().lock();
        // Standard output may be closed, which does not matter to clients.
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

fn accept(listener: &TcpListener, connections_max: usize, shared: &Arc<Shared>) {
    for id in 1.. {
        let stream = next_connection(listener);
        let Some(counted) = Counted::new(shared, connections_max) else {
            refuse(stream, b"-ERR max number of clients reached\r\n");
            continue;
        };
        // A session that ends with an error has lost its client: there is nothing to report to.
        let serve = move || drop(session::serve(stream, id, counted.shared()));
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

/// Returns whether an error of `accept` is no lack of resources: the connection was closed before
/// it was accepted, or a signal arrived.
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
