//! `getdents64`, which `nftw`, `fts` and `glob` use inside libc, and other languages directly:
//! entries come sorted by name, as [`readdir`](super::readdir) gives them.
//!
//! The whole directory is read at the first call. Entries that do not fit the caller's buffer are
//! kept until the next call, for a few directories at a time; a caller that continues from an older
//! position gets the file system's own order.

use super::readdir::{NAME_AT, Raw};
use crate::hooks::process::exec::Scratch;
use crate::hooks::result::error;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};

const FIRST_BYTES: usize = 64 * 1024;
/// More than any entry has.
const ENTRY_BYTES_MAX: usize = 512;
const LISTS_MAX: usize = 8;

/// A directory that is being read.
struct List {
    fd: c_int,
    /// Position of the descriptor after all was read; another one: it is not the same reading any
    /// more.
    position: i64,
    entries: Scratch,
    len: usize,
    /// Offsets of the entries, sorted, which follow the entries; how many, and how many were given.
    order_at: usize,
    count: usize,
    given: usize,
}

struct Lists(UnsafeCell<[Option<List>; LISTS_MAX]>);
// SAFETY: only looked at by the thread that has the turn.
unsafe impl Sync for Lists {}
static LISTS: Lists = Lists(UnsafeCell::new([const { None }; LISTS_MAX]));

fn position(fd: c_int) -> isize {
    // SAFETY: plain integers.
    unsafe { sys!(sys::SYS_lseek, fd, 0, libc::SEEK_CUR) }
}

impl List {
    /// Reads and sorts a directory from its beginning. `Err` is a kernel-style result.
    fn read(fd: c_int) -> Result<Self, isize> {
        let mut room = FIRST_BYTES;
        loop {
            let entries = Scratch::new(room).ok_or(error(libc::ENOMEM))?;
            let mut len = 0;
            let whole = loop {
                // Half of it is for the order: an entry has 24 bytes at least, its place four.
                if room / 2 - len < ENTRY_BYTES_MAX {
                    break false;
                }
                // SAFETY: our own memory, from its used end.
                let got = unsafe {
                    let to = entries.at.add(len);
                    sys!(libc::SYS_getdents64, fd, to, room / 2 - len)
                };
                match got {
                    0 => break true,
                    got if got < 0 => return Err(got),
                    got => len += got as usize,
                }
            };
            if whole {
                let mut list = Self {
                    fd,
                    position: position(fd) as i64,
                    entries,
                    len,
                    order_at: room / 2,
                    count: 0,
                    given: 0,
                };
                list.sort();
                return Ok(list);
            }
            // SAFETY: plain integers.
            unsafe { sys!(sys::SYS_lseek, fd, 0, libc::SEEK_SET) };
            room *= 4;
        }
    }

    fn raw(&self, start: u32) -> Raw {
        // SAFETY: starts are those of whole entries; packed, so by value.
        unsafe {
            let at = self.entries.at.add(start as usize);
            at.cast::<Raw>().read_unaligned()
        }
    }

    fn name(&self, start: u32) -> &[u8] {
        // SAFETY: the kernel ends every name with NUL, within the entry.
        unsafe {
            let name = self.entries.at.add(start as usize + NAME_AT);
            core::ffi::CStr::from_ptr(name.cast()).to_bytes()
        }
    }

    #[allow(clippy::mut_from_ref)]
    fn order(&self) -> &mut [u32] {
        // SAFETY: the second half of our memory, of which `count` places were written; nobody else
        // has a reference to it.
        unsafe {
            let first = self.entries.at.add(self.order_at).cast::<u32>();
            core::slice::from_raw_parts_mut(first, self.count)
        }
    }

    fn sort(&mut self) {
        let mut start = 0;
        while start < self.len {
            // SAFETY: there is room for as many places as entries can be.
            unsafe {
                let first = self.entries.at.add(self.order_at).cast::<u32>();
                first.add(self.count).write(start as u32);
            }
            self.count += 1;
            start += usize::from(self.raw(start as u32).length);
        }
        self.order()
            .sort_unstable_by(|a, b| self.name(*a).cmp(self.name(*b)));
    }

    /// Gives as many entries as there is room for; bytes.
    ///
    /// # Safety
    /// `to` has room for `room` bytes.
    unsafe fn give(&mut self, to: *mut u8, room: usize) -> isize {
        let mut used = 0;
        while self.given < self.count {
            let start = self.order()[self.given];
            let mut raw = self.raw(start);
            let length = usize::from(raw.length);
            if used + length > room {
                if used == 0 {
                    return error(libc::EINVAL);
                }
                break;
            }
            self.given += 1;
            // Real numbers and places differ between replicas.
            raw.inode = self.given as u64;
            raw.offset = self.given as i64;
            // SAFETY: a whole entry, and the caller promises room.
            unsafe {
                let from = self.entries.at.add(start as usize);
                to.add(used).copy_from_nonoverlapping(from, length);
                to.add(used).cast::<Raw>().write_unaligned(raw);
            }
            used += length;
        }
        used as isize
    }
}

/// The system call `getdents64`.
///
/// # Safety
/// `to` points to `room` writable bytes.
pub unsafe fn entries(fd: c_int, to: *mut c_void, room: usize) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(libc::SYS_getdents64, fd, to, room) }
    };
    let Some(_turn) = Turn::take(op::FILE) else {
        return raw();
    };
    // SAFETY: see Lists.
    let lists = unsafe { &mut *LISTS.0.get() };
    let now = position(fd);
    let is_this = |list: &List| list.fd == fd && list.position == now as i64;
    let known = lists
        .iter()
        .position(|list| list.as_ref().is_some_and(is_this));
    let at = match known {
        Some(at) => at,
        None if now != 0 => return raw(),
        None => {
            let same = |list: &Option<List>| list.as_ref().is_none_or(|list| list.fd == fd);
            let at = lists.iter().position(same).unwrap_or(0);
            match List::read(fd) {
                Ok(list) => lists[at] = Some(list),
                Err(result) => return result,
            }
            at
        }
    };
    let Some(list) = &mut lists[at] else {
        return raw();
    };
    // SAFETY: the caller promises that `to` points to `room` writable bytes.
    let given = unsafe { list.give(to.cast(), room) };
    if given == 0 {
        lists[at] = None;
    }
    given
}
