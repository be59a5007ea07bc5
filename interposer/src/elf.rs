//! ELF files that are mapped, by their headers (`<elf.h>`).

use core::ops::Range;
use libc::{Elf64_Ehdr, Elf64_Phdr};

/// The first bytes of an ELF file.
pub const MAGIC: [u8; 4] = *b"\x7FELF";

/// A segment of a file.
#[derive(Clone, Copy)]
pub struct Segment(Elf64_Phdr);

impl Segment {
    /// Returns whether the segment is mapped by the loader.
    pub fn is_loaded(&self) -> bool {
        self.0.p_type == libc::PT_LOAD
    }

    /// Returns whether the segment is mapped to be executed.
    pub fn is_code(&self) -> bool {
        self.is_loaded() && self.0.p_flags & libc::PF_X != 0
    }

    /// Returns whether the segment is read-only once everything is in its place.
    pub fn is_read_only_later(&self) -> bool {
        self.0.p_type == libc::PT_GNU_RELRO
    }

    /// Returns whether the segment is the table of unwind information.
    pub fn is_frame_table(&self) -> bool {
        self.0.p_type == libc::PT_GNU_EH_FRAME
    }

    /// Offset in the file.
    pub fn offset(&self) -> usize {
        self.0.p_offset as usize
    }

    /// Address as the file says it.
    pub fn address(&self) -> usize {
        self.0.p_vaddr as usize
    }

    /// Bytes in memory.
    pub fn size(&self) -> usize {
        self.0.p_memsz as usize
    }

    /// The addresses that the segment takes, as the file says it.
    pub fn range(&self) -> Range<usize> {
        self.address()..self.address() + self.size()
    }

    /// The addresses in memory, of a file whose addresses count from 0 and which is mapped at
    /// `base`.
    pub fn range_at(&self, base: usize) -> Range<usize> {
        let start = base + self.address();
        start..start + self.size()
    }
}

/// The segments of the file that is mapped at `base`.
///
/// # Safety
/// An ELF file is mapped at `base` and stays.
pub unsafe fn segments(base: usize) -> impl Iterator<Item = Segment> + Clone {
    // SAFETY: the first page of a mapped ELF file holds header and program headers.
    let header = unsafe { (base as *const Elf64_Ehdr).read_unaligned() };
    let table = base + header.e_phoff as usize;
    let size = usize::from(header.e_phentsize);
    (0..usize::from(header.e_phnum)).map(move |index| {
        // SAFETY: as above.
        Segment(unsafe { ((table + index * size) as *const Elf64_Phdr).read_unaligned() })
    })
}
