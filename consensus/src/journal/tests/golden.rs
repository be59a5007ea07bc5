//! Fixed bytes of a log. The format has a version (`record::VERSION`): a log written by an earlier
//! build has to be read by every later one, or be refused by its version.

use super::super::record::HEADER_BYTES;
use super::{config, first_segment, open};
use crate::core::{Ballot, IoSeq, JournalOp, Recovery, Value};

const GOLDEN: &str = include_str!("golden_log.txt");

fn operations() -> Vec<JournalOp> {
    let ballot = Ballot { round: 3, node: 2 };
    let accept = |slot, value: &'static [u8]| JournalOp::Accept {
        ballot,
        slot,
        value: Value::from_static(value),
    };
    vec![
        JournalOp::Recovery(Recovery::Lost),
        JournalOp::Recovery(Recovery::CatchingUp { upto: 1, floor: 9 }),
        JournalOp::Recovery(Recovery::Learner),
        JournalOp::Recovery(Recovery::Voter { floor: 1 << 32 }),
        JournalOp::Promise(ballot),
        accept(1, b"value"),
        accept(2, b""),
        JournalOp::Commit(1),
        JournalOp::Install(5),
        accept(
            6,
            b"a value of more than one line of bytes in this text file",
        ),
    ]
}

/// Bytes as lines of 32, so that a change shows where it is.
fn lines(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<String> = bytes.chunks(32).map(line).collect();
    lines.join("\n") + "\n"
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let bytes = (0..digits.len()).step_by(2);
    bytes
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn a_log_has_the_same_bytes_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    for (op, seq) in operations().into_iter().zip(1..) {
        // Written by the caller: then it is certain which operation was durable before.
        let mut ops = vec![(IoSeq(seq), op)];
        while !log.journal.append_here(&mut ops) {
            log.journal.here_again_at = None; // However slow the disk is.
        }
    }
    drop(log);
    let bytes = first_segment(dir.path());
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let now = lines(&bytes[..end.next_multiple_of(8)]);
    assert!(now == GOLDEN, "the log is now\n{now}");
}

#[test]
fn a_log_of_an_earlier_build_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = unhex(GOLDEN);
    assert!(bytes.len() > HEADER_BYTES);
    bytes.resize(config(dir.path()).segment_bytes as usize, 0);
    std::fs::write(dir.path().join("0000000001.log"), bytes).unwrap();
    let mut log = open(dir.path());
    let ballot = Ballot { round: 3, node: 2 };
    assert_eq!(log.recovered.promised, ballot);
    assert_eq!(log.recovered.commit, 5);
    assert_eq!(log.recovered.last_seq, IoSeq(operations().len() as u64));
    let floor = 1 << 32;
    assert_eq!(log.recovered.recovery, Some(Recovery::Voter { floor }));
    let last = "a value of more than one line of bytes in this text file";
    assert_eq!(log.recovered.tail.len(), 1);
    assert_eq!(log.recovered.tail[0].value, last);
    assert_eq!(log.journal.first(), 6);
    assert_eq!(log.journal.read(6).unwrap(), last);
}
