//! The thread that takes a checkpoint: the server is dumped, and what was written is hashed, synced, read
//! back and named. How far that is can be asked meanwhile.

use crate::checkpoint::node_state::{SERVER_DIR, Snapshot};
use crate::server::process::Dumper;
use brolga_checkpoint::image::compress_image;
use brolga_checkpoint::{Checkpoint, CheckpointError, Compression, Provenance, Staged};
use mio::Waker;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// What the thread tells.
#[derive(Debug)]
pub(crate) enum Word {
    /// The server may go on.
    Dumped,
    /// It is over.
    Done(Result<u64, CheckpointError>),
}

/// How the thread speaks to the reactor.
#[derive(Debug)]
pub(crate) struct Mouth {
    pub(crate) words_tx: Sender<Word>,
    pub(crate) waker: Arc<Waker>,
}

impl Mouth {
    pub(crate) fn say(&self, word: Word) {
        // The node may have ended.
        let _ = self.words_tx.send(word);
        let _ = self.waker.wake();
    }
}

/// A checkpoint that is being taken, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakingStatus {
    /// Its slot.
    pub slot: u64,
    /// Bytes dealt with since the server goes on: all that is kept, twice, and what is compressed.
    pub done: u64,
    /// Bytes to be dealt with; 0: the server is being dumped.
    pub all: u64,
    /// Bytes per second.
    pub rate: u64,
    /// Until it is whole, in milliseconds, if that can be told.
    pub left_ms: Option<u64>,
}

impl fmt::Display for TakingStatus {
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

/// How far it is.
#[derive(Debug)]
pub(crate) struct Gauge {
    slot: u64,
    started: Instant,
    /// When the server was dumped, in milliseconds since then.
    dumped_ms: AtomicU64,
    done: AtomicU64,
    all: AtomicU64,
}

impl Gauge {
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

    pub(crate) fn status(&self) -> TakingStatus {
        let (done, all) = (
            self.done.load(Ordering::Relaxed),
            self.all.load(Ordering::Relaxed),
        );
        let dumped = Duration::from_millis(self.dumped_ms.load(Ordering::Relaxed));
        let took = self.started.elapsed().saturating_sub(dumped).as_secs_f64();
        let rate = done as f64 / took.max(0.001);
        let left = all.saturating_sub(done) as f64 * 1000.0 / rate.max(1.0);
        TakingStatus {
            slot: self.slot,
            done,
            all,
            rate: rate as u64,
            left_ms: (done > 0).then_some(left as u64),
        }
    }
}

/// Between two lines in the log.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Notes in the log, now and then, how far a checkpoint was checked.
pub(crate) fn told_in_log(slot: u64, bytes: u64) -> impl FnMut(u64) {
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
            "the checkpoint is being checked: {} of {} MiB, {:.0} MiB/s, {left:.1} s left",
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

/// What is dumped, and how it is kept.
pub(crate) struct Dump {
    pub(crate) pid: u32,
    pub(crate) dumper: Dumper,
    pub(crate) compression: Compression,
}

/// Takes it.
pub(crate) fn write(
    staged: Staged,
    about: Provenance,
    snapshot: &Snapshot,
    dump: Dump,
    (mouth, gauge): (&Mouth, &Gauge),
) -> Result<Checkpoint, CheckpointError> {
    let server = staged.path().join(SERVER_DIR);
    let made = fs::create_dir(&server).map_err(CheckpointError::from);
    let dumped = made.and_then(|()| (dump.dumper)(dump.pid, about.position, &server));
    // Whatever came of it, the server runs, if nothing of CRIU's is in it.
    if !matches!(dumped, Err(CheckpointError::Interrupted(_))) {
        mouth.say(Word::Dumped);
    }
    dumped?;
    snapshot.save(staged.path())?;
    let mut seen = |more| {
        gauge.done.fetch_add(more, Ordering::Relaxed);
    };
    let plain = bytes_below(staged.path());
    gauge.dumped(2 * plain);
    if dump.compression != Compression::None {
        // Nobody knows yet how small it gets.
        gauge.dumped(3 * plain);
        compress_image(&server, dump.compression, &mut seen)?;
        let read = gauge.done.load(Ordering::Relaxed);
        gauge.dumped(read + 2 * bytes_below(staged.path()));
    }
    staged.commit(about, &mut seen)
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
        let gauge = Gauge::new(7);
        assert!(
            gauge
                .status()
                .to_string()
                .ends_with("slot 7: the server is being dumped")
        );
        gauge.dumped(2 * bytes);
        assert_eq!(gauge.status().left_ms, None);
        gauge.done.fetch_add(bytes, Ordering::Relaxed);
        let status = gauge.status();
        assert!(status.rate > 0 && status.left_ms.is_some());
        let said = status.to_string();
        assert!(
            said.contains("4 of 8 MiB") && said.ends_with("s left"),
            "{said}"
        );
    }
}
