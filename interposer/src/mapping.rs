//! The shared mapping behind an address: processes may have mapped the same memory at different
//! addresses, and must find the same objects.
//!
//! The kernel is asked each time (a microsecond or two): only for objects that processes share, and
//! only when a thread waits.

use crate::sys::{self, sys};

/// A place in a shared mapping, the same for all processes that have it.
#[derive(Clone, Copy)]
pub struct Place {
    pub device: u32,
    pub inode: u64,
    pub offset: u64,
}

/// `struct procmap_query`.
#[repr(C)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    protection: u64,
    page_bytes: u64,
    offset: u64,
    inode: u64,
    major: u32,
    minor: u32,
    name_bytes: u32,
    build_id_bytes: u32,
    name: u64,
    build_id: u64,
}

const _: () = assert!(size_of::<Query>() == 104);
/// `PROCMAP_QUERY`, since Linux 6.11.
const PROCMAP_QUERY: usize = 0xC068_6611;
/// The mapping is shared, in [`Query::protection`].
const SHARED: u64 = 8;

/// `None`: the address is not in a shared mapping (or the kernel won't say).
pub fn place_of(address: usize) -> Option<Place> {
    // SAFETY: a NUL-terminated path.
    let fd = unsafe {
        let path = c"/proc/self/maps".as_ptr();
        sys!(sys::SYS_openat, libc::AT_FDCWD, path, libc::O_CLOEXEC, 0)
    };
    if fd < 0 {
        return None;
    }
    let place = match query(fd, address) {
        Answer::Place(place) => Some(place),
        Answer::NotShared => None,
        Answer::NoSuchCall => read_all(fd, address),
    };
    // SAFETY: our own descriptor.
    unsafe { sys!(sys::SYS_close, fd) };
    place
}

enum Answer {
    Place(Place),
    NotShared,
    NoSuchCall,
}

fn query(fd: isize, address: usize) -> Answer {
    let mut query = Query {
        size: size_of::<Query>() as u64,
        flags: 0,
        address: address as u64,
        start: 0,
        end: 0,
        protection: 0,
        page_bytes: 0,
        offset: 0,
        inode: 0,
        major: 0,
        minor: 0,
        name_bytes: 0,
        build_id_bytes: 0,
        name: 0,
        build_id: 0,
    };
    // SAFETY: the structure that this call reads and fills.
    match unsafe { sys!(sys::SYS_ioctl, fd, PROCMAP_QUERY, &raw mut query) } {
        0 if query.protection & SHARED != 0 => Answer::Place(Place {
            device: query.major << 20 | query.minor,
            inode: query.inode,
            offset: query.offset + (address as u64 - query.start),
        }),
        0 => Answer::NotShared,
        error if error == -(libc::ENOENT as isize) => Answer::NotShared,
        _ => Answer::NoSuchCall,
    }
}

/// Reads the list of mappings as text.
fn read_all(fd: isize, address: usize) -> Option<Place> {
    let mut buffer = [0u8; 4096];
    let mut have = 0;
    loop {
        // SAFETY: the rest of the buffer.
        let read = unsafe {
            let rest = &mut buffer[have..];
            sys!(sys::SYS_read, fd, rest.as_mut_ptr(), rest.len())
        };
        have += usize::try_from(read).ok().filter(|read| *read > 0)?;
        let mut done = 0;
        while let Some(len) = buffer[done..have].iter().position(|byte| *byte == b'\n') {
            let line = Line::parse(&buffer[done..done + len])?;
            if (line.start..line.end).contains(&(address as u64)) {
                return line.place(address as u64);
            }
            done += len + 1;
        }
        buffer.copy_within(done..have, 0);
        have -= done;
    }
}

/// The numbers of a line: `start-end rwxs offset major:minor inode …`.
struct Line {
    start: u64,
    end: u64,
    shared: bool,
    offset: u64,
    device: u32,
    inode: u64,
}

impl Line {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ');
        let mut range = words.next()?.split(|byte| *byte == b'-');
        let (start, end) = (number(range.next()?, 16)?, number(range.next()?, 16)?);
        let shared = words.next()?.get(3) == Some(&b's');
        let offset = number(words.next()?, 16)?;
        let mut device = words.next()?.split(|byte| *byte == b':');
        let (major, minor) = (number(device.next()?, 16)?, number(device.next()?, 16)?);
        Some(Self {
            start,
            end,
            shared,
            offset,
            device: (major << 20 | minor) as u32,
            inode: number(words.next()?, 10)?,
        })
    }

    fn place(&self, address: u64) -> Option<Place> {
        self.shared.then_some(Place {
            device: self.device,
            inode: self.inode,
            offset: self.offset + (address - self.start),
        })
    }
}

fn number(digits: &[u8], base: u32) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = char::from(*digit).to_digit(base)?;
        number.checked_mul(base.into())?.checked_add(digit.into())
    })
}
