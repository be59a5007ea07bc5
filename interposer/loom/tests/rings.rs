//! The rings: what is written comes out in order and whole, nobody overwrites what is still read,
//! and neither side sleeps for ever.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use brolga_loom::kernel::{EventFd, Futex};
use brolga_loom::ring::{Parameters, PushError, Stall, Tape};
use brolga_loom::sync::Ordering;
use brolga_loom::{Memory, check};
use brolga_tape::ConnId;
use brolga_tape::record::{Record, decode};
use brolga_tape::unix::Paths;
use loom::cell::UnsafeCell;
use loom::thread;
use std::sync::Arc;

const CONN: ConnId = ConnId {
    frontend: 3,
    counter: 4,
};

fn parameters(input_bytes: u64, output_bytes: u64) -> Parameters {
    Parameters {
        seed: [0; 32],
        input_bytes,
        output_bytes,
        quantum: 1000,
        parallel: 0,
        perturb_us: 0,
        cpus: 1,
        keep_fsync: 0,
        host_loopback: 0,
        syscall_filter: 0,
        trace: 0,
        unix: Paths::NONE,
    }
}

/// A tape, and what the kernel has for it.
struct Machine {
    memory: Memory,
    /// Something besides the tape that one side writes and the other reads.
    state: UnsafeCell<u64>,
    parameters: Parameters,
    input: Futex,
    full: Futex,
    ready: Futex,
    doorbell: EventFd,
}

// SAFETY: the threads of a model take turns, and loom watches the state.
unsafe impl Sync for Machine {}
// SAFETY: as above.
unsafe impl Send for Machine {}

impl Machine {
    fn set_state(&self, to: u64) {
        // SAFETY: loom has just found that nobody else uses it.
        self.state.with_mut(|state| unsafe { *state = to });
    }

    fn state(&self) -> u64 {
        // SAFETY: loom has just found that nobody writes it.
        self.state.with(|state| unsafe { *state })
    }

    fn new(input_bytes: u64, output_bytes: u64) -> Arc<Self> {
        let parameters = parameters(input_bytes, output_bytes);
        Arc::new(Self {
            memory: Memory::new(&parameters),
            state: UnsafeCell::new(0),
            parameters,
            input: Futex::default(),
            full: Futex::default(),
            ready: Futex::default(),
            doorbell: EventFd::default(),
        })
    }

    fn tape(&self) -> Tape {
        // SAFETY: the tape is used as long as the machine lives, once on each side.
        unsafe { Tape::from_raw(self.memory.base(), &self.parameters) }
    }

    /// As `ServerTape` does it.
    fn wake_server(&self, tape: &mut Tape) {
        if tape.server_sleeps() {
            self.input.wake();
        }
    }

    /// As the interposer's `wait_for_entry`.
    fn wait_for_entry<'a>(&self, tape: &'a Tape, cursor: u64) -> (u64, &'a [u8], u64) {
        loop {
            if let Some(found) = tape.next_entry(cursor) {
                return found;
            }
            if tape.mark_asleep(cursor) {
                self.input.wait(tape.input_futex(), 1);
            }
        }
    }

    fn ring_doorbell(&self, tape: &Tape) {
        if tape.take_doorbell() {
            self.doorbell.write();
        }
    }

    /// As the interposer's `emit`.
    fn emit(&self, tape: &Tape, record: &Record<'_>) {
        while !tape.push_record_by(1, record) {
            self.ring_doorbell(tape);
            if tape.mark_full(record.room() as u64) {
                self.ring_doorbell(tape);
                self.full.wait(tape.output_full_futex(), 1);
            }
        }
    }

    /// The server: takes entries, whose bytes are as many as their slots.
    fn take_entries(&self, count: u64) {
        let tape = self.tape();
        let mut cursor = 0;
        for expected in 1..=count {
            let (slot, entry, next) = self.wait_for_entry(&tape, cursor);
            assert_eq!(slot, expected);
            assert!(entry.iter().all(|byte| u64::from(*byte) == slot));
            assert_eq!(entry.len() as u64, slot);
            cursor = next;
            tape.release_input(cursor);
        }
    }

    /// The node: puts entries on the ring, waiting for room as long as need be.
    fn push_entries(&self, tape: &mut Tape, slots: std::ops::RangeInclusive<u64>) {
        for slot in slots {
            let entry = [slot as u8; 8];
            while let Err(error) = tape.push_entry(slot, &entry[..slot as usize]) {
                assert_eq!(error, PushError::Full);
                thread::yield_now();
            }
            self.wake_server(tape);
        }
    }

    /// The node: takes the records of output until there were `count`, sleeping in between.
    fn take_records(&self, count: u64) {
        let mut tape = self.tape();
        let mut seen = 0;
        while seen < count {
            tape.cancel_doorbell();
            while !tape.output().is_empty() {
                let (record, used) = decode(tape.output()).unwrap();
                assert_eq!(record, output(seen));
                seen += 1;
                if tape.release_output(used) {
                    self.full.wake();
                }
            }
            if seen < count && !tape.ask_for_doorbell() {
                self.doorbell.read();
            }
        }
    }
}

/// The record after `seen` others.
fn output(seen: u64) -> Record<'static> {
    Record::Consumed {
        conn: CONN,
        upto: seen,
    }
}

/// Bytes of the input ring that take two entries of the models, and that the third wraps round.
const TWO_ENTRIES: u64 = 64;
/// Bytes of the output ring that take one record, and that the second wraps round.
const ONE_RECORD: u64 = 96;
const MUCH: u64 = 1024;

