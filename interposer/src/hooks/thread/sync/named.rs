//! Named semaphores: files in the server's directory for temporary files and not in `/dev/shm`,
//! where replicas on one machine would meet. What is in the file is a semaphore like any other.
//!
//! A file is known by the number that the server knows it by, which stays when the server is
//! restored from an image; the kernel's does not.

use super::semaphore::{Semaphore, VALUE_MAX};
use super::wrapped;
use crate::hooks::fs::inode;
use crate::hooks::result::{error, finish};
use crate::sys::{self, set_errno, sys};
use crate::turn::Turn;
use brolga_tape::handover::TEMPORARY_DIRECTORY_FD;
use brolga_tape::operation as op;
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_uint};

/// Named semaphores that a process may have open.
const OPEN_MAX: usize = 1024;
const BYTES: usize = size_of::<libc::sem_t>();

/// A semaphore that this process has open, perhaps more than once: at one address then.
#[derive(Clone, Copy)]
struct Open {
    file: u64,
    address: usize,
    references: u32,
}

struct Table(UnsafeCell<[Open; OPEN_MAX]>);
// SAFETY: only touched by the thread that has the turn.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new(
    [Open {
        file: 0,
        address: 0,
        references: 0,
    }; OPEN_MAX],
));

fn table(_turn: &mut Turn) -> &mut [Open; OPEN_MAX] {
    // SAFETY: whoever has the turn has it alone, for as long as the turn is borrowed.
    unsafe { &mut *TABLE.0.get() }
}

/// The file's name, with a NUL at its end.
struct Name([u8; 256]);

impl Name {
    /// # Safety
    /// A NUL-terminated name.
    unsafe fn new(name: *const c_char) -> Option<Self> {
        const PREFIX: &[u8] = b".sem-";
        // SAFETY: the caller promises a NUL-terminated name.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        let start = name.iter().position(|byte| *byte != b'/')?;
        let name = &name[start..];
        if name.contains(&b'/') || name.len() + PREFIX.len() >= 256 {
            return None;
        }
        let mut bytes = [0; 256];
        bytes[..PREFIX.len()].copy_from_slice(PREFIX);
        bytes[PREFIX.len()..PREFIX.len() + name.len()].copy_from_slice(name);
        Some(Self(bytes))
    }

    fn open(&self, flags: c_int, mode: c_uint) -> isize {
        let flags = flags | libc::O_RDWR | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let name = self.0.as_ptr();
        // SAFETY: a NUL-terminated name.
        unsafe { sys!(sys::SYS_openat, TEMPORARY_DIRECTORY_FD, name, flags, mode) }
    }
}

/// Opens the file, making it first if it is not there and that is wanted.
fn open_file(name: &Name, flags: c_int, mode: c_uint, value: c_uint) -> isize {
    let exclusive = libc::O_CREAT | libc::O_EXCL;
    if flags & exclusive != exclusive {
        let fd = name.open(0, 0);
        if fd != error(libc::ENOENT) || flags & libc::O_CREAT == 0 {
            return fd;
        }
    }
    if value > VALUE_MAX {
        return error(libc::EINVAL);
    }
    // Nobody else of the tree runs meanwhile.
    let fd = name.open(exclusive, mode);
    if fd < 0 {
        return fd;
    }
    let fresh = Semaphore::shared(value);
    // SAFETY: our own descriptor; the semaphore is plain words.
    unsafe {
        sys!(sys::SYS_ftruncate, fd, BYTES);
        sys!(
            libc::SYS_pwrite64,
            fd,
            &raw const fresh,
            size_of::<Semaphore>(),
            0
        );
    }
    fd
}

/// Maps an open file, unless it is mapped.
fn map(turn: &mut Turn, fd: isize) -> isize {
    let Some(file) = inode::number_of(turn, fd) else {
        return error(libc::EINVAL);
    };
    let known = |open: &&mut Open| open.references > 0 && open.file == file;
    if let Some(open) = table(turn).iter_mut().find(known) {
        open.references += 1;
        return open.address as isize;
    }
    let Some(free) = table(turn).iter_mut().find(|open| open.references == 0) else {
        return error(libc::EMFILE);
    };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping where the kernel likes.
    let address = unsafe { sys!(sys::SYS_mmap, 0, BYTES, protection, libc::MAP_SHARED, fd, 0) };
    if address > 0 {
        *free = Open {
            file,
            address: address.cast_unsigned(),
            references: 1,
        };
    }
    address
}

/// Opens a named semaphore, or makes it; its address.
///
/// # Safety
/// `name` ends with a NUL.
unsafe fn open(name: *const c_char, flags: c_int, mode: c_uint, value: c_uint) -> isize {
    let Some(mut turn) = Turn::take(op::FILE) else {
        return error(libc::EPERM);
    };
    // SAFETY: the caller promises that `name` ends with a NUL.
    let Some(name) = (unsafe { Name::new(name) }) else {
        return error(libc::EINVAL);
    };
    let fd = open_file(&name, flags, mode, value);
    if fd < 0 {
        return fd;
    }
    let address = map(&mut turn, fd);
    // SAFETY: our own descriptor.
    unsafe { sys!(sys::SYS_close, fd) };
    address
}

fn close(address: usize) -> isize {
    let Some(mut turn) = Turn::take(op::FILE) else {
        return error(libc::EINVAL);
    };
    let is_it = |open: &&mut Open| open.references > 0 && open.address == address;
    let Some(open) = table(&mut turn).iter_mut().find(is_it) else {
        return error(libc::EINVAL);
    };
    open.references -= 1;
    if open.references > 0 {
        return 0;
    }
    // SAFETY: mapped by `map`; the program has given its last reference back.
    unsafe { sys!(libc::SYS_munmap, address, BYTES) }
}

wrapped! {
    /// Variadic in C; words are the same.
    fn sem_open(
        name: *const c_char,
        flags: c_int,
        mode: c_uint,
        value: c_uint,
    ) -> *mut Semaphore {
        // SAFETY: the caller's promise.
        let result = unsafe { open(name, flags, mode, value) };
        if result < 0 {
            set_errno(-result as c_int);
            return core::ptr::null_mut();
        }
        core::ptr::with_exposed_provenance_mut(result.cast_unsigned())
    }

    fn sem_close(semaphore: *mut Semaphore) -> c_int {
        finish(close(semaphore.addr())) as c_int
    }

    fn sem_unlink(name: *const c_char) -> c_int {
        let _turn = Turn::take(op::FILE);
        // SAFETY: the caller's promise.
        let Some(name) = (unsafe { Name::new(name) }) else {
            return finish(error(libc::ENOENT)) as c_int;
        };
        // SAFETY: a NUL-terminated name.
        finish(unsafe {
            sys!(libc::SYS_unlinkat, TEMPORARY_DIRECTORY_FD, name.0.as_ptr(), 0)
        }) as c_int
    }
}
