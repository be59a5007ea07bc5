//! The shared mapping: one header page, the input ring, the output ring.
//!
//! Each ring is mapped twice in a row, so that a frame that wraps is still one contiguous slice.
//! The whole address range is `HEADER_BYTES + 2 * input + 2 * output` bytes long; the memory object
//! behind it is `HEADER_BYTES + input + output` bytes. Whoever maps it promises that layout once,
//! in [`Tape::from_raw`]; everything after that is bounds-checked.
//!
//! One process tree writes the output ring and reads the input ring (only the thread that holds the
//! turn touches either), one node does the opposite, so each cursor has a single writer.

use crate::entry::padded;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// `"BROLGAT1"`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"BROLGAT1");
/// Bytes before the first ring.
pub const HEADER_BYTES: usize = 4096;
/// Bytes of an input frame before the entry: `len u32 | 0 u32 | slot u64`.
pub const FRAME_HEADER_BYTES: usize = 16;

/// Things the node tells the interposer once, before the server starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Parameters {
    /// Seed of all randomness the server is given; the same on every replica.
    pub seed: [u8; 32],
    /// Bytes of the input ring, a multiple of the page size.
    pub input_bytes: u64,
    /// Bytes of the output ring, a multiple of the page size.
    pub output_bytes: u64,
    /// Ticks after which a thread hands on the turn (serial policy).
    pub quantum: u32,
    /// Upper bound of the random real delays put in at scheduling points, microseconds; 0 for none.
    /// Different on each replica in tests; must never change a result.
    pub perturb_us: u32,
    /// Number of processors the server is told of.
    pub cpus: u32,
    /// Nonzero: `fsync` and its kin really reach the disk.
    pub keep_fsync: u32,
    /// Nonzero: loopback addresses that the server does not listen on are those of the machine that makes
    /// the connection. The same on every replica.
    pub host_loopback: u32,
    /// Nonzero: policy `parallel`, threads run beside each other between ordered operations; otherwise
    /// `serial`, one thread at a time. The same on every replica.
    pub parallel: u32,
    /// Nonzero: system calls that go round the interposer are caught. The same on every replica.
    pub backstop: u32,
    /// Nonzero: every ordered operation leaves a [`crate::record::Record::Step`].
    pub trace: u32,
    /// UNIX sockets that clients outside of the tree may use. The same on every replica.
    pub unix: crate::unix::Paths,
}

/// A thread that has had the turn for long without an ordered operation. It says nothing about the
/// logical execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The kernel's number of the process, where the server lives. It may be gone.
    pub real_process: i32,
    /// The process and the thread, as the server sees them.
    pub process: i32,
    /// See `process`.
    pub thread: i32,
    /// For how long at least.
    pub seconds: u32,
    /// How many threads can run and wait for their turn.
    pub waiting: u32,
}

/// One cursor on its own cache line.
#[repr(C, align(64))]
struct Line<T>(T);

/// The first page of the mapping.
#[repr(C)]
pub struct Header {
    magic: u64,
    parameters: Parameters,
    /// Tells one start or restore of a server from another; 0 until the node has prepared the tape.
    generation: AtomicU64,
    /// Futex: 0 until the node has prepared everything for a server that was restored.
    ready: AtomicU32,
    /// Bytes the node has put on the input ring.
    input_head: Line<AtomicU64>,
    /// Bytes the interposer has taken from it.
    input_tail: Line<AtomicU64>,
    /// Futex: 1 while the server sleeps for input.
    input_waiting: Line<AtomicU32>,
    /// Bytes the interposer has put on the output ring.
    output_head: Line<AtomicU64>,
    /// Bytes the node has taken from it.
    output_tail: Line<AtomicU64>,
    /// 1 while the node sleeps and wants the doorbell.
    output_waiting: Line<AtomicU32>,
    /// Futex: 1 while the server sleeps for room on the output ring.
    output_full: Line<AtomicU32>,
    /// [`Stall`]: thread and process; the kernel's number; seconds (0: none) and how many wait.
    stall: Line<[AtomicU64; 3]>,
}

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES);

/// Bytes of the memory object behind a tape.
#[must_use]
pub fn object_bytes(parameters: &Parameters) -> u64 {
    HEADER_BYTES as u64 + parameters.input_bytes + parameters.output_bytes
}

/// A mapped tape, from either side.
#[derive(Debug)]
pub struct Tape {
    base: *mut u8,
    input_bytes: u64,
    output_bytes: u64,
}

