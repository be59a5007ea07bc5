//! The answering side: a side thread of the node daemon.

use super::{LINE_BYTES_MAX, Query, Request, Response, short_name};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// The way to the reactor: puts a query in its queue and wakes it.
#[derive(Clone)]
pub struct Asker {
    queries_tx: Sender<Query>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

impl Asker {
    /// `wake` is called after each query that was put in the queue.
    pub fn new(queries_tx: Sender<Query>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            queries_tx,
            wake: Arc::new(wake),
        }
    }

    /// False when the reactor is gone.
    pub fn ask(&self, query: Query) -> bool {
        let sent = self.queries_tx.send(query).is_ok();
        (self.wake)();
        sent
    }

    async fn answer<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
        let (answer_tx, answer_rx) = oneshot::channel();
        self.ask(query(answer_tx));
        answer_rx.await.ok()
    }
}

/// Answers at `socket` from a thread of its own, and turns `SIGTERM` and `SIGINT` into
/// [`Query::Shutdown`]. The thread lives as long as the process.
///
/// # Errors
/// When the socket, the runtime or the thread cannot be made.
pub fn serve(socket: &Path, asker: Asker) -> io::Result<JoinHandle<()>> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {} // the caller holds the data directory's lock: nobody else answers there
    }
    let (_directory, name) = short_name(socket)?;
    let listener = std::os::unix::net::UnixListener::bind(name)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (terminate, interrupt) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        )
    };
    thread::Builder::new().name("admin".into()).spawn(move || {
        runtime.block_on(async move {
            for mut stop in [terminate, interrupt] {
                let asker = asker.clone();
                tokio::spawn(async move {
                    while stop.recv().await.is_some() {
                        asker.ask(Query::Shutdown);
                    }
                });
            }
            match UnixListener::from_std(listener) {
                Ok(listener) => accept(listener, asker).await,
                Err(error) => tracing::error!(%error, "no admin socket"),
            }
        });
    })
}

async fn accept(listener: UnixListener, asker: Asker) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let asker = asker.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &asker).await {
                        tracing::debug!(%error, "an admin connection broke");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors or the like: it cannot be waited for, so a pause it is.
                tracing::warn!(%error, "cannot accept on the admin socket");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, asker: &Asker) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        if (&mut reader)
            .take(LINE_BYTES_MAX)
            .read_line(&mut line)
            .await?
            == 0
        {
            return Ok(());
        }
        let response = respond(&line, asker).await;
        let mut text = serde_json::to_string(&response)?;
        text.push('\n');
        writer.write_all(text.as_bytes()).await?;
    }
}

async fn respond(line: &str, asker: &Asker) -> Response {
    let request = match serde_json::from_str(line) {
        Ok(request) => request,
        Err(error) => return Response::Error(format!("not a request: {error}")),
    };
    let response = match request {
        Request::Status => asker.answer(Query::Status).await.map(Response::Status),
        Request::HashesAt { slot } => asker
            .answer(|answer_tx| Query::HashesAt(slot, answer_tx))
            .await
            .map(Response::Hashes),
        Request::Shutdown => asker.ask(Query::Shutdown).then_some(Response::Stopping),
    };
    response.unwrap_or_else(|| Response::Error("the node is stopping".into()))
}
