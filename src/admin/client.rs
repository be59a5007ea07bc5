//! The client of the admin socket.

use super::{LINE_BYTES_MAX, Request, Response};
use brolga_node::{NodeStatus, SlotHashes};
use brolga_os::files::short_name;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A node that does not answer within this time counts as down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A server may be large, and a disk slow.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(3600);
/// The time limit of requests that go through the log: they may have to wait for a leader and a majority.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to one node's admin socket.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody answers there.
    pub async fn connect(socket: &Path) -> io::Result<Self> {
        let (_directory, name) = short_name(socket)?;
        let stream = timeout(ANSWER_TIMEOUT, UnixStream::connect(name)).await??;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Asks for the node's status.
    ///
    /// # Errors
    /// When the node is gone or does not answer in time.
    pub async fn status(&mut self) -> io::Result<NodeStatus> {
        match self.ask(Request::Status).await? {
            Response::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for the hashes after `slot`.
    ///
    /// # Errors
    /// As for [`Client::status`].
    pub async fn hashes_at(&mut self, slot: u64) -> io::Result<Option<SlotHashes>> {
        match self.ask(Request::HashesAt { slot }).await? {
            Response::Hashes(hashes) => Ok(hashes),
            other => Err(unexpected(&other)),
        }
    }

    /// Has a signal ordered for the server, if the node leads. `Err` with the leader, if it is known, when
    /// it does not; then the signal was not sent. An outer error leaves that open.
    ///
    /// # Errors
    /// When the node is gone, or no majority has answered in time.
    pub async fn signal(&mut self, signal: u32) -> io::Result<Result<u64, Option<u64>>> {
        let answer = self.ask_within(Request::Signal { signal }, ORDER_TIMEOUT);
        match answer.await? {
            Response::OrderedAt(slot) => Ok(Ok(slot)),
            Response::NotLeader(leader) => Ok(Err(leader)),
            other => Err(unexpected(&other)),
        }
    }

    /// Has it take a checkpoint, and tells its slot when it is whole.
    ///
    /// # Errors
    /// When the node is gone, or takes none and why.
    pub async fn checkpoint(&mut self) -> io::Result<u64> {
        let answer = self.ask_within(Request::Checkpoint, CHECKPOINT_TIMEOUT);
        match answer.await? {
            Response::Checkpoint(slot) => Ok(slot),
            other => Err(unexpected(&other)),
        }
    }

    /// Stops it.
    ///
    /// # Errors
    /// As for [`Client::status`].
    pub async fn shut_down(&mut self) -> io::Result<()> {
        match self.ask(Request::Shutdown).await? {
            Response::Stopping => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&mut self, request: Request) -> io::Result<Response> {
        self.ask_within(request, ANSWER_TIMEOUT).await
    }

    async fn ask_within(&mut self, request: Request, limit: Duration) -> io::Result<Response> {
        let mut text = serde_json::to_string(&request)?;
        text.push('\n');
        self.stream.write_all(text.as_bytes()).await?;
        let mut line = String::new();
        let mut limited = (&mut self.stream).take(LINE_BYTES_MAX);
        if timeout(limit, limited.read_line(&mut line)).await?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

fn unexpected(response: &Response) -> io::Error {
    match response {
        Response::Error(what) => io::Error::other(what.clone()),
        other => io::Error::other(format!("unexpected answer {other:?}")),
    }
}

/// Connects, asks for the status and hangs up. `None`: the node is down.
pub async fn ask_status(socket: &Path) -> Option<NodeStatus> {
    Client::connect(socket).await.ok()?.status().await.ok()
}
