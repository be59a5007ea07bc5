//! The checkpoint writer: a thread that dumps the server, then hashes, syncs, reads back and names
//! what was written. Its progress can be read meanwhile.

use crate::checkpoint::node_state::{NodeState, SERVER_DIR};
use crate::server::process::Dumper;
use brolga_checkpoint::image::compress_image;
use brolga_checkpoint::{Checkpoint, CheckpointError, Compression, Provenance, Staged};
use mio::Waker;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// A message of the thread.
#[derive(Debug)]
pub(crate) enum Message {
    /// The server may go on.
    Dumped,
    /// The checkpoint is complete, or there is none.
    Done(Result<u64, CheckpointError>),
}

/// The way of its messages to the event loop.
#[derive(Clone, Debug)]
pub(crate) struct WriterHandle {
    pub(crate) messages: Sender<Message>,
    pub(crate) waker: Arc<Waker>,
}

impl WriterHandle {
    fn send(&self, message: Message) {
        // The node may have ended.
        let _ = self.messages.send(message);
        let _ = self.waker.wake();
    }
}

/// The progress of a checkpoint, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterStatus {
    /// The slot of the checkpoint.
    pub slot: u64,
    /// Bytes dealt with since the server goes on: everything that is kept, twice, and what is
    /// compressed.
    pub done: u64,
    /// Bytes to be dealt with; 0: the server is being dumped.
    pub all: u64,
    /// Bytes per second.
    pub rate: u64,
    /// Until it is whole, in milliseconds, if that can be told.
    pub left_ms: Option<u64>,
}

impl fmt::Display for WriterStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, all, .. } = self;
        if *all == 0 {
            return write!(
                f,
                "the checkpoint of slot {slot}: the server is being dumped"
            );
        }
        let [done, all, rate] = [self.done, *all, self.rate].map(|bytes| bytes >> 20);
        write!(
            f,
            "the checkpoint of slot {slot} is being written: {done} of {all} MiB, {rate} MiB/s"
        )?;
        match self.left_ms {
            Some(left) => write!(f, ", {:.1} s left", left as f64 / 1000.0),
            None => Ok(()),
        }
    }
}

/// The progress, shared with the thread.
#[derive(Debug)]
pub(crate) struct Progress {
    slot: u64,
    started: Instant,
    /// When the server was dumped, in milliseconds since then.
    dumped_ms: AtomicU64,
    done: AtomicU64,
    all: AtomicU64,
}

impl Progress {
    pub(crate) fn new(slot: u64) -> Self {
        Self {
            slot,
            started: Instant::now(),
            dumped_ms: AtomicU64::new(0),
            done: AtomicU64::new(0),
            all: AtomicU64::new(0),
        }
    }

    /// The server goes on, and so many bytes are to be dealt with in all.
    fn dumped(&self, bytes: u64) {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.all.load(Ordering::Relaxed) == 0 {
            self.dumped_ms.store(since, Ordering::Relaxed);
        }
        self.all.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> WriterStatus {
        let (done, all) = (
            self.done.load(Ordering::Relaxed),
            self.all.load(Ordering::Relaxed),
        );
        let dumped = Duration::from_millis(self.dumped_ms.load(Ordering::Relaxed));
        let took = self.started.elapsed().saturating_sub(dumped).as_secs_f64();
        let rate = done as f64 / took.max(0.001);
        let left = all.saturating_sub(done) as f64 * 1000.0 / rate.max(1.0);
        WriterStatus {
            slot: self.slot,
            done,
            all,
            rate: rate as u64,
            left_ms: (done > 0).then_some(left as u64),
        }
    }
}

/// Time between two lines in the log.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Logs from time to time how much of a checkpoint was verified.
pub(crate) fn log_verification(slot: u64, bytes: u64) -> impl FnMut(u64) {
    let started = Instant::now();
    let (mut done, mut said) = (0, started);
    move |more| {
        done += more;
        let now = Instant::now();
        if now.duration_since(said) < LINE_EVERY {
            return;
        }
        said = now;
        let rate = done as f64 / now.duration_since(started).as_secs_f64();
        let left = bytes.saturating_sub(done) as f64 / rate.max(1.0);
        tracing::info!(
            slot,
            "verifying the checkpoint: {} of {} MiB, {:.0} MiB/s, {left:.1} s left",
            done >> 20,
            bytes >> 20,
            rate / f64::from(1 << 20)
        );
    }
}

/// Bytes of all files below a directory.
fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) if found.is_file() => found.len(),
        _ => 0,
    });
    bytes.sum()
}

/// A checkpoint that is to be written.
pub(crate) struct Writer {
    pub(crate) staged: Staged,
    pub(crate) about: Provenance,
    /// The node's part.
    pub(crate) state: NodeState,
    /// The server's process.
    pub(crate) pid: u32,
    pub(crate) dumper: Dumper,
    pub(crate) compression: Compression,
    pub(crate) handle: WriterHandle,
    pub(crate) progress: Arc<Progress>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn spawn(self) -> io::Result<()> {
        let work = move || {
            let handle = self.handle.clone();
            let done = self.write();
            handle.send(Message::Done(done.map(|checkpoint| checkpoint.slot())));
        };
        let thread = std::thread::Builder::new().name("checkpoint".into());
        thread.spawn(work).map(drop)
    }

    fn write(self) -> Result<Checkpoint, CheckpointError> {
        let server = self.staged.path().join(SERVER_DIR);
        let made = fs::create_dir(&server).map_err(CheckpointError::from);
        let position = self.about.position;
        let dumped = made.and_then(|()| (self.dumper)(self.pid, position, &server));
        // Whatever came of it, the server runs, if nothing of CRIU's is in it.
        if !matches!(dumped, Err(CheckpointError::Interrupted(_))) {
            self.handle.send(Message::Dumped);
        }
        dumped?;
        self.state.save(self.staged.path())?;
        let progress = &self.progress;
        let mut seen = |more| {
            progress.done.fetch_add(more, Ordering::Relaxed);
        };
        let plain = bytes_below(self.staged.path());
        progress.dumped(2 * plain);
        if self.compression != Compression::None {
            // The compressed size is not known yet.
            progress.dumped(3 * plain);
            compress_image(&server, self.compression, &mut seen)?;
            let read = progress.done.load(Ordering::Relaxed);
            progress.dumped(read + 2 * bytes_below(self.staged.path()));
        }
        self.staged.commit(self.about, &mut seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_remaining_time_are_told_once_the_server_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("inner")).unwrap();
        fs::write(dir.path().join("inner/file"), vec![0; 3 << 20]).unwrap();
        fs::write(dir.path().join("file"), vec![0; 1 << 20]).unwrap();
        let bytes = bytes_below(dir.path());
        assert_eq!(bytes, 4 << 20);
        let progress = Progress::new(7);
        assert!(
            progress
                .status()
                .to_string()
                .ends_with("slot 7: the server is being dumped")
        );
        progress.dumped(2 * bytes);
        assert_eq!(progress.status().left_ms, None);
        progress.done.fetch_add(bytes, Ordering::Relaxed);
        let status = progress.status();
        assert!(status.rate > 0 && status.left_ms.is_some());
        let said = status.to_string();
        assert!(
            said.contains("4 of 8 MiB") && said.ends_with("s left"),
            "{said}"
        );
    }
}
