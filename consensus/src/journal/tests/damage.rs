//! Torn tails, which are cut off, and damage, which is an error.

use super::*;
use fastrand::Rng;

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

/// Whatever the disk did to the last, unfinished flush, all before it is recovered, in order, and
/// the log goes on from there.
#[test]
fn any_tear_of_the_last_flush_keeps_all_before_it() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    for round in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        let kept = rng.u64(1..=20);
        log.append((1..=kept).map(|slot| accept(slot, rng.usize(0..900))));
        log.flushed();
        let durable = log.journal.offset as usize;
        let more = rng.u64(1..=15);
        log.append((kept + 1..=kept + more).map(|slot| accept(slot, rng.usize(0..900))));
        log.flushed();
        let end = log.journal.offset as usize;
        drop(log);
        let mut bytes = first_segment(dir.path());
        // Sectors that did not make it, a cut, or garbage.
        for sector in durable / 512..=end / 512 {
            let range = (sector * 512).max(durable)..((sector + 1) * 512).min(end);
            match rng.u8(0..4) {
                0 => bytes[range].fill(0),
                1 => rng.fill(&mut bytes[range]),
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
