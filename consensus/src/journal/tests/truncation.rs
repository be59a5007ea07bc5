//! Logs whose oldest segments are dropped behind a checkpoint.

use super::*;

/// A log with votes for slots 1 to `slots` in several segments, all durable.
fn long_log(dir: &Path, slots: Slot) -> Log {
    let mut log = open(dir);
    log.append((1..=slots).map(|slot| accept(slot, 5_000)));
    log.append([JournalOp::Commit(slots)]);
    log.flushed();
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
    log.append([JournalOp::Recovery(recovery)]);
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
    log.append([accept(51, 10)]);
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
    log.append((52..=90).map(|slot| accept(slot, 5_000)));
    log.flushed();
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
    log.append([accept(1000, 10)]);
    log.append((1..=50).map(|slot| accept(slot, 5_000)));
    log.flushed();
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
    log.append([accept(1, 10), accept(9, 10), JournalOp::Install(7)]);
    log.append([accept(8, 10), JournalOp::Commit(9)]);
    drop(log);
    let mut log = open(dir.path());
    assert_eq!((log.journal.first(), log.recovered.commit), (8, 9));
    assert_eq!(log.journal.read(9).unwrap(), value(9, 10));
    assert!(matches!(
        log.journal.read(1),
        Err(JournalError::Gone { slot: 1, first: 8 })
    ));
}
