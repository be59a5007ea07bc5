//! Scattered memory: `iovec` arrays and the vectors of messages.

use core::ffi::c_int;
use libc::{iovec, msghdr};

/// Scattered memory of a caller.
#[derive(Clone, Copy)]
pub(crate) struct Vectors {
    first: *const iovec,
    count: usize,
}

impl Vectors {
    /// # Safety
    /// `first` points to `count` vectors that are valid for as long as the value is used.
    pub(crate) unsafe fn new(first: *const iovec, count: c_int) -> Option<Self> {
        let count = usize::try_from(count).ok()?;
        (count <= 1024).then_some(Self { first, count })
    }

    /// A single vector.
    pub(crate) fn one(vector: &mut iovec) -> Self {
        Self {
            first: vector,
            count: 1,
        }
    }

    /// The vectors, one by one.
    ///
    /// # Safety
    /// They are still there.
    unsafe fn each(&self) -> impl Iterator<Item = iovec> + use<> {
        let first = self.first;
        // SAFETY: by the contract of `new`.
        (0..self.count).map(move |at| unsafe { *first.add(at) })
    }

    /// The vectors of a message; `None`: too many.
    ///
    /// # Safety
    /// They are valid for as long as the value is used.
    pub(crate) unsafe fn of(message: &msghdr) -> Option<Self> {
        let count = c_int::try_from(message.msg_iovlen).ok()?;
        // SAFETY: the caller's promise.
        unsafe { Self::new(message.msg_iov, count) }
    }

    /// A message of nothing but this memory.
    pub(crate) fn message(&self) -> msghdr {
        // SAFETY: all zeros are a message without parts.
        let mut message: msghdr = unsafe { core::mem::zeroed() };
        message.msg_iov = self.first.cast_mut();
        message.msg_iovlen = self.count;
        message
    }

    /// Copies the first bytes of the memory.
    ///
    /// # Safety
    /// The memory is readable, and has at least as many.
    pub(crate) unsafe fn gather(&self, to: &mut [u8]) {
        let mut at = 0;
        while at < to.len() {
            // SAFETY: the caller promises that the memory is readable, and has at least as many.
            let piece = unsafe { self.slice(at, to.len() - at) };
            to[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
    }

    /// The number of bytes in all.
    ///
    /// # Safety
    /// The vectors are still there.
    pub(crate) unsafe fn len(&self) -> usize {
        // SAFETY: by the contract of `new`.
        unsafe { self.each() }.map(|vector| vector.iov_len).sum()
    }

    /// Copies bytes to position `at` of the memory.
    ///
    /// # Safety
    /// The vectors are still there and point to writable memory.
    pub(crate) unsafe fn put(&self, mut at: usize, mut bytes: &[u8]) {
        // SAFETY: by the contract of `new`; each copy stays within its vector.
        unsafe {
            for vector in self.each() {
                if at >= vector.iov_len {
                    at -= vector.iov_len;
                    continue;
                }
                let now = bytes.len().min(vector.iov_len - at);
                let to = vector.iov_base.cast::<u8>().add(at);
                to.copy_from_nonoverlapping(bytes.as_ptr(), now);
                bytes = &bytes[now..];
                at = 0;
                if bytes.is_empty() {
                    return;
                }
            }
        }
    }

    /// Up to `max` contiguous bytes from position `at` of the memory.
    ///
    /// # Safety
    /// The vectors are still there and point to readable memory, which outlives the use of the
    /// slice.
    pub(crate) unsafe fn slice<'a>(&self, mut at: usize, max: usize) -> &'a [u8] {
        // SAFETY: by the contract of `new`; the slice stays within one vector.
        unsafe {
            for vector in self.each() {
                if at < vector.iov_len {
                    let len = max.min(vector.iov_len - at);
                    let from = vector.iov_base.cast::<u8>().add(at);
                    return core::slice::from_raw_parts(from, len);
                }
                at -= vector.iov_len;
            }
        }
        &[]
    }
}

/// Bytes of scattered memory; `None` for more vectors than the kernel takes.
///
/// # Safety
/// `first` points to `count` vectors.
pub(crate) unsafe fn total_len(first: *const iovec, count: c_int) -> Option<usize> {
    // SAFETY: the caller promises that `first` points to `count` vectors.
    unsafe { Vectors::new(first, count).map(|vectors| vectors.len()) }
}