// SAFETY: all shared state behind `base` is atomics and rings whose cursors have one writer each;
// the mapping belongs to whoever holds the Tape and is not tied to a thread.
unsafe impl Send for Tape {}

/// Why the input ring did not take an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// Not enough room now; the server must take something first.
    Full,
    /// It would never fit.
    TooLarge,
}

impl Tape {
    /// Writes the header of a fresh, zeroed memory object.
    ///
    /// # Safety
    /// `base` points to at least [`HEADER_BYTES`] writable bytes that nobody else uses yet.
    pub unsafe fn format(base: *mut u8, parameters: &Parameters) {
        let header = base.cast::<Header>();
        // SAFETY: the caller promises a writable page; both fields lie within it, and page
        // alignment is more than Header needs.
        unsafe {
            (&raw mut (*header).parameters).write(*parameters);
            (&raw mut (*header).magic).write(MAGIC);
        }
    }

    /// Reads the parameters, which say how long the whole mapping has to be.
    ///
    /// # Safety
    /// `base` points to at least [`HEADER_BYTES`] readable bytes.
    #[must_use]
    pub unsafe fn parameters(base: *const u8) -> Option<Parameters> {
        let header = base.cast::<Header>();
        // SAFETY: the caller promises a readable page, and Header fits in it.
        let (magic, parameters) = unsafe { ((*header).magic, (*header).parameters) };
        (magic == MAGIC).then_some(parameters)
    }

    /// Takes over a complete mapping.
    ///
    /// # Safety
    /// `base` is a mapping of a formatted object in the layout of the module's description, valid
    /// and writable for as long as the Tape lives; there is one Tape per side in use at a time.
    #[must_use]
    pub unsafe fn from_raw(base: *mut u8, parameters: &Parameters) -> Self {
        Self {
            base,
            input_bytes: parameters.input_bytes,
            output_bytes: parameters.output_bytes,
        }
    }

    fn header(&self) -> &Header {
        // SAFETY: from_raw's caller promised a valid formatted mapping for our lifetime.
        unsafe { &*self.base.cast::<Header>() }
    }

    fn input_at(&self, cursor: u64) -> *mut u8 {
        let offset = HEADER_BYTES as u64 + cursor % self.input_bytes;
        // SAFETY: below HEADER_BYTES + input_bytes, so inside the mapping.
        unsafe { self.base.add(offset as usize) }
    }

    fn output_at(&self, cursor: u64) -> *mut u8 {
        let offset = HEADER_BYTES as u64 + 2 * self.input_bytes + cursor % self.output_bytes;
        // SAFETY: below HEADER_BYTES + 2 * input_bytes + output_bytes, so inside the mapping.
        unsafe { self.base.add(offset as usize) }
    }

    // ---- node side ----

    /// Says that everything is prepared for the server's start or restore, which `generation` (never 0)
    /// tells from all others. A futex wake on [`Tape::ready_futex`] is due if the server was restored.
    pub fn open(&self, generation: u64) {
        assert_ne!(generation, 0, "a generation is never 0");
        let header = self.header();
        header.generation.store(generation, Ordering::SeqCst);
        header.ready.store(1, Ordering::SeqCst);
    }

    /// Puts the entry of `slot` on the input ring. The caller then wakes the server if
    /// [`Tape::server_sleeps`] says so.
    ///
    /// # Errors
    /// See [`PushError`]; nothing was written then.
    pub fn push_entry(&mut self, slot: u64, entry: &[u8]) -> Result<(), PushError> {
        let whole = (FRAME_HEADER_BYTES + padded(entry.len())) as u64;
        if whole > self.input_bytes {
            return Err(PushError::TooLarge);
        }
        let header = self.header();
        let head = header.input_head.0.load(Ordering::Relaxed);
        let tail = header.input_tail.0.load(Ordering::Acquire);
        if head + whole - tail > self.input_bytes {
            return Err(PushError::Full);
        }
        let mut frame = [0; FRAME_HEADER_BYTES];
        frame[0..4].copy_from_slice(&(entry.len() as u32).to_le_bytes());
        frame[8..16].copy_from_slice(&slot.to_le_bytes());
        let at = self.input_at(head);
        // SAFETY: the ring is mapped twice, so `whole <= input_bytes` bytes from any position are
        // contiguous; the reader does not look beyond input_head, and the room was checked.
        unsafe {
            at.copy_from_nonoverlapping(frame.as_ptr(), FRAME_HEADER_BYTES);
            at.add(FRAME_HEADER_BYTES)
                .copy_from_nonoverlapping(entry.as_ptr(), entry.len());
        }
        header.input_head.0.store(head + whole, Ordering::SeqCst);
        Ok(())
    }

