//! The durable log of a core's operations.
//!
//! # Model
//!
//! A directory of preallocated segment files that are only ever appended to. One writer thread
//! takes whatever has gathered since its last flush, writes it with one system call, makes it
//! durable with one `fdatasync`, publishes the last operation's number and calls `wake`. A caller
//! that would only wait for that can do the same on its own thread ([`Journal::append_here`]),
//! which saves waking two threads; whoever writes holds the writer's lock, and never overtakes a
//! batch on its way to the other. Where each record goes is decided by the caller's side, so the
//! position of every value is known at once and the writer answers with a single number.
//!
//! # Invariants
//!
//! * A segment is flushed before the next one is written to, so only the end of the log can be
//!   torn.
//! * Every record names the checksum of the one before it; numbers of operations have no gaps.
//! * A damaged record is taken for a torn tail only if no later record proves that it was durable
//!   (see `record`); otherwise opening fails and names file and offset.
//! * A failed write or flush ends the process: what the page cache holds afterwards is not what the
//!   disk holds, and no later flush would tell.
//!
//! * Only whole segments are dropped, from the oldest on, when all they hold votes for is covered
//!   by a checkpoint; a file says where the log begins (see `base`).
//!
//! Deliberately absent: repair of damaged records from peers. Damage to the very last flush, with
//! nothing written after it, cannot be told from a tear.

mod base;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod index;
mod reader;
mod record;
mod scan;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

use crate::core::{DurableState, IoSeq, JournalOp, NodeId, Slot, Value};
use base::Summary;
use bytes::BytesMut;
use index::Index;
pub use reader::LogReader;
use record::{HEADER_BYTES, Kind, RecordHeader, payload_len, record_bytes};
use scan::Access;
use segment::Segments;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use writer::Writer;

/// Default size of a segment.
pub const SEGMENT_BYTES: u64 = 32 << 20;

/// A caller that has waited longer than this for the disk leaves that to the writer's thread …
const SLOW: Duration = Duration::from_millis(2);
/// … for so long.
const SLOW_PAUSE: Duration = Duration::from_secs(1);

/// Segments kept open for reading.
const READERS_MAX: usize = 16;

/// Called from the writer thread when more has become durable.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Settings of a [`Journal`].
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// Directory of the log; made if missing.
    pub dir: PathBuf,
    /// Cluster the log belongs to.
    pub cluster: u128,
    /// Node the log belongs to.
    pub node: NodeId,
    /// Size of a segment; has to hold the largest value.
    pub segment_bytes: u64,
}

/// The reason why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory cannot be made or written.
    #[error("cannot write to the log directory {path}: {source}", path = path.display())]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Another node runs on the directory.
    #[error("log directory {path} is in use by another node", path = path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The log is another cluster's.
    #[error("log {path} belongs to cluster {found:032x}, not {expected:032x}", path = path.display())]
    ForeignCluster {
        /// The segment.
        path: PathBuf,
        /// Its cluster.
        found: u128,
        /// This node's cluster.
        expected: u128,
    },
    /// The log is another node's.
    #[error("log {path} belongs to node {found}, not node {expected}", path = path.display())]
    ForeignNode {
        /// The segment.
        path: PathBuf,
        /// Its node.
        found: NodeId,
        /// This node.
        expected: NodeId,
    },
    /// The log was written by another version of the program.
    #[error("log {path} has format {found}, which this version cannot read", path = path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The log is damaged where it once was whole.
    #[error("corrupt log {path} at offset {offset}: {what}", path = path.display())]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// The offset in the file.
        offset: u64,
        /// The damage.
        what: String,
    },
    /// The slot was dropped behind a checkpoint.
    #[error("slot {slot} is not in the log any more, which begins at slot {first}")]
    Gone {
        /// The slot.
        slot: Slot,
        /// The first one that is there.
        first: Slot,
    },
    /// The operating system failed.
    #[error("log {path}: {source}", path = path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

impl JournalError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    fn corrupt(path: &Path, offset: u64, what: &str) -> Self {
        Self::Corrupt {
            path: path.to_path_buf(),
            offset,
            what: what.to_owned(),
        }
    }
}

/// The position of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// Segment number; 0 means that the slot has no value here.
    segment: u32,
    /// Offset in units of 8 bytes.
    offset8: u32,
}

const NOWHERE: Position = Position {
    segment: 0,
    offset8: 0,
};

/// Version of the file that says where the log begins.
const VERSION_BASE: u32 = 1;

/// An operation and where it is written.
#[derive(Debug)]
struct Planned {
    seq: IoSeq,
    op: JournalOp,
    segment: u32,
    offset: u64,
}

