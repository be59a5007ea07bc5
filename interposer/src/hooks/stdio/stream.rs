//! Custom streams. The cookie is a number, see [`Cookie`]. Standard streams are replaced.

use crate::hooks::fd::close::close_;
use crate::hooks::fd::object::object;
use crate::hooks::fd::read_write::{read_, write_};
use crate::hooks::process::pipe_children::close_pipe;
use crate::hooks::result::finish;
use crate::sys::{self, sys};
use crate::turn::Turn;
use core::ffi::{CStr, c_char, c_int, c_void};

/// The published start of glibc's `struct _IO_FILE` (`<bits/types/struct_FILE.h>`).
#[repr(C)]
pub struct File {
    flags: c_int,
    pointers: [usize; 12],
    chain: *mut File,
    descriptor: c_int,
}

const _: () = assert!(core::mem::offset_of!(File, descriptor) == 112);

unsafe extern "C" {
    fn fopencookie(cookie: usize, mode: *const c_char, functions: Functions) -> *mut File;
    fn setvbuf(stream: *mut File, buffer: *mut c_char, mode: c_int, len: usize) -> c_int;
    fn fflush_unlocked(stream: *mut File) -> c_int;
    fn ftrylockfile(stream: *mut File) -> c_int;
    fn funlockfile(stream: *mut File);

    pub(crate) fn vasprintf(
        to: *mut *mut c_char,
        format: *const c_char,
        arguments: *mut c_void,
    ) -> c_int;
    pub(crate) fn free(at: *mut c_void);

    static _IO_2_1_stdin_: File;
    static _IO_2_1_stdout_: File;
    static _IO_2_1_stderr_: File;
    static mut _IO_list_all: *mut File;
    static mut stdin: *mut File;
    static mut stdout: *mut File;
    static mut stderr: *mut File;
}

/// `cookie_io_functions_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Functions {
    read: unsafe extern "C" fn(usize, *mut c_void, usize) -> isize,
    write: unsafe extern "C" fn(usize, *const c_void, usize) -> isize,
    seek: unsafe extern "C" fn(usize, *mut i64, c_int) -> c_int,
    close: unsafe extern "C" fn(usize) -> c_int,
}

const FUNCTIONS: Functions = Functions {
    read,
    write,
    seek,
    close,
};

/// The cookie of a custom stream: its descriptor and the command at the other end, as one word.
#[derive(Clone, Copy)]
pub(crate) struct Cookie {
    descriptor: c_int,
    /// The command at the other end that closing waits for, or 0.
    command: c_int,
}

impl Cookie {
    /// The cookie of a descriptor without a command.
    pub(crate) fn plain(descriptor: c_int) -> Self {
        Self {
            descriptor,
            command: 0,
        }
    }

    /// The cookie as libc keeps it.
    pub(crate) fn word(self) -> usize {
        let half = |number: c_int| number.cast_unsigned() as usize;
        half(self.descriptor) | half(self.command) << 32
    }

    fn of(word: usize) -> Self {
        let half = |at: u32| ((word >> at) as u32).cast_signed();
        Self {
            descriptor: half(0),
            command: half(32),
        }
    }
}

/// Reads for a stream.
///
/// # Safety
/// libc calls it, with room for `len` bytes.
unsafe extern "C" fn read(cookie: usize, to: *mut c_void, len: usize) -> isize {
    // SAFETY: stdio gives room for `len` bytes.
    finish(unsafe { read_(Cookie::of(cookie).descriptor, to, len) })
}

/// All of it, as stdio wants it; a count that is too small says that it failed.
pub(crate) unsafe extern "C" fn write(cookie: usize, from: *const c_void, len: usize) -> isize {
    let descriptor = Cookie::of(cookie).descriptor;
    let mut done = 0;
    while done < len {
        // SAFETY: stdio gives `len` bytes.
        let put = finish(unsafe { write_(descriptor, from.byte_add(done), len - done) });
        if put <= 0 {
            break;
        }
        done += put.cast_unsigned();
    }
    done.cast_signed()
}

/// Moves the position of a stream's descriptor.
///
/// # Safety
/// libc calls it, with an offset.
unsafe extern "C" fn seek(cookie: usize, offset: *mut i64, whence: c_int) -> c_int {
    // SAFETY: stdio gives an offset.
    let wanted = unsafe { *offset };
    let descriptor = Cookie::of(cookie).descriptor;
    // SAFETY: plain integers.
    let at = finish(unsafe { sys!(sys::SYS_lseek, descriptor, wanted, whence) });
    if at < 0 {
        return -1;
    }
    // SAFETY: as above.
    unsafe { *offset = at as i64 };
    0
}

/// Closes a stream's descriptor.
///
/// # Safety
/// libc calls it, at the stream's end.
unsafe extern "C" fn close(cookie: usize) -> c_int {
    let Cookie {
        descriptor,
        command,
    } = Cookie::of(cookie);
    if command != 0 {
        return close_pipe(descriptor, command);
    }
    finish(close_(descriptor)) as c_int
}