    /// Clears the server's sleep mark; true when it was set, so that a futex wake on
    /// [`Tape::input_futex`] is due.
    pub fn server_sleeps(&mut self) -> bool {
        let word = &self.header().input_waiting.0;
        word.load(Ordering::SeqCst) != 0 && word.swap(0, Ordering::SeqCst) != 0
    }

    /// Which thread holds the others up, if one does.
    #[must_use]
    pub fn stall(&self) -> Option<Stall> {
        let halves = |word: &AtomicU64| {
            let word = word.load(Ordering::Acquire);
            (word as u32, (word >> 32) as u32)
        };
        let [who, real, how] = &self.header().stall.0;
        let ((seconds, waiting), (thread, process)) = (halves(how), halves(who));
        (seconds != 0).then_some(Stall {
            real_process: halves(real).0.cast_signed(),
            process: process.cast_signed(),
            thread: thread.cast_signed(),
            seconds,
            waiting,
        })
    }

    /// True while the server sleeps, or is about to with nothing else left to do, and has taken everything
    /// that is on the input ring.
    #[must_use]
    pub fn server_is_asleep(&self) -> bool {
        let header = self.header();
        let taken = header.input_tail.0.load(Ordering::Acquire);
        taken == header.input_head.0.load(Ordering::Relaxed)
            && header.input_waiting.0.load(Ordering::SeqCst) != 0
    }

