//! The server of the admin socket: a side thread of the node daemon.

use super::{Answers, LINE_BYTES_MAX, Request, Response};
use brolga_node::Ordered;
use brolga_os::files::short_name;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

/// Answers at `socket` from a thread of its own, and turns `SIGTERM` and `SIGINT` into
/// [`Answers::shutdown`]. The thread lives as long as the process.
///
/// # Errors
/// When the socket, the runtime or the thread cannot be made.
pub fn serve(socket: &Path, node: Arc<dyn Answers>) -> io::Result<JoinHandle<()>> {
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
                let node = Arc::clone(&node);
                tokio::spawn(async move {
                    while stop.recv().await.is_some() {
                        node.shutdown();
                    }
                });
            }
            match UnixListener::from_std(listener) {
                Ok(listener) => accept(listener, node).await,
                Err(error) => tracing::error!(%error, "no admin socket"),
            }
        });
    })
}

async fn accept(listener: UnixListener, node: Arc<dyn Answers>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let node = Arc::clone(&node);
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &node).await {
                        tracing::debug!(%error, "an admin connection broke");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors or the like: it cannot be waited for, so a pause it is.
                tracing::warn!(%error, "cannot accept on the admin socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, node: &Arc<dyn Answers>) -> io::Result<()> {
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
        let node = Arc::clone(node);
        let response = spawn_blocking(move || respond(&line, node.as_ref())).await?;
        let mut text = serde_json::to_string(&response)?;
        text.push('\n');
        writer.write_all(text.as_bytes()).await?;
    }
}

fn respond(line: &str, node: &dyn Answers) -> Response {
    match serde_json::from_str(line) {
        Err(error) => Response::Error(format!("not a request: {error}")),
        Ok(Request::Status) => match node.status() {
            Some(status) => Response::Status(Box::new(status)),
            None => Response::Error("the node is stopping".into()),
        },
        Ok(Request::HashesAt { slot }) => Response::Hashes(node.hashes_at(slot)),
        Ok(Request::Signal { signal }) if !(1..=64).contains(&signal) => {
            Response::Error(format!("{signal} is not the number of a signal"))
        }
        Ok(Request::Signal { signal }) => match node.signal(signal) {
            Some(Ordered::At(slot)) => Response::OrderedAt(slot),
            Some(Ordered::NotLeader(leader)) => Response::NotLeader(leader),
            Some(Ordered::Lost) => Response::NotLeader(None),
            None => Response::Error("the node is stopping".into()),
        },
        Ok(Request::Checkpoint) => match node.checkpoint() {
            Some(Ok(slot)) => Response::Checkpoint(slot),
            Some(Err(why)) => Response::Error(why.to_string()),
            None => Response::Error("the node is stopping".into()),
        },
        Ok(Request::Shutdown) => {
            node.shutdown();
            Response::Stopping
        }
    }
}
