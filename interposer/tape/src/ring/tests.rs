//! One lap of each ring, from both sides.

use super::*;
use crate::ConnId;
use crate::record::{Record, decode};
use crate::sync::Ordering;
use std::vec::Vec;

// Without mmap the double mapping can't be had, so these tests stay inside one lap of each ring;
// the node crate tests wrapping over real mappings.
const PARAMETERS: Parameters = Parameters {
    seed: [0; 32],
    input_bytes: 4096,
    output_bytes: 4096,
    quantum: 1000,
    parallel: 0,
    perturb_us: 0,
    cpus: 1,
    keep_fsync: 0,
    host_loopback: 0,
    syscall_filter: 0,
    trace: 0,
    unix: crate::unix::Paths::NONE,
};

#[repr(align(4096))]
struct Memory([u8; HEADER_BYTES + 4 * 4096]);

fn tape(memory: &mut Memory) -> Tape {
    let base = memory.0.as_mut_ptr();
    // SAFETY: the array is page-aligned, zeroed, as long as the layout says, and outlives the tape.
    unsafe {
        Tape::format(base, &PARAMETERS);
        assert_eq!(Tape::parameters(base), Some(PARAMETERS));
        Tape::from_raw(base, &PARAMETERS)
    }
}

#[test]
fn entries_come_out_in_order_and_full_is_said() {
    let mut memory = Memory([0; HEADER_BYTES + 4 * 4096]);
    let mut tape = tape(&mut memory);
    assert!(tape.next_entry(0).is_none());
    assert!(!tape.server_is_asleep());
    assert!(tape.mark_asleep(0));
    assert!(tape.server_is_asleep());
    tape.push_entry(1, b"first").unwrap();
    assert!(!tape.server_is_asleep());
    assert!(tape.server_sleeps());
    assert!(!tape.server_sleeps());
    tape.push_entry(2, &[7; 4000]).unwrap();
    assert_eq!(tape.push_entry(3, &[7; 4000]), Err(PushError::Full));
    assert_eq!(tape.push_entry(3, &[7; 4096]), Err(PushError::TooLarge));
    let (slot, entry, cursor) = tape.next_entry(0).unwrap();
    assert_eq!((slot, entry), (1, &b"first"[..]));
    let (slot, entry, cursor) = tape.next_entry(cursor).unwrap();
    assert_eq!((slot, entry.len()), (2, 4000));
    assert!(tape.next_entry(cursor).is_none());
    tape.release_input(cursor);
    tape.push_entry(3, &[7; 4000]).unwrap();
}

#[test]
fn a_tape_is_open_once_everything_is_prepared() {
    let mut memory = Memory([0; HEADER_BYTES + 4 * 4096]);
    let tape = tape(&mut memory);
    assert_eq!(tape.generation(), 0);
    assert_eq!(tape.ready_futex().load(Ordering::SeqCst), 0);
    tape.open(7);
    assert_eq!(tape.generation(), 7);
    assert_eq!(tape.ready_futex().load(Ordering::SeqCst), 1);
}

#[test]
fn records_come_out_and_the_doorbell_rings_once() {
    let mut memory = Memory([0; HEADER_BYTES + 4 * 4096]);
    let mut tape = tape(&mut memory);
    let conn = ConnId {
        frontend: 3,
        counter: 4,
    };
    assert!(!tape.ask_for_doorbell());
    assert!(tape.push_record(&Record::Data {
        conn,
        offset: 0,
        bytes: b"hello"
    }));
    assert!(tape.take_doorbell());
    assert!(!tape.take_doorbell());
    let big = [1; 4000];
    assert!(tape.push_record(&Record::Data {
        conn,
        offset: 5,
        bytes: &big
    }));
    assert!(!tape.push_record(&Record::Data {
        conn,
        offset: 4005,
        bytes: b"x"
    }));
    assert!(tape.mark_full(100));
    let output: Vec<u8> = tape.output().to_vec();
    let (record, used) = decode(&output).unwrap();
    assert_eq!(
        record,
        Record::Data {
            conn,
            offset: 0,
            bytes: b"hello"
        }
    );
    assert!(tape.release_output(used));
    let (record, used) = decode(tape.output()).unwrap();
    assert_eq!(
        record,
        Record::Data {
            conn,
            offset: 5,
            bytes: &big
        }
    );
    assert!(!tape.release_output(used));
    assert!(tape.output().is_empty());
}