/// A stream of ours; null with errno set when there is no memory for it.
///
/// # Safety
/// `mode` ends with a NUL.
pub(crate) unsafe fn open_stream(cookie: Cookie, mode: *const c_char) -> *mut File {
    // SAFETY: the caller's mode; functions of the right types.
    unsafe {
        let stream = fopencookie(cookie.word(), mode, FUNCTIONS);
        if !stream.is_null() {
            // So that fileno() knows it. glibc only asks whether it is there.
            (*stream).descriptor = cookie.descriptor;
        }
        stream
    }
}

/// Returns whether reads and writes of a descriptor have to be ours.
pub(crate) fn needs_us(turn: &mut Turn, fd: c_int) -> bool {
    object(turn, fd).is_some()
}

/// `open` flags of an `fopen` mode; `None` if it is none.
///
/// # Safety
/// `mode` ends with a NUL.
pub(crate) unsafe fn flags_of(mode: *const c_char) -> Option<c_int> {
    // SAFETY: the caller promises a NUL-terminated mode.
    let mode = unsafe { CStr::from_ptr(mode) }.to_bytes();
    let (kind, rest) = mode.split_first()?;
    // What follows a comma names a character set.
    let rest = rest.split(|byte| *byte == b',').next()?;
    let base = match kind {
        b'r' => 0,
        b'w' => libc::O_CREAT | libc::O_TRUNC,
        b'a' => libc::O_CREAT | libc::O_APPEND,
        _ => return None,
    };
    let both = rest.contains(&b'+');
    let access = match (both, kind) {
        (true, _) => libc::O_RDWR,
        (false, b'r') => libc::O_RDONLY,
        _ => libc::O_WRONLY,
    };
    let exclusive = if rest.contains(&b'x') {
        libc::O_EXCL
    } else {
        0
    };
    let on_exec = if rest.contains(&b'e') {
        libc::O_CLOEXEC
    } else {
        0
    };
    Some(base | access | exclusive | on_exec)
}

/// A file by name that libc's own stream can't serve.
///
/// # Safety
/// `mode` ends with a NUL.
pub(crate) unsafe fn open_by_name(
    mode: *const c_char,
    open: impl FnOnce(c_int) -> isize,
) -> *mut c_void {
    // SAFETY: the caller promises a NUL-terminated mode.
    let Some(flags) = (unsafe { flags_of(mode) }) else {
        sys::set_errno(libc::EINVAL);
        return core::ptr::null_mut();
    };
    let fd = finish(open(flags)) as c_int;
    if fd < 0 {
        return core::ptr::null_mut();
    }
    // SAFETY: the caller's mode.
    let stream = unsafe { open_stream(Cookie::plain(fd), mode) };
    if stream.is_null() {
        close_(fd);
    }
    stream.cast()
}

/// The stream of a command that `popen` has started.
pub(crate) fn open_command(descriptor: c_int, command: c_int, mode: &CStr) -> *mut c_void {
    let cookie = Cookie {
        descriptor,
        command,
    };
    // SAFETY: a NUL-terminated mode.
    unsafe { open_stream(cookie, mode.as_ptr()) }.cast()
}

// ---- standard streams ----

/// A standard descriptor has come to name an object of the tree: its stream is replaced unless it
/// was already, or the program has put another in its place.
pub(crate) fn adopt(turn: &mut Turn, fd: c_int) {
    if !(0..=2).contains(&fd) || !needs_us(turn, fd) {
        return;
    }
    // SAFETY: libc's own variables, which a program may assign; only the thread that has the turn
    // is here, and other threads only read a pointer.
    unsafe {
        let (variable, own, mode) = match fd {
            0 => (&raw mut stdin, &raw const _IO_2_1_stdin_, c"r"),
            1 => (&raw mut stdout, &raw const _IO_2_1_stdout_, c"w"),
            _ => (&raw mut stderr, &raw const _IO_2_1_stderr_, c"w"),
        };
        if !core::ptr::eq(*variable, own) {
            return;
        }
        let stream = open_stream(Cookie::plain(fd), mode.as_ptr());
        if stream.is_null() {
            return;
        }
        if fd == 2 {
            const UNBUFFERED: c_int = 2;
            setvbuf(stream, core::ptr::null_mut(), UNBUFFERED, 0);
        }
        *variable = stream;
    }
}

/// After an `exec`.
pub fn after_exec(turn: &mut Turn) {
    for fd in 0..=2 {
        adopt(turn, fd);
    }
}

/// Writes out what is buffered, while the process still has its place in the schedule: libc would
/// do it after its last hook. Streams that another thread has locked are left to libc, which does
/// not wait for them either.
pub(crate) fn flush_at_exit() {
    // SAFETY: libc's list of streams, which only changes under a lock that nobody holds inside a
    // hook but by opening or closing a stream; then streams of that list.
    unsafe {
        let mut next = _IO_list_all;
        while let Some(stream) = next.as_ref() {
            let at = next;
            next = stream.chain;
            if ftrylockfile(at) == 0 {
                fflush_unlocked(at);
                funlockfile(at);
            }
        }
    }
}
