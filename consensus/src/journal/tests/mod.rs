use super::record::HEADER_BYTES;
use super::*;
use crate::core::{Ballot, Recovery};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::time::Duration;

const SEGMENT: u64 = 64 << 10;
const BALLOT: Ballot = Ballot { round: 1, node: 1 };

pub(super) struct Log {
    pub(super) journal: Journal,
    pub(super) recovered: DurableState,
    woken_rx: mpsc::Receiver<()>,
    next: u64,
}

pub(super) fn config(dir: &Path) -> JournalConfig {
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

pub(super) fn open(dir: &Path) -> Log {
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

pub(super) fn first_segment(dir: &Path) -> Vec<u8> {
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
fn a_vote_below_the_promise_is_an_error_and_never_a_tear() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append_one_by_one([
        JournalOp::Promise(Ballot { round: 2, node: 1 }),
        accept(1, 10),
    ]);
    drop(log);
    assert!(refusal(config(dir.path())).contains("below an earlier promise"));
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
fn a_torn_tail_is_cut_off_and_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append_one_by_one((1..=3).map(|slot| accept(slot, 100)));
    drop(log);
    let record = record_bytes(100) as u64;
    for torn in [0, 30, 70] {
        // The last record lost part of itself.
        let whole = first_segment(dir.path());
        let at = HEADER_BYTES as u64 + 2 * record + torn;
        patch(dir.path(), at, &[0; 100][..100 - torn as usize]);
        let mut log = open(dir.path());
        assert_eq!(log.recovered.tail.len(), 2);
        assert_eq!(log.recovered.last_seq, IoSeq(2));
        log.append_one_by_one([accept(3, 100)]);
        drop(log);
        assert_eq!(first_segment(dir.path()), whole);
    }
}

#[test]
fn a_batch_torn_in_the_middle_is_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append_one_by_one([accept(1, 100)]);
    // One batch: the disk may write its end and not its middle.
    log.append((2..=5).map(|slot| accept(slot, 100)));
    log.flushed();
    drop(log);
    patch(
        dir.path(),
        HEADER_BYTES as u64 + 2 * record_bytes(100) as u64 + 5,
        &[1],
    );
    let log = open(dir.path());
    assert_eq!(log.recovered.tail.len(), 2);
    drop(log);
    assert_eq!(
        open(dir.path()).recovered.last_seq,
        IoSeq(2),
        "nothing of the tear is left"
    );
}

#[test]
fn damage_in_the_middle_is_an_error_that_names_the_place() {
    for within in [0, 4, 9, 30, 58, HEADER_BYTES as u64 + 50] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        log.append_one_by_one((1..=5).map(|slot| accept(slot, 100)));
        drop(log);
        let record = HEADER_BYTES as u64 + 2 * record_bytes(100) as u64;
        let byte = first_segment(dir.path())[(record + within) as usize];
        patch(dir.path(), record + within, &[byte ^ 0x10]);
        let message = refusal(config(dir.path()));
        let expected = format!("0000000001.log at offset {record}: ");
        assert!(
            message.starts_with("corrupt log /") && message.contains(&expected),
            "{message}"
        );
        patch(dir.path(), record + within, &[byte]);
        assert_eq!(
            open(dir.path()).recovered.tail.len(),
            5,
            "an error changes nothing on disk"
        );
    }
}

