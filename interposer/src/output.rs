//! Output to the node: records on the tape's output ring, the doorbell, and faults.

use crate::local::local;
use crate::sys::{self, sys};
use crate::tls;
use brolga_dmt::ThreadIx;
use brolga_tape::handover::DOORBELL_FD;
use brolga_tape::record::Record;
use brolga_tape::ring::Tape;

/// The tape, of a process that has one.
pub fn tape() -> &'static Tape {
    match &local().tape {
        Some(tape) => tape,
        None => unreachable!("a thread is in the schedule only where there is a tape"),
    }
}

/// Wakes the node if it sleeps.
pub fn ring_doorbell() {
    if tape().take_doorbell() {
        let one = 1u64;
        // SAFETY: an eventfd takes eight bytes.
        unsafe { sys!(sys::SYS_write, DOORBELL_FD, &raw const one, 8) };
    }
}

/// Puts a record on the output ring, waiting for room if need be (without logical effect).
pub fn emit(thread: ThreadIx, record: &Record<'_>) {
    let tape = tape();
    while !tape.push_record_by(thread, record) {
        ring_doorbell();
        if tape.mark_full(record.room() as u64) {
            // The node may have fallen asleep since.
            ring_doorbell();
            sys::futex_wait(tape.output_full_futex(), 1);
        }
    }
}

/// Tells the node something that is no part of the output.
pub fn report(record: &Record<'_>) {
    debug_assert!(record.is_about_watching());
    emit(tls::thread_ix(), record);
}

/// The server did something that can't be replicated: says what, and stops it.
#[cold]
pub fn fault(parts: &[&[u8]]) -> ! {
    let mut line = [0u8; 256];
    let mut len = 0;
    for part in parts {
        let take = part.len().min(line.len() - len);
        line[len..len + take].copy_from_slice(&part[..take]);
        len += take;
    }
    sys::complain(&[b"brolga: ", &line[..len], b"\n"]);
    if tls::thread_ix() != 0 {
        let message = &line[..len];
        emit(tls::thread_ix(), &Record::Fault { message });
        ring_doorbell();
    }
    sys::die(70)
}
