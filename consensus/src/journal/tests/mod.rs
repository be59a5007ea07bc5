//! The log on a real file system.

mod damage;
mod golden;
mod truncation;

use super::record::HEADER_BYTES;
use super::*;
use crate::core::{Ballot, Recovery};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::time::Duration;

const SEGMENT: u64 = 64 << 10;
const BALLOT: Ballot = Ballot { round: 1, node: 1 };

struct Log {
    journal: Journal,
    recovered: DurableState,
    woken_rx: mpsc::Receiver<()>,
    next: u64,
}

fn config(dir: &Path) -> JournalConfig {
    JournalConfig {
        dir: dir.to_path_buf(),
        cluster: 5,
        node: 1,
        segment_bytes: SEGMENT,
    }
}

fn try_open(config: JournalConfig) -> Result<Log, JournalError> {
    let (woken_tx, woken_rx) = mpsc::channel();
    let wake: Wake = Arc::new(move || {
        let _ = woken_tx.send(());
    });
    let (journal, recovered) = Journal::open(config, wake)?;
    let next = recovered.last_seq.0 + 1;
    Ok(Log {
        journal,
        recovered,
        woken_rx,
        next,
    })
}

fn open(dir: &Path) -> Log {
    try_open(config(dir)).unwrap()
}

fn refusal(config: JournalConfig) -> String {
    try_open(config)
        .map(|log| log.recovered)
        .unwrap_err()
        .to_string()
}

fn value(slot: Slot, length: usize) -> Value {
    Value::from(vec![slot as u8; length])
}

fn accept(slot: Slot, length: usize) -> JournalOp {
    JournalOp::Accept {
        ballot: BALLOT,
        slot,
        value: value(slot, length),
    }
}

impl Log {
    fn append(&mut self, ops: impl IntoIterator<Item = JournalOp>) {
        let mut ops: Vec<_> = ops
            .into_iter()
            .map(|op| {
                self.next += 1;
                (IoSeq(self.next - 1), op)
            })
            .collect();
        self.journal.append(&mut ops);
    }

    /// Written and flushed by the caller, once the thread has nothing to do; durable afterwards.
    fn append_here(&mut self, op: JournalOp) {
        let mut ops = vec![(IoSeq(self.next), op)];
        self.next += 1;
        while !self.journal.append_here(&mut ops) {
            std::thread::yield_now();
        }
        assert!(ops.is_empty());
        assert_eq!(self.journal.durable().0 + 1, self.next);
    }

    fn flushed(&self) {
        while self.journal.durable().0 + 1 < self.next {
            self.woken_rx
                .recv_timeout(Duration::from_secs(120))
                .unwrap();
        }
    }

    /// Each in a flush of its own.
    fn append_one_by_one(&mut self, ops: impl IntoIterator<Item = JournalOp>) {
        for op in ops {
            self.append([op]);
            self.flushed();
        }
    }
}

fn patch(dir: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options()
        .write(true)
        .open(dir.join("0000000001.log"))
        .unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn first_segment(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("0000000001.log")).unwrap()
}

#[test]
fn caller_and_thread_write_by_turns() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let length = |slot: Slot| slot as usize * 37 % 900;
    log.append([JournalOp::Promise(BALLOT)]);
    for slot in 1..=90 {
        match slot % 3 {
            0 => log.append_here(accept(slot, length(slot))),
            _ => log.append([accept(slot, length(slot)), JournalOp::Commit(slot - 1)]),
        }
    }
    log.flushed();
    drop(log);
    let mut log = open(dir.path());
    for slot in 1..=90 {
        assert_eq!(log.journal.read(slot).unwrap(), value(slot, length(slot)));
    }
}

#[test]
fn what_was_appended_is_recovered_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    assert_eq!(log.recovered.last_seq, IoSeq(0));
    log.append([JournalOp::Promise(BALLOT)]);
    // Several segments, values of all sizes: copied, by reference, empty.
    let lengths =
        |slot: Slot| (slot as usize * 977) % 40_000 * usize::from(!slot.is_multiple_of(7));
    log.append((1..=40).map(|slot| accept(slot, lengths(slot))));
    log.flushed();
    log.append([JournalOp::Commit(30)]);
    let higher = Ballot { round: 2, node: 3 };
    let again = JournalOp::Accept {
        ballot: higher,
        slot: 35,
        value: value(99, 5),
    };
    log.append([again]);
    log.flushed();
    log.journal.close();

    let mut log = open(dir.path());
    assert_eq!(log.recovered.promised, higher);
    assert_eq!(log.recovered.commit, 30);
    assert_eq!(log.recovered.last_seq, IoSeq(43));
    let tail: Vec<_> = log.recovered.tail.iter().map(|entry| entry.slot).collect();
    assert_eq!(tail, (31..=40).collect::<Vec<_>>());
    assert_eq!(log.recovered.tail[4].ballot, higher);
    for slot in 1..=40 {
        let expected = if slot == 35 {
            value(99, 5)
        } else {
            value(slot, lengths(slot))
        };
        assert_eq!(log.journal.read(slot).unwrap(), expected, "slot {slot}");
    }
    assert!(log.journal.read(41).is_err());
    let vote = JournalOp::Accept {
        ballot: higher,
        slot: 41,
        value: value(41, 10),
    };
    log.append([vote]);
    log.flushed();
    assert_eq!(log.journal.read(41).unwrap(), value(41, 10));
    drop(log);
    assert_eq!(open(dir.path()).recovered.last_seq, IoSeq(44));
}