#[test]
fn damage_in_an_earlier_segment_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append_one_by_one((1..=100).map(|slot| accept(slot, 2000)));
    drop(log);
    let numbers = Segments {
        dir: dir.path().to_path_buf(),
        cluster: 5,
        node: 1,
        segment_bytes: SEGMENT,
    }
    .list();
    assert!(numbers.unwrap().len() > 3);
    let last = SEGMENT / record_bytes(2000) as u64 - 1;
    let offset = HEADER_BYTES as u64 + last * record_bytes(2000) as u64;
    let record = first_segment(dir.path())[offset as usize..][..100].to_vec();
    // Gone without a trace: only the next segment knows that there was something.
    patch(
        dir.path(),
        offset,
        &[0; 4000][..(SEGMENT - offset) as usize],
    );
    assert!(refusal(config(dir.path())).contains("a record is missing"));
    patch(dir.path(), offset, &record);
    assert!(refusal(config(dir.path())).contains("payload is damaged"));
    std::fs::remove_file(dir.path().join("0000000002.log")).unwrap();
    assert!(try_open(config(dir.path())).is_err());
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
fn a_shortened_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append_one_by_one((1..=5).map(|slot| accept(slot, 100)));
    drop(log);
    let file = File::options()
        .write(true)
        .open(dir.path().join("0000000001.log"))
        .unwrap();
    for length in [SEGMENT - 1, 700, 64, 10, 0] {
        file.set_len(length).unwrap();
        assert!(matches!(
            try_open(config(dir.path())),
            Err(JournalError::Corrupt { .. })
        ));
    }
}

/// Whatever the disk did to the last, unfinished flush, all before it is recovered, in order, and the
/// log goes on from there.
#[test]
fn any_tear_of_the_last_flush_keeps_all_before_it() {
    let mut random = 1_u64;
    let mut chance = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695);
        (random >> 33) % below
    };
    for round in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        let kept = 1 + chance(20);
        log.append((1..=kept).map(|slot| accept(slot, chance(900) as usize)));
        log.flushed();
        let durable = log.journal.offset as usize;
        let more = 1 + chance(15);
        log.append((kept + 1..=kept + more).map(|slot| accept(slot, chance(900) as usize)));
        log.flushed();
        let end = log.journal.offset as usize;
        drop(log);
        let mut bytes = first_segment(dir.path());
        // Sectors that did not make it, a cut, or garbage.
        for sector in durable / 512..=end / 512 {
            let range = (sector * 512).max(durable)..((sector + 1) * 512).min(end);
            match chance(4) {
                0 => bytes[range].fill(0),
                1 => bytes[range]
                    .iter_mut()
                    .for_each(|byte| *byte = chance(256) as u8),
                _ => {}
            }
        }
        patch(dir.path(), 0, &bytes);
        let mut log = open(dir.path());
        let recovered = log.recovered.tail.len() as u64;
        assert!(
            (kept..=kept + more).contains(&recovered),
            "round {round}: {recovered} of {kept}"
        );
        let slots: Vec<_> = log.recovered.tail.iter().map(|entry| entry.slot).collect();
        assert_eq!(slots, (1..=recovered).collect::<Vec<_>>());
        log.append_one_by_one([accept(recovered + 1, 50)]);
        drop(log);
        assert_eq!(open(dir.path()).recovered.tail.len() as u64, recovered + 1);
    }
}

/// A log with votes for slots 1 to `slots` in several segments, all durable.
fn long_log(dir: &Path, slots: Slot) -> Log {
    let mut log = open(dir);
    log.append_all((1..=slots).map(|slot| accept(slot, 5_000)));
    log.append_all([JournalOp::Commit(slots)]);
    log.await_durable();
    log
}

fn segments(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".log")).collect();
    names.sort_unstable();
    names
}

impl Log {
    fn append_all(&mut self, ops: impl IntoIterator<Item = JournalOp>) {
        let numbered = ops.into_iter().map(|op| {
            self.next += 1;
            (IoSeq(self.next - 1), op)
        });
        let mut numbered: Vec<_> = numbered.collect();
        self.journal.append(&mut numbered);
    }

    fn await_durable(&self) {
        while self.journal.durable().0 + 1 < self.next {
            self.woken_rx.recv_timeout(Duration::from_secs(30)).unwrap();
        }
    }

