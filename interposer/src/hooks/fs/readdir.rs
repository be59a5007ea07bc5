//! Directory streams: entries come sorted by name, whatever the file system's order is.
//!
//! The streams are our own: the whole list is read and sorted when the stream is opened or rewound.
//! Memory is allocated by libc's `malloc`, as for libc's own streams.

use crate::hooks::fd::close;
use crate::hooks::result::{error, finish};
use crate::libc_symbols::libc_own;
use crate::sys::{self, sys};
use crate::turn::{Turn, is_active};
use brolga_tape::operation as op;
use core::ffi::{c_char, c_int, c_long, c_void};
use libc::dirent;

const READ_BYTES: usize = 32 * 1024;

/// The structure behind `DIR`.
pub struct Stream {
    fd: c_int,
    /// Entries as the kernel gives them, one after another.
    bytes: *mut u8,
    len: usize,
    room: usize,
    /// Offsets of the entries, sorted by name.
    order: *mut u32,
    count: usize,
    at: usize,
    current: dirent,
}

/// The head of `struct linux_dirent64`; the name follows.
#[derive(Clone, Copy)]
#[repr(C, packed)]
pub(crate) struct Raw {
    pub inode: u64,
    pub offset: i64,
    pub length: u16,
    pub kind: u8,
}

/// Offset of the name in an entry.
pub(crate) const NAME_AT: usize = 19;

impl Stream {
    fn raw(&self, start: u32) -> *const u8 {
        // SAFETY: starts were found within the bytes.
        unsafe { self.bytes.add(start as usize) }
    }

    fn name(&self, start: u32) -> &[u8] {
        // SAFETY: the kernel ends every name with NUL, within the bytes.
        unsafe {
            let name = self.raw(start).add(NAME_AT);
            let mut len = 0;
            while *name.add(len) != 0 {
                len += 1;
            }
            core::slice::from_raw_parts(name, len)
        }
    }

    fn grow(&mut self) -> bool {
        let room = (self.room * 2).max(READ_BYTES);
        // SAFETY: our own block, or null.
        let bytes = unsafe { libc::realloc(self.bytes.cast(), room) };
        if bytes.is_null() {
            return false;
        }
        self.bytes = bytes.cast();
        self.room = room;
        true
    }

    /// Reads all entries and sorts them. `Err` is a kernel-style result.
    fn fill(&mut self) -> Result<(), isize> {
        self.len = 0;
        self.at = 0;
        loop {
            if self.room - self.len < READ_BYTES / 2 && !self.grow() {
                return Err(error(libc::ENOMEM));
            }
            // SAFETY: our own block, from its used end.
            let got = unsafe {
                let to = self.bytes.add(self.len);
                sys!(libc::SYS_getdents64, self.fd, to, self.room - self.len)
            };
            match got {
                0 => break,
                got if got < 0 => return Err(got),
                got => self.len += got as usize,
            }
        }
        self.sort()
    }

    fn sort(&mut self) -> Result<(), isize> {
        let most = self.len / (NAME_AT + 1) + 1;
        // SAFETY: our own block, or null.
        let order = unsafe { libc::realloc(self.order.cast(), most * size_of::<u32>()) };
        if order.is_null() {
            return Err(error(libc::ENOMEM));
        }
        self.order = order.cast();
        self.count = 0;
        let mut start = 0;
        while start < self.len {
            // SAFETY: there is room for as many starts as entries can be.
            unsafe { self.order.add(self.count).write(start as u32) };
            self.count += 1;
            // SAFETY: the kernel gives whole entries; packed, so by value.
            let head = unsafe { self.raw(start as u32).cast::<Raw>().read_unaligned() };
            start += usize::from(head.length);
        }
        // SAFETY: `count` starts were just written.
        let order = unsafe { core::slice::from_raw_parts_mut(self.order, self.count) };
        order.sort_unstable_by(|a, b| self.name(*a).cmp(self.name(*b)));
        Ok(())
    }