    /// The published, not yet released part of the output ring.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        let header = self.header();
        let head = header.output_head.0.load(Ordering::Acquire);
        let tail = header.output_tail.0.load(Ordering::Relaxed);
        let len = (head - tail).min(self.output_bytes) as usize;
        // SAFETY: `len <= output_bytes` bytes from any position are contiguous in the double
        // mapping; the interposer does not write before output_tail moves past them.
        unsafe { core::slice::from_raw_parts(self.output_at(tail), len) }
    }

    /// Gives `len` bytes of [`Tape::output`] back; true when the server waits for room and a futex
    /// wake on [`Tape::output_full_futex`] is due.
    pub fn release_output(&mut self, len: usize) -> bool {
        let header = self.header();
        let head = header.output_head.0.load(Ordering::Relaxed);
        let tail = header.output_tail.0.load(Ordering::Relaxed) + len as u64;
        assert!(tail <= head, "released more output than there was");
        header.output_tail.0.store(tail, Ordering::SeqCst);
        let full = &header.output_full.0;
        full.load(Ordering::SeqCst) != 0 && full.swap(0, Ordering::SeqCst) != 0
    }

    /// Asks for the doorbell before the node sleeps. True: there is output already, do not sleep.
    pub fn ask_for_doorbell(&mut self) -> bool {
        let header = self.header();
        header.output_waiting.0.store(1, Ordering::SeqCst);
        let head = header.output_head.0.load(Ordering::SeqCst);
        head != header.output_tail.0.load(Ordering::Relaxed)
    }

    /// The node is awake: no doorbell needed.
    pub fn cancel_doorbell(&mut self) {
        self.header().output_waiting.0.store(0, Ordering::Relaxed);
    }

    // ---- interposer side ----

    /// What the node has given to [`Tape::open`]; 0 before.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.header().generation.load(Ordering::SeqCst)
    }

    /// Futex on which a server that was restored sleeps while it is 0.
    #[must_use]
    pub fn ready_futex(&self) -> &AtomicU32 {
        &self.header().ready
    }

    /// The next entry after `cursor` (bytes taken so far): its slot, its bytes, and the cursor after
    /// it. `None` when the node has not written it yet.
    ///
    /// The cursor is the caller's, not the header's: it must be rolled back with the process by a
    /// checkpoint, and the tape is not.
    #[must_use]
    pub fn next_entry(&self, cursor: u64) -> Option<(u64, &[u8], u64)> {
        let head = self.header().input_head.0.load(Ordering::SeqCst);
        if head == cursor {
            return None;
        }
        let at = self.input_at(cursor);
        // SAFETY: the node publishes whole frames, so at least a header is readable at `cursor`, and
        // the entry behind it is contiguous in the double mapping.
        let (len, slot) = unsafe {
            (
                at.cast::<u32>().read() as usize,
                at.add(8).cast::<u64>().read(),
            )
        };
        assert!(
            len as u64 <= self.input_bytes,
            "input frame longer than its ring"
        );
        // SAFETY: as above; the node does not overwrite before `release_input`.
        let entry = unsafe { core::slice::from_raw_parts(at.add(FRAME_HEADER_BYTES), len) };
        Some((
            slot,
            entry,
            cursor + (FRAME_HEADER_BYTES + padded(len)) as u64,
        ))
    }

    /// Gives everything before `cursor` back to the node.
    pub fn release_input(&self, cursor: u64) {
        self.header().input_tail.0.store(cursor, Ordering::Release);
    }

    /// Marks the server asleep. False: an entry has come since, do not sleep.
    #[must_use]
    pub fn mark_asleep(&self, cursor: u64) -> bool {
        let header = self.header();
        header.input_waiting.0.store(1, Ordering::SeqCst);
        if header.input_head.0.load(Ordering::SeqCst) == cursor {
            return true;
        }
        header.input_waiting.0.store(0, Ordering::SeqCst);
        false
    }

    /// Whether the server sleeps for something that the node is to do.
    #[must_use]
    pub fn server_waits(&self) -> bool {
        let header = self.header();
        let words = [&header.input_waiting.0, &header.output_full.0];
        words.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Tells the node that a thread holds the others up. Any thread may say so.
    pub fn report_stall(&self, stall: &Stall) {
        let [who, real, how] = &self.header().stall.0;
        let both = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let (thread, process) = (stall.thread.cast_unsigned(), stall.process.cast_unsigned());
        who.store(both(thread, process), Ordering::Relaxed);
        let number = stall.real_process.cast_unsigned();
        real.store(u64::from(number), Ordering::Relaxed);
        how.store(both(stall.seconds, stall.waiting), Ordering::Release);
    }

    /// It does not any more.
    pub fn clear_stall(&self) {
        self.header().stall.0[2].store(0, Ordering::Relaxed);
    }

    /// Futex on which the server sleeps while it is 1.
    #[must_use]
    pub fn input_futex(&self) -> &AtomicU32 {
        &self.header().input_waiting.0
    }

    /// Futex on which the server sleeps for output room while it is 1.
    #[must_use]
    pub fn output_full_futex(&self) -> &AtomicU32 {
        &self.header().output_full.0
    }

    /// Room on the output ring, in bytes.
    #[must_use]
    pub fn output_room(&self) -> u64 {
        let header = self.header();
        let head = header.output_head.0.load(Ordering::Relaxed);
        self.output_bytes - (head - header.output_tail.0.load(Ordering::SeqCst))
    }

    /// Appends one record that nobody in particular caused; see [`Tape::push_record_by`].
    #[must_use]
    pub fn push_record(&self, record: &crate::record::Record<'_>) -> bool {
        self.push_record_by(0, record)
    }

    /// Appends one record that `thread` caused and publishes it. False when there is no room: nothing
    /// was written.
    #[must_use]
    pub fn push_record_by(&self, thread: u16, record: &crate::record::Record<'_>) -> bool {
        let header = self.header();
        let head = header.output_head.0.load(Ordering::Relaxed);
        if self.output_room() < record.room() as u64 {
            return false;
        }
        let mut at = head;
        crate::record::encode_by(thread, record, |piece| {
            // SAFETY: the pieces of a record add up to no more than its room(), which was checked,
            // contiguous in the double mapping; the node does not read
            // beyond output_head.
            unsafe {
                self.output_at(at)
                    .copy_from_nonoverlapping(piece.as_ptr(), piece.len());
            }
            at += piece.len() as u64;
        });
        header.output_head.0.store(at, Ordering::SeqCst);
        true
    }

    /// Marks the server as waiting for output room; false when there is enough by now.
    #[must_use]
    pub fn mark_full(&self, wanted: u64) -> bool {
        let full = &self.header().output_full.0;
        full.store(1, Ordering::SeqCst);
        if self.output_room() < wanted {
            return true;
        }
        full.store(0, Ordering::SeqCst);
        false
    }

    /// True when the node sleeps: the doorbell is due (once).
    #[must_use]
    pub fn take_doorbell(&self) -> bool {
        let word = &self.header().output_waiting.0;
        word.load(Ordering::SeqCst) != 0 && word.swap(0, Ordering::SeqCst) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConnId;
    use crate::record::{Record, decode};
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
        backstop: 0,
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
}
