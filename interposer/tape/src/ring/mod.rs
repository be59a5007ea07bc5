//! The shared mapping: one header page, the input ring, the output ring.
//!
//! Each ring is mapped twice in a row, so that a frame that wraps is still one contiguous slice.
//! The whole address range is `HEADER_BYTES + 2 * input + 2 * output` bytes long; the memory object
//! behind it is `HEADER_BYTES + input + output` bytes. Whoever maps it promises that layout once,
//! in [`Tape::from_raw`]; everything after that is bounds-checked.
//!
//! One process tree writes the output ring and reads the input ring (only the thread that holds the
//! turn touches either), one node does the opposite, so each cursor has a single writer.

mod node;
mod server;
#[cfg(test)]
mod tests;

pub use crate::layout::{FRAME_HEADER_BYTES, HEADER_BYTES, MAGIC, Parameters, object_bytes};
pub use node::PushError;

use crate::layout::Header;
use crate::mapping::Mapping;

/// A thread that has had the turn for long without an ordered operation. No part of the logical
/// execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The kernel's number of the process, where the server lives. It may be gone.
    pub real_process: i32,
    /// The process and the thread, as the server sees them.
    pub process: i32,
    /// See `process`.
    pub thread: i32,
    /// Shortest time for which it has had the turn.
    pub seconds: u32,
    /// Number of threads that can run and wait for their turn.
    pub waiting: u32,
}

/// A mapped tape, from either side.
#[derive(Debug)]
pub struct Tape {
    mapping: Mapping,
}

impl Tape {
    /// Writes the header of a fresh, zeroed memory object.
    ///
    /// # Safety
    /// `base` points to at least [`HEADER_BYTES`] writable bytes that nobody else uses yet.
    pub unsafe fn format(base: *mut u8, parameters: &Parameters) {
        // SAFETY: the caller's promise.
        unsafe { Mapping::format(base, parameters) };
    }

    /// Reads the parameters, which say how long the whole mapping has to be.
    ///
    /// # Safety
    /// `base` points to at least [`HEADER_BYTES`] readable bytes.
    #[must_use]
    pub unsafe fn parameters(base: *const u8) -> Option<Parameters> {
        // SAFETY: the caller's promise.
        unsafe { Mapping::parameters(base) }
    }

    /// Takes over a complete mapping.
    ///
    /// # Safety
    /// `base` is a mapping of a formatted object in the layout of the module's description, valid
    /// and writable for as long as the Tape lives; there is one Tape per side in use at a time.
    #[must_use]
    pub unsafe fn from_raw(base: *mut u8, parameters: &Parameters) -> Self {
        Self {
            // SAFETY: the caller's promise.
            mapping: unsafe { Mapping::from_raw(base, parameters) },
        }
    }

    #[inline]
    fn header(&self) -> &Header {
        self.mapping.header()
    }
}
