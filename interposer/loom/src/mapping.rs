//! Memory of a tape that notices when two threads use the same bytes without an order between them.

use crate::layout::{Header, Parameters};
use loom::cell;
use std::cell::UnsafeCell;

/// Bytes that are watched together. Frames and records are aligned to as many.
const WORD: u64 = 8;

#[derive(Debug)]
struct Ring {
    /// Twice in a row, like the mapping.
    bytes: Box<[UnsafeCell<u8>]>,
    words: Box<[cell::UnsafeCell<()>]>,
}

impl Ring {
    fn new(len: u64) -> Self {
        Self {
            bytes: (0..2 * len).map(|_| UnsafeCell::new(0)).collect(),
            words: (0..len / WORD).map(|_| cell::UnsafeCell::new(())).collect(),
        }
    }

    fn len(&self) -> u64 {
        self.words.len() as u64 * WORD
    }

    fn words(&self, cursor: u64, len: usize) -> impl Iterator<Item = &cell::UnsafeCell<()>> {
        assert!(len as u64 <= self.len(), "more than the ring has");
        let last = (cursor + len as u64).div_ceil(WORD);
        let count = self.words.len();
        (cursor / WORD..last).map(move |word| &self.words[word as usize % count])
    }

    fn read(&self, cursor: u64, len: usize) -> &[u8] {
        for word in self.words(cursor, len) {
            word.with(|_| ());
        }
        let at = (cursor % self.len()) as usize;
        // SAFETY: within the doubled ring; the threads of a model take turns, and loom has just
        // found that nobody writes there.
        unsafe { std::slice::from_raw_parts(self.bytes[at..at + len].as_ptr().cast(), len) }
    }

    fn write(&self, cursor: u64, bytes: &[u8]) {
        for word in self.words(cursor, bytes.len()) {
            word.with_mut(|_| ());
        }
        let len = self.len();
        for (byte, at) in bytes.iter().zip(cursor..) {
            let at = at % len;
            for half in [at, at + len] {
                // SAFETY: loom has just found that nobody else uses these bytes.
                unsafe { *self.bytes[half as usize].get() = *byte };
            }
        }
    }
}

/// A formatted tape.
pub struct Memory {
    header: Header,
    input: Ring,
    output: Ring,
}

// SAFETY: the threads of a model take turns, and loom watches who uses what.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

impl Memory {
    /// Returns the memory of a fresh tape.
    #[must_use]
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            header: Header::new(parameters),
            input: Ring::new(parameters.input_bytes),
            output: Ring::new(parameters.output_bytes),
        }
    }

    /// Returns what [`crate::ring::Tape::from_raw`] takes.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        std::ptr::from_ref(self).cast_mut().cast()
    }
}

/// Stands for a complete mapping.
#[derive(Debug)]
pub(crate) struct Mapping {
    memory: *const Memory,
    pub(crate) input_bytes: u64,
    pub(crate) output_bytes: u64,
}

// SAFETY: it points to a Memory, which is Sync.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Never called: [`Memory::new`] does it.
    pub(crate) unsafe fn format(_: *mut u8, _: &Parameters) {
        unreachable!("memory of a model is formatted when it is made");
    }

    /// # Safety
    /// `base` comes from a living [`Memory::base`].
    pub(crate) unsafe fn parameters(base: *const u8) -> Option<Parameters> {
        // SAFETY: the caller's promise.
        unsafe { &*base.cast::<Memory>() }.header.parameters()
    }

    /// # Safety
    /// `base` comes from a [`Memory::base`] that outlives the mapping.
    pub(crate) unsafe fn from_raw(base: *mut u8, parameters: &Parameters) -> Self {
        Self {
            memory: base.cast(),
            input_bytes: parameters.input_bytes,
            output_bytes: parameters.output_bytes,
        }
    }

    fn memory(&self) -> &Memory {
        // SAFETY: from_raw's caller promised that it lives.
        unsafe { &*self.memory }
    }

    pub(crate) fn header(&self) -> &Header {
        &self.memory().header
    }

    /// # Safety
    /// None is needed; the signature is that of the real one.
    pub(crate) unsafe fn input(&self, cursor: u64, len: usize) -> &[u8] {
        self.memory().input.read(cursor, len)
    }

    /// # Safety
    /// None is needed; the signature is that of the real one.
    pub(crate) unsafe fn write_input(&self, cursor: u64, bytes: &[u8]) {
        self.memory().input.write(cursor, bytes);
    }

    /// # Safety
    /// None is needed; the signature is that of the real one.
    pub(crate) unsafe fn output(&self, cursor: u64, len: usize) -> &[u8] {
        self.memory().output.read(cursor, len)
    }

    /// # Safety
    /// None is needed; the signature is that of the real one.
    pub(crate) unsafe fn write_output(&self, cursor: u64, bytes: &[u8]) {
        self.memory().output.write(cursor, bytes);
    }
}
