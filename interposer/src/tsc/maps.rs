//! The loaded file that an instruction belongs to.
//!
//! The kernel is asked (`/proc/self/maps`), not the dynamic loader, whose lock another thread may
//! hold.

use crate::elf::{self, Segment};
use crate::sys::{self, sys};
use brolga_rewrite::{Frames, Text};
use core::ops::Range;
use core::slice::from_raw_parts;

/// A loaded ELF file with the code that was asked about.
pub struct Loaded {
    header: usize,
    /// The difference of addresses in memory to those in the file.
    bias: usize,
    code: Segment,
}

impl Loaded {
    /// Looks for it. `None`: the address is not in the code of a file, or that code can be written.
    pub fn around(address: usize) -> Option<Self> {
        find(&mut Lines::of_maps()?, address)
    }

    fn new(header: usize, address: usize) -> Option<Self> {
        let loads = segments(header).filter(Segment::is_loaded);
        let first = loads.clone().find(|it| it.offset() == 0)?;
        let bias = header.wrapping_sub(first.address());
        let unbiased = address.wrapping_sub(bias);
        let code = loads.clone().find(|it| it.range().contains(&unbiased))?;
        Some(Self { header, bias, code })
    }

    /// The file's code and functions.
    pub fn text(&self) -> Option<Text<'static>> {
        let start = self.code.address().wrapping_add(self.bias);
        // SAFETY: a loaded segment stays as long as its code runs, which it does right now; who
        // changes it has the turn, and that is us.
        let bytes = unsafe { from_raw_parts(start as *const u8, self.code.size()) };
        Some(Text {
            bytes,
            start: start as u64,
            frames: self.frames()?,
        })
    }

    fn frames(&self) -> Option<Frames<'static>> {
        let table = segments(self.header).find(Segment::is_frame_table)?;
        let mut loads = segments(self.header).filter(Segment::is_loaded);
        let segment = loads.find(|load| load.range().contains(&table.address()))?;
        let start = table.address().wrapping_add(self.bias);
        // SAFETY: the rest of a loaded segment, which is read-only (those that can be written hold
        // no unwind tables) and stays as long as its code runs.
        let bytes =
            unsafe { from_raw_parts(start as *const u8, segment.range().end - table.address()) };
        Frames::new(bytes, start as u64)
    }
}

/// The segments of the file that is mapped at `header`.
fn segments(header: usize) -> impl Iterator<Item = Segment> + Clone {
    // SAFETY: the start of a mapped ELF file, which stays as long as its code runs.
    unsafe { elf::segments(header) }
}

fn find(lines: &mut Lines, address: usize) -> Option<Loaded> {
    let mut first: Option<Mapping> = None;
    while let Some(line) = lines.next() {
        let Some(mapping) = Mapping::parse(line) else {
            continue;
        };
        if mapping.offset == 0 {
            first = Some(mapping.clone());
        }
        if !mapping.range.contains(&address) {
            continue;
        }
        let header = first.filter(|first| first.inode == mapping.inode && mapping.inode != 0)?;
        let header = header.range.start;
        // SAFETY: the start of a mapped file.
        let magic = unsafe { (header as *const [u8; 4]).read_unaligned() };
        let known = mapping.is_code && magic == elf::MAGIC;
        return known.then(|| Loaded::new(header, address)).flatten();
    }
    None
}

/// `start-end rights offset device inode path`.
#[derive(Clone)]
pub struct Mapping {
    range: Range<usize>,
    is_code: bool,
    offset: usize,
    inode: usize,
}

impl Mapping {
    /// Looks for the mapping of an address; `found` is not called where no file is mapped.
    pub fn look_up(address: usize, found: impl FnOnce(&Self, &[u8])) {
        let Some(mut lines) = Lines::of_maps() else {
            return;
        };
        while let Some(line) = lines.next() {
            let Some(mapping) = Self::parse(line) else {
                continue;
            };
            if mapping.range.contains(&address) {
                if let Some(path) = line.iter().position(|byte| *byte == b'/') {
                    found(&mapping, &line[path..]);
                }
                return;
            }
        }
    }

    /// The offset of an address in the file.
    pub fn place_in_file(&self, address: usize) -> usize {
        address - self.range.start + self.offset
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line
            .split(|byte| *byte == b' ')
            .filter(|field| !field.is_empty());
        let mut ends = fields.next()?.split(|byte| *byte == b'-');
        Some(Self {
            range: number(ends.next()?, 16)?..number(ends.next()?, 16)?,
            is_code: fields.next()? == b"r-xp",
            offset: number(fields.next()?, 16)?,
            inode: number(fields.nth(1)?, 10)?,
        })
    }
}

fn number(digits: &[u8], base: u32) -> Option<usize> {
    digits.iter().try_fold(0usize, |value, digit| {
        let digit = char::from(*digit).to_digit(base)?;
        value
            .checked_mul(base as usize)?
            .checked_add(digit as usize)
    })
}

/// Lines of a file, without a heap. Very long ones come out empty.
struct Lines {
    fd: i32,
    bytes: [u8; 512],
    filled: usize,
    /// Bytes of the line that was given last.
    given: usize,
}

impl Lines {
    /// Of `/proc/self/maps`.
    fn of_maps() -> Option<Self> {
        // SAFETY: a NUL-terminated path.
        let fd = unsafe {
            sys!(
                sys::SYS_openat,
                libc::AT_FDCWD,
                c"/proc/self/maps".as_ptr(),
                libc::O_RDONLY | libc::O_CLOEXEC
            )
        };
        Some(Self {
            fd: i32::try_from(fd).ok().filter(|fd| *fd >= 0)?,
            bytes: [0; 512],
            filled: 0,
            given: 0,
        })
    }

    fn next(&mut self) -> Option<&[u8]> {
        self.bytes.copy_within(self.given..self.filled, 0);
        self.filled -= self.given;
        self.given = 0;
        let mut cut = false;
        loop {
            let newline = self.bytes[..self.filled]
                .iter()
                .position(|byte| *byte == b'\n');
            if let Some(at) = newline {
                self.given = at + 1;
                return Some(if cut { &[] } else { &self.bytes[..at] });
            }
            if self.filled == self.bytes.len() {
                self.filled = 0;
                cut = true;
            }
            let room = &mut self.bytes[self.filled..];
            // SAFETY: room of ours.
            let got = unsafe { sys!(sys::SYS_read, self.fd, room.as_mut_ptr(), room.len()) };
            match usize::try_from(got) {
                Ok(got) if got > 0 => self.filled += got,
                _ => return None,
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // SAFETY: our own descriptor.
        unsafe { sys!(sys::SYS_close, self.fd) };
    }
}