#[test]
fn entries_come_out_in_order_and_wake_the_server() {
    check(|| {
        let machine = Machine::new(MUCH, MUCH);
        let node = machine.clone();
        let node = thread::spawn(move || node.push_entries(&mut node.tape(), 1..=2));
        machine.take_entries(2);
        assert!(node.join().is_ok());
    });
}

#[test]
fn an_entry_that_wraps_waits_until_there_is_room() {
    check(|| {
        let machine = Machine::new(TWO_ENTRIES, MUCH);
        let mut tape = machine.tape();
        machine.push_entries(&mut tape, 1..=2);
        let server = machine.clone();
        let server = thread::spawn(move || server.take_entries(3));
        machine.push_entries(&mut tape, 3..=3);
        assert!(server.join().is_ok());
    });
}

#[test]
fn a_server_that_is_asleep_has_done_what_it_was_to_do() {
    check(|| {
        let machine = Machine::new(MUCH, MUCH);
        let server = machine.clone();
        let server = thread::spawn(move || {
            let tape = server.tape();
            let (slot, _, cursor) = server.wait_for_entry(&tape, 0);
            server.set_state(slot);
            tape.release_input(cursor);
            server.wait_for_entry(&tape, cursor);
        });
        let mut tape = machine.tape();
        machine.push_entries(&mut tape, 1..=1);
        if tape.server_is_asleep() {
            assert_eq!(machine.state(), 1);
        }
        machine.push_entries(&mut tape, 2..=2);
        assert!(server.join().is_ok());
    });
}

#[test]
fn records_come_out_in_order_and_the_doorbell_wakes_the_node() {
    check(|| {
        let machine = Machine::new(MUCH, MUCH);
        let server = machine.clone();
        let server = thread::spawn(move || {
            let tape = server.tape();
            for seen in 0..2 {
                server.emit(&tape, &output(seen));
                server.ring_doorbell(&tape);
            }
        });
        machine.take_records(2);
        assert!(server.join().is_ok());
    });
}

#[test]
fn a_server_waits_for_room_on_the_output_ring() {
    check(|| {
        let machine = Machine::new(MUCH, ONE_RECORD);
        let server = machine.clone();
        let server = thread::spawn(move || {
            let tape = server.tape();
            for seen in 0..3 {
                server.emit(&tape, &output(seen));
            }
            server.ring_doorbell(&tape);
        });
        machine.take_records(3);
        assert!(server.join().is_ok());
    });
}

#[test]
fn a_restored_server_waits_until_everything_is_prepared() {
    check(|| {
        let machine = Machine::new(MUCH, MUCH);
        let server = machine.clone();
        let server = thread::spawn(move || {
            let tape = server.tape();
            while tape.ready_futex().load(Ordering::Acquire) == 0 {
                server.ready.wait(tape.ready_futex(), 0);
            }
            assert_eq!(tape.generation(), 7);
            assert_eq!(server.state(), 1);
        });
        machine.set_state(1);
        machine.tape().open(7);
        machine.ready.wake();
        assert!(server.join().is_ok());
    });
}

#[test]
fn a_stall_is_told_whole() {
    check(|| {
        let machine = Machine::new(MUCH, MUCH);
        let stall = Stall {
            real_process: 5,
            process: 1,
            thread: 2,
            seconds: 10,
            waiting: 3,
        };
        let server = machine.clone();
        let server = thread::spawn(move || {
            let tape = server.tape();
            tape.report_stall(&stall);
            tape.clear_stall();
        });
        if let Some(told) = machine.tape().stall() {
            assert_eq!(told, stall);
        }
        assert!(server.join().is_ok());
        assert_eq!(machine.tape().stall(), None);
    });
}

#[test]
fn a_weaker_ordering_is_noticed() {
    let node = ("ring/node.rs", include_str!("../../tape/src/ring/node.rs"));
    let server = (
        "ring/server.rs",
        include_str!("../../tape/src/ring/server.rs"),
    );
    let wakes = "entries_come_out_in_order_and_wake_the_server";
    let wraps = "an_entry_that_wraps_waits_until_there_is_room";
    let rings = "records_come_out_in_order_and_the_doorbell_wakes_the_node";
    let waits = "a_server_waits_for_room_on_the_output_ring";
    let prepared = "a_restored_server_waits_until_everything_is_prepared";
    let whole = "a_stall_is_told_whole";
    let places = [
        (prepared, node, "header.ready.store("),
        (wraps, node, "header.input_tail.0.load("),
        (wakes, node, "header.input_head.0.store("),
        (
            wakes,
            node,
            "let word = &self.header().input_waiting.0;\n        word.load(",
        ),
        (whole, node, "let word = word.load("),
        (rings, node, "header.output_head.0.load("),
        (waits, node, "header.output_tail.0.store("),
        (
            waits,
            node,
            "let full = &header.output_full.0;\n        full.load(",
        ),
        (rings, node, "header.output_waiting.0.store(1"),
        (rings, node, "header.output_head.0.load(Ordering::SeqCst"),
        (wakes, server, "self.header().input_head.0.load("),
        (wraps, server, "self.header().input_tail.0.store("),
        (wakes, server, "header.input_waiting.0.store(1"),
        (wakes, server, "if header.input_head.0.load("),
        (whole, server, "how.store("),
        (waits, server, "header.output_tail.0.load("),
        (rings, server, "header.output_head.0.store("),
        (waits, server, "full.store(1"),
        (
            rings,
            server,
            "let word = &self.header().output_waiting.0;\n        word.load(",
        ),
    ];
    for (test, (file, text), place) in places {
        brolga_loom::assert_finds(test, file, text, place);
    }
}