/// The log, open for appending and reading.
pub struct Journal {
    segments: Segments,
    index: Index,
    segment: u32,
    offset: u64,
    last_seq: IoSeq,
    /// The sum of the current segment so far, and of the full ones before it, by number.
    current: Summary,
    full: BTreeMap<u32, Summary>,
    truncation: Option<JoinHandle<Result<(), JournalError>>>,
    written: Arc<AtomicU64>,
    durable: Arc<AtomicU64>,
    batch_tx: Option<Sender<Vec<Planned>>>,
    spare_rx: Receiver<Vec<Planned>>,
    /// A batch that is empty again.
    spare: Vec<Planned>,
    /// `None`: only to be read.
    writer: Option<Arc<Mutex<Writer>>>,
    thread: Option<JoinHandle<()>>,
    /// The disk was slow for [`Journal::append_here`]: until then its thread waits for it.
    here_again_at: Option<Instant>,
    readers: HashMap<u32, File>,
    /// `None`: only to be read.
    _lock: Option<File>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Journal({}, {:?})",
            self.segments.dir.display(),
            self.last_seq
        )
    }
}

impl Journal {
    /// Locks the directory, recovers what is there, and starts the writer.
    pub fn open(config: JournalConfig, wake: Wake) -> Result<(Self, DurableState), JournalError> {
        let JournalConfig {
            dir,
            cluster,
            node,
            segment_bytes,
        } = config;
        assert!(segment_bytes.is_multiple_of(8) && segment_bytes / 8 <= u64::from(u32::MAX));
        let segments = Segments {
            dir,
            cluster,
            node,
            segment_bytes,
        };
        let lock = lock(&segments.dir)?;
        let found = scan::recover(&segments, Access::Owner)?;
        let last = found.recovered.last_seq.0;
        let written = Arc::new(AtomicU64::new(last));
        let durable = Arc::new(AtomicU64::new(last));
        let (batch_tx, batch_rx) = channel();
        let (spare_tx, spare_rx) = channel();
        let start = writer::Start {
            segments: segments.clone(),
            segment: found.segment,
            offset: found.offset,
            previous: found.previous,
            written: written.clone(),
            durable: durable.clone(),
        };
        let writer = Writer::new(start).map_err(|e| JournalError::io(&segments.dir, e))?;
        let writer = Arc::new(Mutex::new(writer));
        let theirs = writer.clone();
        let thread = std::thread::Builder::new()
            .name(format!("journal-{node}"))
            .spawn(move || writer::run(&theirs, &batch_rx, &spare_tx, &wake))
            .map_err(|e| JournalError::io(&segments.dir, e))?;
        let journal = Self {
            segments,
            index: found.index,
            segment: found.segment,
            offset: found.offset,
            last_seq: found.recovered.last_seq,
            current: found.current,
            full: found.full,
            truncation: None,
            written,
            durable,
            batch_tx: Some(batch_tx),
            spare_rx,
            spare: Vec::new(),
            writer: Some(writer),
            thread: Some(thread),
            here_again_at: None,
            readers: HashMap::new(),
            _lock: Some(lock),
        };
        Ok((journal, found.recovered))
    }

    /// Appends operations, which are drained; they become durable some time later.
    pub fn append(&mut self, ops: &mut Vec<(IoSeq, JournalOp)>) {
        if ops.is_empty() {
            return;
        }
        let batch = self.batch(ops);
        if let Some(batch_tx) = &self.batch_tx {
            // The writer ends only with the process, or after this sender is dropped.
            assert!(batch_tx.send(batch).is_ok(), "the journal's writer is gone");
        }
    }

    fn batch(&mut self, ops: &mut Vec<(IoSeq, JournalOp)>) -> Vec<Planned> {
        let mut batch = match std::mem::take(&mut self.spare) {
            spare if spare.capacity() > 0 => spare,
            _ => self.spare_rx.try_recv().unwrap_or_default(),
        };
        for (seq, op) in ops.drain(..) {
            batch.push(self.plan(seq, op));
        }
        batch
    }

    /// Appends operations, which are drained, and makes them durable before it returns, if anything
    /// in them needs that. False: the writer's thread is at work, or the disk was slow lately;
    /// nothing was done.
    pub fn append_here(&mut self, ops: &mut Vec<(IoSeq, JournalOp)>) -> bool {
        let start = Instant::now();
        let slow = self.here_again_at.is_some_and(|again| start < again);
        if slow || self.written.load(Ordering::Acquire) != self.last_seq.0 {
            return false;
        }
        let Some(writer) = self.writer.clone() else {
            return false;
        };
        let Ok(mut writer) = writer.try_lock() else {
            return false;
        };
        let mut kept = Vec::new();
        let batch = self.batch(ops);
        let flushed = writer.commit(std::iter::once(batch), |batch| kept = batch);
        if flushed {
            writer.prepare_next();
        }
        let end = Instant::now();
        self.here_again_at = (end - start > SLOW).then(|| end + SLOW_PAUSE);
        self.spare = kept;
        true
    }

