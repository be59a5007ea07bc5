//! A client of the store that counts, one request at a time, and checks every reply.

use super::PATIENCE;
use anyhow::{Context, ensure};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

const COUNTER: &str = "counter";

/// A TCP connection to a replica.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    /// Replies to `INCR` so far, which is what the counter has to be.
    pub(super) counted: u64,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await?;
        let stream = stream.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            counted: 0,
        })
    }

    /// Sends an `INCR` and reads its reply.
    pub(super) async fn count(&mut self) -> anyhow::Result<()> {
        self.ask_to_count().await?;
        self.expect_count().await
    }

    /// Counts as long as `more` says of the count; the longest wait for a reply.
    pub(super) async fn count_while(
        &mut self,
        more: impl Fn(u64) -> bool,
    ) -> anyhow::Result<Duration> {
        let mut longest = Duration::ZERO;
        while more(self.counted) {
            let asked = Instant::now();
            self.count().await?;
            longest = longest.max(asked.elapsed());
        }
        Ok(longest)
    }

    /// Sends `INCR`.
    pub(super) async fn ask_to_count(&mut self) -> anyhow::Result<()> {
        self.send(&["INCR", COUNTER]).await
    }

    /// Reads the reply to `INCR`.
    pub(super) async fn expect_count(&mut self) -> anyhow::Result<()> {
        self.expect(self.counted + 1).await?;
        self.counted += 1;
        Ok(())
    }

    /// Reads the counter, which has to be `expected`.
    pub(super) async fn read(&mut self, expected: u64) -> anyhow::Result<()> {
        self.send(&["GET", COUNTER]).await?;
        self.expect(expected).await
    }

    async fn send(&mut self, words: &[&str]) -> anyhow::Result<()> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream
            .write_all(request.as_bytes())
            .await
            .context("the connection broke")
    }

    /// Reads one reply, an integer or a string that is one.
    async fn expect(&mut self, expected: u64) -> anyhow::Result<()> {
        let mut reply = self.line().await?;
        if reply.starts_with('$') {
            reply = format!(":{}", self.line().await?);
        }
        ensure!(
            reply == format!(":{expected}"),
            "the reply was `{reply}` instead of :{expected}"
        );
        Ok(())
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await;
        let bytes = read.context("no reply")?.context("the connection broke")?;
        ensure!(bytes > 0, "the connection was closed");
        Ok(line.trim_end().to_owned())
    }
}
