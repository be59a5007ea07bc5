//! Admission of entries of the log.
//!
//! There is no helper thread: the last thread to block admits the next entry, sleeping on the
//! tape's futex if there is none, and hands the turn on, perhaps to itself.

use super::outside::Outside;
use super::proof::Turn;
use crate::output::{emit, fault, ring_doorbell, tape};
use crate::restore;
use crate::shared::Shared;
use crate::sys::{self, sys};
use brolga_tape::entry::{Entry, Event};
use brolga_tape::record::{NO_DEADLINE, Record};
use brolga_tape::ring::Tape;

impl Turn {
    /// Reports the end of the last entry, takes the next one (sleeping if there is none) and
    /// applies it.
    pub(super) fn admit_next(&mut self) {
        let shared = self.shared();
        shared.net.publish_ports(&mut Outside {
            scheduler: &mut shared.scheduler,
        });
        if shared.scheduler.take_report() {
            let scheduler = &shared.scheduler;
            let record = Record::Done {
                slot: scheduler.slot(),
                schedule_hash: scheduler.schedule_hash(),
                deadline_ns: scheduler.deadline_ns().unwrap_or(NO_DEADLINE),
                clock: scheduler.clock(),
                idle: !scheduler.can_run(),
                operation: scheduler.last_operation(),
            };
            emit(scheduler.last_thread(), &record);
        }
        ring_doorbell();
        let tape = tape();
        let (slot, bytes, cursor) = wait_for_entry(tape, shared);
        let Ok(entry) = Entry::parse(bytes) else {
            fault(&[b"an entry on the tape is cut short"])
        };
        shared.scheduler.admit(slot, entry.time_ns, entry.clocks);
        shared.tsc.update(&shared.scheduler);
        let mut outside = Outside {
            scheduler: &mut shared.scheduler,
        };
        let mut operators = 0u64;
        for event in entry.events() {
            match event {
                Ok(Event::Signal { signal }) => operators |= 1 << (signal - 1),
                Ok(event) => shared.net.apply(&event, &mut outside),
                Err(_) => fault(&[b"an entry on the tape has an event that makes no sense"]),
            }
        }
        shared.input_cursor = cursor;
        tape.release_input(cursor);
        self.fire_alarms();
        self.post_operator_signals(operators);
    }
}

fn wait_for_entry(tape: &'static Tape, shared: &mut Shared) -> (u64, &'static [u8], u64) {
    loop {
        // This is where a server sleeps when a checkpoint is taken, so where one that is restored
        // wakes up.
        if tape.generation() != shared.generation {
            restore::come_back(tape, shared);
        }
        let cursor = shared.input_cursor;
        if let Some(found) = tape.next_entry(cursor) {
            return found;
        }
        if tape.mark_asleep(cursor) {
            // SAFETY: no arguments.
            shared.taker = unsafe { sys!(sys::SYS_getpid) } as i32;
            sys::futex_wait(tape.input_futex(), 1);
        }
    }
}
