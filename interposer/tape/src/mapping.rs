//! The mapped memory: one header page, the input ring, the output ring.
//!
//! Each ring is mapped twice in a row, so that a frame that wraps is still one contiguous slice.
//! The model checks put memory in this module's place that notices races.

use crate::layout::{HEADER_BYTES, Header, Parameters};

/// A complete mapping.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: *mut u8,
    pub(crate) input_bytes: u64,
    pub(crate) output_bytes: u64,
}

// SAFETY: all shared state behind `base` is atomics and rings whose cursors have one writer each;
// the mapping belongs to whoever holds the Mapping and is not tied to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Writes the header of a fresh, zeroed memory object.
    ///
    /// # Safety
    /// `base` points to at least [`HEADER_BYTES`] writable bytes that nobody else uses yet.
    pub(crate) unsafe fn format(base: *mut u8, parameters: &Parameters) {
        // SAFETY: the caller promises a writable page, and page alignment is more than Header
        // needs.
        unsafe { base.cast::<Header>().write(Header::new(parameters)) };
    }

    /// Reads the parameters, which say how long the whole mapping has to be.
    ///
    /// # Safety
    /// `base` points to at least [`HEADER_BYTES`] readable bytes.
    pub(crate) unsafe fn parameters(base: *const u8) -> Option<Parameters> {
        // SAFETY: the caller promises a readable page, and Header fits in it.
        unsafe { &*base.cast::<Header>() }.parameters()
    }

    /// Takes over a complete mapping.
    ///
    /// # Safety
    /// `base` is a mapping of a formatted object in the layout of the module's description, valid
    /// and writable for as long as the Mapping lives.
    pub(crate) unsafe fn from_raw(base: *mut u8, parameters: &Parameters) -> Self {
        Self {
            base,
            input_bytes: parameters.input_bytes,
            output_bytes: parameters.output_bytes,
        }
    }

    #[inline]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: from_raw's caller promised a valid formatted mapping for our lifetime.
        unsafe { &*self.base.cast::<Header>() }
    }

    #[inline]
    fn input_at(&self, cursor: u64) -> *mut u8 {
        let offset = HEADER_BYTES as u64 + cursor % self.input_bytes;
        // SAFETY: below HEADER_BYTES + input_bytes, so inside the mapping.
        unsafe { self.base.add(offset as usize) }
    }

    #[inline]
    fn output_at(&self, cursor: u64) -> *mut u8 {
        let offset = HEADER_BYTES as u64 + 2 * self.input_bytes + cursor % self.output_bytes;
        // SAFETY: below HEADER_BYTES + 2 * input_bytes + output_bytes, so inside the mapping.
        unsafe { self.base.add(offset as usize) }
    }

    /// Returns `len` bytes of the input ring.
    ///
    /// # Safety
    /// `len` is at most the ring's length, and nobody writes there while the slice lives.
    #[inline]
    pub(crate) unsafe fn input(&self, cursor: u64, len: usize) -> &[u8] {
        // SAFETY: the ring is mapped twice, so as many bytes from any position are contiguous; the
        // caller promises the rest.
        unsafe { core::slice::from_raw_parts(self.input_at(cursor), len) }
    }

    /// Writes bytes to the input ring.
    ///
    /// # Safety
    /// They are at most as many as the ring has, and nobody else uses that part of it.
    #[inline]
    pub(crate) unsafe fn write_input(&self, cursor: u64, bytes: &[u8]) {
        let at = self.input_at(cursor);
        // SAFETY: contiguous in the double mapping; the caller promises the rest.
        unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Returns `len` bytes of the output ring.
    ///
    /// # Safety
    /// As of [`Mapping::input`].
    #[inline]
    pub(crate) unsafe fn output(&self, cursor: u64, len: usize) -> &[u8] {
        // SAFETY: contiguous in the double mapping; the caller promises the rest.
        unsafe { core::slice::from_raw_parts(self.output_at(cursor), len) }
    }

    /// Writes bytes to the output ring.
    ///
    /// # Safety
    /// As of [`Mapping::write_input`].
    #[inline]
    pub(crate) unsafe fn write_output(&self, cursor: u64, bytes: &[u8]) {
        let at = self.output_at(cursor);
        // SAFETY: contiguous in the double mapping; the caller promises the rest.
        unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}
