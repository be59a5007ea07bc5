//! Shared memory objects, and address ranges in which windows of one are mapped, some of them twice.
//!
//! The only part of the node's side that maps memory, and so has `unsafe`.

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::null_mut;

/// Creates a zeroed shared memory object of `bytes` bytes.
///
/// # Errors
/// The kernel has no memory or descriptor left.
pub fn memory_object(name: &CStr, bytes: u64) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC)?;
    ftruncate(&fd, bytes)?;
    Ok(fd)
}

/// A window of an object in a larger mapping.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The offset in the mapping.
    pub at: usize,
    /// The offset in the object.
    pub from: u64,
    /// The length.
    pub bytes: usize,
}

/// An address range with windows of one shared memory object in it; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Reserves `bytes` of address space and maps the windows into it.
    ///
    /// # Errors
    /// The kernel refuses a mapping.
    pub fn new(fd: BorrowedFd<'_>, bytes: usize, windows: &[Window]) -> io::Result<Self> {
        let mapping = Self::reserve(bytes)?;
        for window in windows {
            mapping.place(fd, window)?;
        }
        Ok(mapping)
    }

    /// The start of the range.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    fn reserve(bytes: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::empty(), flags)? };
        Ok(Self {
            base: base.cast(),
            bytes,
        })
    }

    fn place(&self, fd: BorrowedFd<'_>, window: &Window) -> io::Result<()> {
        assert!(
            window.at + window.bytes <= self.bytes,
            "window outside of its mapping"
        );
        // SAFETY: the assertion keeps the fixed mapping inside the range that we have reserved, so
        // it replaces nothing but our own placeholder.
        unsafe {
            mmap(
                self.base.add(window.at).cast(),
                window.bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                fd,
                window.from,
            )?;
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours since `reserve`; whoever borrowed from it is gone by now.
        let unmapped = unsafe { munmap(self.base.cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "the range was mapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_window_mapped_twice_shows_the_same_bytes() {
        let fd = memory_object(c"brolga-test", 8192).unwrap();
        let window = |at, from| Window {
            at,
            from,
            bytes: 4096,
        };
        let windows = [window(0, 4096), window(4096, 4096)];
        let mapping = Mapping::new(fd.as_fd(), 8192, &windows).unwrap();
        // SAFETY: both addresses are inside the 8192 mapped bytes.
        unsafe {
            mapping.base().add(5).write(77);
            assert_eq!(mapping.base().add(4096 + 5).read(), 77);
        }
    }
}