    /// The next entry; null at the end.
    fn next(&mut self) -> *mut dirent {
        if self.at == self.count {
            return core::ptr::null_mut();
        }
        // SAFETY: within the `count` starts.
        let start = unsafe { *self.order.add(self.at) };
        self.at += 1;
        // SAFETY: a whole entry; packed, so by value.
        let head = unsafe { self.raw(start).cast::<Raw>().read_unaligned() };
        let name = {
            let name = self.name(start);
            (name.as_ptr(), name.len().min(255))
        };
        // The real number would tell replicas apart; nobody can do much with one that `stat`
        // denies.
        self.current.d_ino = self.at as u64;
        self.current.d_off = self.at as i64;
        self.current.d_type = head.kind;
        self.current.d_reclen = size_of::<dirent>() as u16;
        // SAFETY: at most 255 bytes and a NUL fit.
        unsafe {
            let to = self.current.d_name.as_mut_ptr().cast::<u8>();
            to.copy_from_nonoverlapping(name.0, name.1);
            to.add(name.1).write(0);
        }
        &raw mut self.current
    }

    /// Gives everything back but the descriptor.
    ///
    /// # Safety
    /// `this` is a stream of ours that nobody uses any more.
    unsafe fn free(this: *mut Self) {
        // SAFETY: the caller gives up the stream; all blocks are libc's.
        unsafe {
            libc::free((*this).bytes.cast());
            libc::free((*this).order.cast());
            libc::free(this.cast());
        }
    }
}

/// A stream on an open directory; null with errno set if it can't be read.
fn open_stream(fd: c_int) -> *mut Stream {
    // SAFETY: zeroed memory is a valid empty stream.
    let stream = unsafe { libc::calloc(1, size_of::<Stream>()) }.cast::<Stream>();
    if stream.is_null() {
        finish(error(libc::ENOMEM));
        return stream;
    }
    // SAFETY: just allocated, nobody else has it.
    let filled = unsafe {
        (*stream).fd = fd;
        (*stream).fill()
    };
    if let Err(result) = filled {
        finish(result);
        // SAFETY: as above.
        unsafe { Stream::free(stream) };
        return core::ptr::null_mut();
    }
    stream
}

