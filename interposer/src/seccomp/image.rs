//! Parts of an ELF file that is mapped, by its program headers (`<elf.h>`).

use core::ops::Range;

/// Fields of `Elf64_Ehdr`, by their places.
const TABLE: usize = 32;
const ENTRY_BYTES: usize = 54;
const ENTRIES: usize = 56;

/// `Elf64_Phdr`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Segment {
    kind: u32,
    flags: u32,
    offset: usize,
    address: usize,
    physical: usize,
    size_in_file: usize,
    size: usize,
    alignment: usize,
}

impl Segment {
    const LOAD: u32 = 1;
    const EXECUTABLE: u32 = 1;
    const READ_ONLY_LATER: u32 = 0x6474_E552;

    /// Loaded, to be executed.
    pub fn is_code(&self) -> bool {
        self.kind == Self::LOAD && self.flags & Self::EXECUTABLE != 0
    }

    /// Read-only once everything is in its place.
    pub fn is_read_only_later(&self) -> bool {
        self.kind == Self::READ_ONLY_LATER
    }

    /// The addresses that the segment takes.
    pub fn range(&self, base: usize) -> Range<usize> {
        let start = base + self.address;
        start..start + self.size
    }
}

/// The program headers of a file whose addresses count from 0.
///
/// # Safety
/// Such a file is mapped at `base` and stays.
pub unsafe fn segments(base: usize) -> impl Iterator<Item = Segment> {
    // SAFETY: the caller's promise: the first page holds header and program headers.
    let half = |at: usize| usize::from(unsafe { ((base + at) as *const u16).read_unaligned() });
    // SAFETY: as above.
    let table = base + unsafe { ((base + TABLE) as *const usize).read_unaligned() };
    let size = half(ENTRY_BYTES);
    (0..half(ENTRIES)).map(move |index| {
        // SAFETY: as above.
        unsafe { ((table + index * size) as *const Segment).read_unaligned() }
    })
}
