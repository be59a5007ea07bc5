//! The interposer's side: reads the input ring, writes the output ring.

use super::{FRAME_HEADER_BYTES, Stall, Tape};
use crate::entry::padded;
use crate::record::{Record, encode_by};
use crate::sync::{AtomicU32, Ordering};

/// Reads `len u32 | 0 u32 | slot u64`.
#[inline]
fn frame_header(bytes: &[u8]) -> (usize, u64) {
    let [a, b, c, d, _, _, _, _, slot @ ..] =
        *bytes.first_chunk::<FRAME_HEADER_BYTES>().unwrap_or(&[0; _]);
    (
        u32::from_le_bytes([a, b, c, d]) as usize,
        u64::from_le_bytes(slot),
    )
}

impl Tape {
    /// The generation that the node gave to [`Tape::open`]; 0 before.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.header().generation.load(Ordering::SeqCst)
    }

    /// Futex on which a server that was restored sleeps while it is 0.
    #[must_use]
    pub fn ready_futex(&self) -> &AtomicU32 {
        &self.header().ready
    }

    /// The next entry after `cursor` (bytes taken so far): its slot, its bytes, and the cursor
    /// after it. `None` when the node has not written it yet.
    ///
    /// The cursor is the caller's, not the header's: it must be rolled back with the process by a
    /// checkpoint, and the tape is not.
    #[must_use]
    pub fn next_entry(&self, cursor: u64) -> Option<(u64, &[u8], u64)> {
        let head = self.header().input_head.0.load(Ordering::SeqCst);
        if head == cursor {
            return None;
        }
        // SAFETY: the node publishes whole frames, so at least a header is readable at `cursor`.
        let header = unsafe { self.mapping.input(cursor, FRAME_HEADER_BYTES) };
        let (len, slot) = frame_header(header);
        assert!(
            len as u64 <= self.mapping.input_bytes,
            "input frame longer than its ring"
        );
        // SAFETY: as above; the node does not overwrite before `release_input`.
        let entry = unsafe { self.mapping.input(cursor + FRAME_HEADER_BYTES as u64, len) };
        Some((
            slot,
            entry,
            cursor + (FRAME_HEADER_BYTES + padded(len)) as u64,
        ))
    }

    /// Releases everything before `cursor` to the node.
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

    /// True while the server sleeps for something that the node has to do.
    #[must_use]
    pub fn server_waits(&self) -> bool {
        let header = self.header();
        let words = [&header.input_waiting.0, &header.output_full.0];
        words.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Tells the node that a thread holds the others up. Any thread may call this.
    pub fn report_stall(&self, stall: &Stall) {
        let [who, real, how] = &self.header().stall.0;
        let both = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let (thread, process) = (stall.thread.cast_unsigned(), stall.process.cast_unsigned());
        who.store(both(thread, process), Ordering::Relaxed);
        let number = stall.real_process.cast_unsigned();
        real.store(u64::from(number), Ordering::Relaxed);
        how.store(both(stall.seconds, stall.waiting), Ordering::Release);
    }

    /// Withdraws [`Tape::report_stall`].
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
        self.mapping.output_bytes - (head - header.output_tail.0.load(Ordering::SeqCst))
    }

    /// Appends one record that nobody in particular caused; see [`Tape::push_record_by`].
    #[must_use]
    pub fn push_record(&self, record: &Record<'_>) -> bool {
        self.push_record_by(0, record)
    }

    /// Appends one record that `thread` caused and publishes it. False when there is no room:
    /// nothing was written.
    #[must_use]
    pub fn push_record_by(&self, thread: u16, record: &Record<'_>) -> bool {
        let header = self.header();
        let head = header.output_head.0.load(Ordering::Relaxed);
        if self.output_room() < record.room() as u64 {
            return false;
        }
        let mut at = head;
        encode_by(thread, record, |piece| {
            // SAFETY: the pieces of a record add up to no more than its room(), which was checked;
            // the node does not read beyond output_head.
            unsafe { self.mapping.write_output(at, piece) };
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