    fn truncate(&mut self, upto: Slot) -> bool {
        if !self.journal.truncate(upto) {
            return false;
        }
        loop {
            if let Some(done) = self.journal.truncated() {
                done.unwrap();
                return true;
            }
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_log_that_was_truncated_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let recovery = Recovery::Voter { floor: 99 };
    log.append_all([JournalOp::Recovery(recovery)]);
    drop(log);
    let mut log = long_log(dir.path(), 50);
    let all = segments(dir.path()).len();
    assert!(log.truncate(30));
    let first = log.journal.first();
    assert!((20..=31).contains(&first), "{first}");
    assert!(segments(dir.path()).len() < all);
    assert!(matches!(
        log.journal.read(first - 1),
        Err(JournalError::Gone { .. })
    ));
    assert!(!log.truncate(30), "there is nothing more to drop");
    log.append_all([accept(51, 10)]);
    drop(log);
    let mut log = open(dir.path());
    assert_eq!(log.journal.first(), first);
    assert_eq!(log.recovered.recovery, Some(recovery));
    assert_eq!((log.recovered.commit, log.recovered.promised), (50, BALLOT));
    assert_eq!(log.recovered.tail.len(), 1);
    for slot in first..=50 {
        assert_eq!(log.journal.read(slot).unwrap(), value(slot, 5_000));
    }
    // And again, from where it begins now.
    log.append_all((52..=90).map(|slot| accept(slot, 5_000)));
    log.await_durable();
    assert!(log.truncate(80));
    drop(log);
    let mut log = open(dir.path());
    assert!(log.journal.first() > 60);
    assert_eq!(log.recovered.commit, log.journal.first() - 1);
    assert_eq!(log.journal.read(90).unwrap(), value(90, 5_000));
}

#[test]
fn nothing_is_dropped_that_holds_a_vote_above_or_was_not_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append_all([accept(1000, 10)]);
    log.append_all((1..=50).map(|slot| accept(slot, 5_000)));
    log.await_durable();
    assert!(!log.truncate(50));
    assert!(log.truncate(1000));
    assert_eq!(log.journal.first(), 1001);
    // The current segment stays, whatever is in it.
    assert_eq!(segments(dir.path()).first().unwrap().len(), 14);
}

#[test]
fn a_crash_while_segments_are_dropped_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = long_log(dir.path(), 50);
    let before = segments(dir.path());
    let copies: Vec<_> = before
        .iter()
        .map(|name| std::fs::read(dir.path().join(name)).unwrap())
        .collect();
    log.truncate(30);
    let first = log.journal.first();
    drop(log);
    let after = segments(dir.path());
    // The segments that were to go are there again, all or some.
    for keep in 0..before.len() - after.len() {
        for (name, bytes) in before.iter().zip(&copies).skip(keep) {
            if !after.contains(name) {
                std::fs::write(dir.path().join(name), bytes).unwrap();
            }
        }
        let mut log = open(dir.path());
        assert_eq!((log.journal.first(), log.recovered.commit), (first, 50));
        assert_eq!(log.journal.read(50).unwrap(), value(50, 5_000));
        drop(log);
        assert_eq!(segments(dir.path()), after);
    }
    // Without the file that says where it begins it is not taken for a log that begins there.
    std::fs::remove_file(dir.path().join("base")).unwrap();
    let refused = refusal(config(dir.path()));
    assert!(refused.contains("segment 1 is missing"), "{refused}");
}

#[test]
fn what_a_checkpoint_covers_need_not_be_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append_all([accept(1, 10), accept(9, 10), JournalOp::Install(7)]);
    log.append_all([accept(8, 10), JournalOp::Commit(9)]);
    drop(log);
    let mut log = open(dir.path());
    assert_eq!((log.journal.first(), log.recovered.commit), (8, 9));
    assert_eq!(log.journal.read(9).unwrap(), value(9, 10));
    assert!(matches!(
        log.journal.read(1),
        Err(JournalError::Gone { slot: 1, first: 8 })
    ));
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