/// The next segment is made in the background. Closing used to end the process when that failed,
/// although nothing needed it any more.
#[test]
fn closing_does_not_mind_that_the_next_segment_cannot_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    std::fs::create_dir(dir.path().join("0000000002.new")).unwrap();
    log.append([accept(1, SEGMENT as usize / 2)]);
    log.flushed();
    log.journal.close();
    std::fs::remove_dir(dir.path().join("0000000002.new")).unwrap();
    assert_eq!(open(dir.path()).recovered.last_seq, IoSeq(1));
}

#[test]
fn durable_grows_in_order_while_batches_gather() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let mut last = IoSeq(0);
    for slot in 1..=2000 {
        log.append([accept(slot, 100)]);
        let durable = log.journal.durable();
        assert!(durable >= last && durable.0 < log.next);
        last = durable;
    }
    log.flushed();
    let flushes = 1 + log.woken_rx.try_iter().count();
    assert!(
        flushes < 2000,
        "each of 2000 operations had a flush of its own"
    );
    drop(log);
    assert_eq!(open(dir.path()).recovered.tail.len(), 2000);
}

#[test]
fn a_hint_waits_for_no_flush_and_is_kept_on_close() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append_one_by_one([accept(1, 8)]);
    log.append([JournalOp::Commit(1)]);
    log.journal.close();
    assert_eq!(open(dir.path()).recovered.commit, 1);
}

#[test]
fn other_peoples_logs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append_one_by_one([accept(1, 8)]);
    let taken = refusal(config(dir.path()));
    assert!(taken.ends_with("is in use by another node"), "{taken}");
    drop(log);
    let message = refusal(JournalConfig {
        cluster: 6,
        ..config(dir.path())
    });
    assert!(message.contains("belongs to cluster 0000"), "{message}");
    let message = refusal(JournalConfig {
        node: 2,
        ..config(dir.path())
    });
    assert!(
        message.contains("belongs to node 1, not node 2"),
        "{message}"
    );
    patch(dir.path(), 3, b"x");
    assert!(refusal(config(dir.path())).contains("the segment header is damaged"));
}

#[test]
fn an_unwritable_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let message = refusal(config(&file.join("log")));
    assert!(
        message.starts_with("cannot write to the log directory"),
        "{message}"
    );
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
    // Permissions do not bind root.
    if File::create(closed.join("probe")).is_err() {
        assert!(refusal(config(&closed)).starts_with("cannot write to the log directory"));
    }
}

#[test]
fn a_log_is_read_while_its_owner_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append((1..=40).map(|slot| accept(slot, 3000)));
    log.append([JournalOp::Commit(30)]);
    log.flushed();
    let mut reader = LogReader::open(config(dir.path())).unwrap();
    assert_eq!((reader.commit(), reader.accepted()), (30, 40));
    log.append((41..=60).map(|slot| accept(slot, 3000)));
    log.flushed();
    assert_eq!(reader.accepted(), 40);
    for slot in 1..=40 {
        assert_eq!(reader.read(slot).unwrap(), value(slot, 3000));
    }
    assert!(reader.read(60).is_err());
    assert_eq!(LogReader::open(config(dir.path())).unwrap().accepted(), 60);
}

#[test]
fn a_reader_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append((1..=3).map(|slot| accept(slot, 100)));
    log.append([JournalOp::Commit(2)]);
    log.flushed();
    log.journal.close();
    let path = dir.path().join("0000000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let reader = LogReader::open(config(dir.path())).unwrap();
    assert_eq!((reader.commit(), reader.accepted()), (0, 3));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(LogReader::open(config(empty.path())).unwrap().accepted(), 0);
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
    let missing = empty.path().join("missing");
    assert!(LogReader::open(config(&missing)).is_err());
}