/// Opens a directory and reads all of it; null with errno set if it can't.
///
/// # Safety
/// `path` ends with a NUL.
unsafe fn open_at(at: c_int, path: *const c_char) -> *mut Stream {
    let _turn = Turn::take(op::FILE);
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the caller's path, passed on.
    let fd = finish(unsafe { sys!(sys::SYS_openat, at, path, flags) }) as c_int;
    if fd < 0 {
        return core::ptr::null_mut();
    }
    let stream = open_stream(fd);
    if stream.is_null() {
        // SAFETY: our own fresh descriptor.
        unsafe { sys!(sys::SYS_close, fd) };
    }
    stream
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn opendir(path: *const c_char) -> *mut Stream {
    if !is_active() {
        return libc_own!(opendir(path: *const c_char) -> *mut Stream);
    }
    // SAFETY: the caller's promise.
    unsafe { open_at(libc::AT_FDCWD, path) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdopendir(fd: c_int) -> *mut Stream {
    if !is_active() {
        return libc_own!(fdopendir(fd: c_int) -> *mut Stream);
    }
    let _turn = Turn::take(op::FILE);
    // SAFETY: plain integers.
    unsafe { sys!(sys::SYS_lseek, fd, 0, libc::SEEK_SET) };
    open_stream(fd)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn readdir(stream: *mut Stream) -> *mut dirent {
    if !is_active() {
        return libc_own!(readdir(stream: *mut Stream) -> *mut dirent);
    }
    // SAFETY: the caller promises an open stream.
    unsafe { (*stream).next() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn readdir64(stream: *mut Stream) -> *mut dirent {
    // SAFETY: the caller's promise; both structures are the same here.
    unsafe { readdir(stream) }
}

/// Returns the error itself, and the entry or null in `result`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn readdir_r(
    stream: *mut Stream,
    to: *mut dirent,
    result: *mut *mut dirent,
) -> c_int {
    if !is_active() {
        return libc_own!(readdir_r(
            stream: *mut Stream,
            to: *mut dirent,
            result: *mut *mut dirent
        ) -> c_int);
    }
    // SAFETY: the caller promises an open stream and room for both.
    unsafe {
        let found = (*stream).next();
        if found.is_null() {
            result.write(found);
        } else {
            to.copy_from_nonoverlapping(found, 1);
            result.write(to);
        }
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn readdir64_r(
    stream: *mut Stream,
    to: *mut dirent,
    result: *mut *mut dirent,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { readdir_r(stream, to, result) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn closedir(stream: *mut Stream) -> c_int {
    if !is_active() {
        return libc_own!(closedir(stream: *mut Stream) -> c_int);
    }
    // SAFETY: the caller gives up an open stream.
    unsafe {
        let fd = (*stream).fd;
        Stream::free(stream);
        finish(close::close_(fd)) as c_int
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rewinddir(stream: *mut Stream) {
    if !is_active() {
        libc_own!(rewinddir(stream: *mut Stream) -> ());
        return;
    }
    let _turn = Turn::take(op::FILE);
    // SAFETY: the caller promises an open stream.
    unsafe {
        sys!(sys::SYS_lseek, (*stream).fd, 0, libc::SEEK_SET);
        // What can't be read any more has no entries.
        if (*stream).fill().is_err() {
            (*stream).count = 0;
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn telldir(stream: *mut Stream) -> c_long {
    if !is_active() {
        return libc_own!(telldir(stream: *mut Stream) -> c_long);
    }
    // SAFETY: the caller promises an open stream.
    unsafe { (*stream).at as c_long }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn seekdir(stream: *mut Stream, position: c_long) {
    if !is_active() {
        libc_own!(seekdir(stream: *mut Stream, position: c_long) -> ());
        return;
    }
    // SAFETY: the caller promises an open stream.
    unsafe {
        let most = (*stream).count;
        (*stream).at = usize::try_from(position).unwrap_or(0).min(most);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dirfd(stream: *mut Stream) -> c_int {
    if !is_active() {
        return libc_own!(dirfd(stream: *mut Stream) -> c_int);
    }
    // SAFETY: the caller promises an open stream.
    unsafe { (*stream).fd }
}

// ---- scandir ----

type Filter = unsafe extern "C" fn(*const dirent) -> c_int;
type Compare = unsafe extern "C" fn(*const *const dirent, *const *const dirent) -> c_int;

unsafe extern "C" {
    fn qsort(base: *mut c_void, count: usize, size: usize, compare: Compare);
}

/// Entries of a directory, chosen and sorted; their number, or -1 with errno set.
///
/// # Safety
/// As `scandirat`.
unsafe fn scan(
    at: c_int,
    path: *const c_char,
    list: *mut *mut *mut dirent,
    filter: Option<Filter>,
    compare: Option<Compare>,
) -> c_int {
    // SAFETY: the caller's promise: a path, room for a list, functions that fit.
    unsafe {
        let stream = open_at(at, path);
        if stream.is_null() {
            return -1;
        }
        let most = (*stream).count.max(1);
        let found = libc::calloc(most, size_of::<*mut dirent>()).cast::<*mut dirent>();
        let mut count = 0;
        loop {
            let entry = (*stream).next();
            if entry.is_null() || found.is_null() {
                break;
            }
            if filter.is_some_and(|filter| filter(entry) == 0) {
                continue;
            }
            let copy = libc::malloc(size_of::<dirent>()).cast::<dirent>();
            if copy.is_null() {
                break;
            }
            copy.copy_from_nonoverlapping(entry, 1);
            found.add(count).write(copy);
            count += 1;
        }
        closedir(stream);
        if found.is_null() {
            return finish(error(libc::ENOMEM)) as c_int;
        }
        if let Some(compare) = compare {
            qsort(found.cast(), count, size_of::<*mut dirent>(), compare);
        }
        list.write(found);
        count as c_int
    }
}

macro_rules! scandir_hooks {
    ($($name:ident($($at:ident)?);)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            $($at: c_int,)?
            path: *const c_char,
            list: *mut *mut *mut dirent,
            filter: Option<Filter>,
            compare: Option<Compare>,
        ) -> c_int {
            if !is_active() {
                return libc_own!($name(
                    $($at: c_int,)?
                    path: *const c_char,
                    list: *mut *mut *mut dirent,
                    filter: Option<Filter>,
                    compare: Option<Compare>
                ) -> c_int);
            }
            let [at, ..] = [$($at,)? libc::AT_FDCWD];
            // SAFETY: the caller's promise.
            unsafe { scan(at, path, list, filter, compare) }
        }
    )* };
}

scandir_hooks! {
    scandir();
    scandir64();
    scandirat(at);
    scandirat64(at);
}