    /// Decides where an operation goes.
    fn plan(&mut self, seq: IoSeq, op: JournalOp) -> Planned {
        assert_eq!(
            seq.0,
            self.last_seq.0 + 1,
            "operations are numbered without gaps"
        );
        self.last_seq = seq;
        let bytes = record_bytes(payload_len(&op)) as u64;
        if self.offset + bytes > self.segments.segment_bytes {
            assert!(
                bytes <= self.segments.segment_bytes - HEADER_BYTES as u64,
                "value too large"
            );
            self.full.insert(self.segment, self.current);
            self.current.max_slot = 0;
            self.segment += 1;
            self.offset = HEADER_BYTES as u64;
        }
        let (segment, offset) = (self.segment, self.offset);
        self.offset += bytes;
        if let JournalOp::Accept { slot, .. } = &op {
            let position = Position {
                segment,
                offset8: (offset / 8) as u32,
            };
            self.index.put(*slot, position);
        }
        if let JournalOp::Install(slot) = &op {
            self.index.forget(*slot);
        }
        self.current.add(seq, &op);
        Planned {
            seq,
            op,
            segment,
            offset,
        }
    }

    /// The last durable operation; all before it are durable too.
    pub fn durable(&self) -> IoSeq {
        IoSeq(self.durable.load(Ordering::Acquire))
    }

    /// Reads the newest accepted value of a slot. It has to be durable.
    pub fn read(&mut self, slot: Slot) -> Result<Value, JournalError> {
        let first = self.index.first();
        if slot < first {
            return Err(JournalError::Gone { slot, first });
        }
        let Some(position) = self.index.get(slot) else {
            let what = format!("slot {slot} is not in the log");
            return Err(JournalError::corrupt(&self.segments.dir, 0, &what));
        };
        let salt = self.segments.header(position.segment).salt();
        let offset = u64::from(position.offset8) * 8;
        let path = self.segments.path(position.segment);
        let file = self.reader(position.segment)?;
        let damaged = || JournalError::corrupt(&path, offset, "the record is damaged");
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, offset)
            .map_err(|e| JournalError::io(&path, e))?;
        let header = RecordHeader::decode(&head, salt).ok_or_else(damaged)?;
        if header.kind != Kind::Accept || header.slot != slot {
            return Err(damaged());
        }
        let mut payload = BytesMut::zeroed(header.payload_len as usize);
        file.read_exact_at(&mut payload, offset + HEADER_BYTES as u64)
            .map_err(|e| JournalError::io(&path, e))?;
        if crc32c::crc32c(&payload) != header.payload_crc {
            return Err(damaged());
        }
        Ok(payload.freeze())
    }

    /// The first slot that can be read.
    pub fn first(&self) -> Slot {
        self.index.first()
    }

    /// Drops the oldest segments, as far as they hold no votes for slots above `upto`. All slots up
    /// to there have to be chosen, and covered by a durable checkpoint. It happens in the
    /// background; [`Journal::truncated`] tells the outcome. False when there is nothing to drop,
    /// or one is under way.
    pub fn truncate(&mut self, upto: Slot) -> bool {
        let durable = self.durable();
        if self.truncation.is_some() {
            return false;
        }
        let old = self.full.iter();
        // What follows has to be durable: the log begins with it.
        let old = old.take_while(|(_, it)| it.max_slot <= upto && it.last_seq < durable);
        let Some((last, summary)) = old.last().map(|(number, it)| (*number, *it)) else {
            return false;
        };
        let kept = self.full.split_off(&(last + 1));
        let dropped = std::mem::replace(&mut self.full, kept);
        let highest = dropped.values().map(|it| it.max_slot).max();
        self.index.forget(highest.unwrap_or_default());
        self.readers.retain(|number, _| *number > last);
        let (segments, gone) = (self.segments.clone(), self.index.first() - 1);
        let drop = move || base::drop_before(&segments, last + 1, gone, &summary);
        let thread = std::thread::Builder::new().name("journal-truncate".to_owned());
        // Without a thread the next truncation takes these too.
        self.truncation = thread.spawn(drop).ok();
        true
    }

    /// The outcome of a truncation, once it is over.
    pub fn truncated(&mut self) -> Option<Result<(), JournalError>> {
        if !self.truncation.as_ref()?.is_finished() {
            return None;
        }
        let panicked = |_| {
            let what = io::Error::other("dropping segments panicked");
            Err(JournalError::io(&self.segments.dir, what))
        };
        let thread = self.truncation.take()?;
        Some(thread.join().unwrap_or_else(panicked))
    }

    fn reader(&mut self, segment: u32) -> Result<&File, JournalError> {
        if self.readers.len() >= READERS_MAX && !self.readers.contains_key(&segment) {
            self.readers.clear();
        }
        match self.readers.entry(segment) {
            std::collections::hash_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let path = self.segments.path(segment);
                let file = File::open(&path).map_err(|e| JournalError::io(&path, e))?;
                Ok(vacant.insert(file))
            }
        }
    }

    /// Writes and flushes what was appended, and ends the writer.
    pub fn close(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.batch_tx = None;
        if let Some(thread) = self.thread.take() {
            // A panicked writer has told why on its way out.
            let _ = thread.join();
        }
        if let Some(truncation) = self.truncation.take() {
            // What it did not get done is done when the log is opened.
            let _ = truncation.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Takes the directory for this process.
fn lock(dir: &Path) -> Result<File, JournalError> {
    let unwritable = |source| JournalError::Unwritable {
        path: dir.to_path_buf(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(unwritable)?;
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    let file = file.map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(JournalError::Locked {
            path: dir.to_path_buf(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(unwritable(source)),
    }
}
