//! The node's side: writes the input ring, reads the output ring.

use super::{FRAME_HEADER_BYTES, Stall, Tape};
use crate::entry::padded;
use crate::sync::{AtomicU64, Ordering};

/// The reasons why the input ring does not take an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// Not enough room now; the server must take something first.
    Full,
    /// The entry is longer than the ring.
    TooLarge,
}

impl Tape {
    /// Declares everything prepared for the server's start or restore, which `generation` (never 0)
    /// distinguishes from all others. A futex wake on [`Tape::ready_futex`] is due if the server
    /// was restored.
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
        if whole > self.mapping.input_bytes {
            return Err(PushError::TooLarge);
        }
        let header = self.header();
        let head = header.input_head.0.load(Ordering::Relaxed);
        let tail = header.input_tail.0.load(Ordering::Acquire);
        if head + whole - tail > self.mapping.input_bytes {
            return Err(PushError::Full);
        }
        let mut frame = [0; FRAME_HEADER_BYTES];
        frame[0..4].copy_from_slice(&(entry.len() as u32).to_le_bytes());
        frame[8..16].copy_from_slice(&slot.to_le_bytes());
        // SAFETY: the whole frame fits the ring, the reader does not look beyond input_head, and
        // the room was checked.
        unsafe {
            self.mapping.write_input(head, &frame);
            self.mapping
                .write_input(head + FRAME_HEADER_BYTES as u64, entry);
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

    /// The thread that holds the others up, if one does.
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

    /// True while the server sleeps, or is about to with nothing else left to do, and has taken
    /// everything that is on the input ring.
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
        let len = (head - tail).min(self.mapping.output_bytes) as usize;
        // SAFETY: no more than the ring has; the interposer does not write before output_tail moves
        // past them.
        unsafe { self.mapping.output(tail, len) }
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
}
