//! Executing programs. The new program's constructor takes over the process's place in the
//! schedule, so the interposer must be loaded into it: it is added to the environment whatever the
//! caller has put there, and a program into which it cannot be loaded ends the server with a
//! message.

use crate::exec_check::{self, ExecCheck};
use crate::hooks::result::{error, finish};
use crate::sys::{self, sys};
use crate::tsc;
use crate::turn::{self, Turn, is_active};
use brolga_tape::handover::PRELOAD_PATH;
use core::ffi::{CStr, c_char, c_int};

/// A list of strings that ends with null.
pub(crate) type Words = *const *const c_char;

const PRELOAD: &[u8] = b"LD_PRELOAD=";
const PATH_BYTES: usize = 4096;

unsafe extern "C" {
    static environ: Words;
    fn getenv(name: *const c_char) -> *const c_char;
}

/// The environment of this process.
pub(crate) fn own_environment() -> Words {
    // SAFETY: libc's variable, read while we have the turn.
    unsafe { environ }
}

/// Memory without a heap, for as long as the value lives.
pub(crate) struct Scratch {
    pub(crate) at: *mut u8,
    pub(crate) len: usize,
}

impl Scratch {
    /// Maps so many bytes. `None`: no memory.
    pub(crate) fn new(len: usize) -> Option<Self> {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: fresh memory of the kernel's choice.
        let at = unsafe { sys!(sys::SYS_mmap, 0, len, protection, flags, usize::MAX, 0) };
        (at > 0).then_some(Self {
            at: at as *mut u8,
            len,
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody has a pointer into any more.
        unsafe { sys!(libc::SYS_munmap, self.at, self.len) };
    }
}

/// # Safety
/// `words` is null or an array of pointers that ends with null.
unsafe fn count(words: Words) -> usize {
    if words.is_null() {
        return 0;
    }
    // SAFETY: the caller promises that `words` is null or an array of pointers that ends with null.
    (0..)
        .find(|at| unsafe { (*words.add(*at)).is_null() })
        .unwrap_or(0)
}

/// An environment in which we are preloaded.
enum Environment {
    /// We are in it already.
    Given(Words),
    Made(Scratch),
    NoMemory,
}

impl Environment {
    /// # Safety
    /// As for `execve`.
    unsafe fn with_us(given: Words) -> Self {
        // SAFETY: the caller's promise: an array up to a null.
        let pairs = unsafe { count(given) };
        // SAFETY: the same: of strings.
        let string = |at: usize| unsafe { CStr::from_ptr(*given.add(at)) }.to_bytes();
        let known = (0..pairs).find(|at| string(*at).starts_with(PRELOAD));
        let others = known.map_or(&[][..], |at| &string(at)[PRELOAD.len()..]);
        let is_us = |name: &[u8]| name == PRELOAD_PATH.as_bytes();
        if others
            .split(|byte| *byte == b':' || *byte == b' ')
            .any(is_us)
        {
            return Self::Given(given);
        }
        let array = (pairs + 2) * size_of::<*const c_char>();
        let text = PRELOAD.len() + PRELOAD_PATH.len() + 1 + others.len() + 1;
        let Some(scratch) = Scratch::new(array + text) else {
            return Self::NoMemory;
        };
        // SAFETY: the array and then the text fit; the mapping is zeroed, so both end with a null.
        unsafe {
            let words = scratch.at.cast::<*const c_char>();
            let start = scratch.at.add(array);
            let mut to = start;
            let colon = if others.is_empty() { &b""[..] } else { b":" };
            for part in [PRELOAD, PRELOAD_PATH.as_bytes(), colon, others] {
                to.copy_from_nonoverlapping(part.as_ptr(), part.len());
                to = to.add(part.len());
            }
            for at in 0..pairs {
                words.add(at).write(*given.add(at));
            }
            words.add(known.unwrap_or(pairs)).write(start.cast());
        }
        Self::Made(scratch)
    }

    fn words(&self) -> Words {
        match self {
            Self::Given(words) => *words,
            Self::Made(scratch) => scratch.at.cast(),
            Self::NoMemory => core::ptr::null(),
        }
    }
}

/// Keeps the limit of the stack below which the kernel puts every program's loader at the same
/// place: the filter knows one place only.
fn keep_layout() {
    const STACK_MAX: u64 = 64 << 20;
    let mut limit = [0u64; 2];
    // SAFETY: room for a limit, then a whole one.
    unsafe {
        sys!(
            libc::SYS_prlimit64,
            0,
            libc::RLIMIT_STACK,
            0,
            limit.as_mut_ptr()
        );
        if limit[0] > STACK_MAX {
            limit[0] = STACK_MAX;
            sys!(
                libc::SYS_prlimit64,
                0,
                libc::RLIMIT_STACK,
                limit.as_ptr(),
                0
            );
        }
    }
}

/// Executes a program; returns only if that fails.
///
/// # Safety
/// As for `execveat`.
pub(crate) unsafe fn execute(
    at: c_int,
    path: *const c_char,
    arguments: Words,
    environment: Words,
    flags: c_int,
) -> isize {
    let raw = |environment: Words| {
        // SAFETY: the caller's pointers, passed on.
        unsafe { sys!(libc::SYS_execveat, at, path, arguments, environment, flags) }
    };
    if !is_active() || path.is_null() {
        return raw(environment);
    }
    // The new program takes the turn over.
    let turn = Turn::have();
    if turn.is_some() {
        // SAFETY: the caller promises a NUL-terminated path.
        match unsafe { exec_check::check(at, path, flags) } {
            ExecCheck::Wrapped | ExecCheck::Refused => {}
            ExecCheck::Lost(why) => turn::fault(&[
                b"the server executes ",
                // SAFETY: as above.
                unsafe { CStr::from_ptr(path) }.to_bytes(),
                b", which can't be wrapped: it is ",
                why.as_bytes(),
            ]),
        }
    }
    // SAFETY: the caller's promise.
    let environment = unsafe { Environment::with_us(environment) };
    if matches!(environment, Environment::NoMemory) {
        return error(libc::ENOMEM);
    }
    keep_layout();
    // The new program reads the time stamp counter before we are in it.
    tsc::control::pause();
    let failed = raw(environment.words());
    tsc::control::arm();
    drop(turn);
    failed
}

/// # Safety
/// As for `execve`.
pub(crate) unsafe fn execute_path(
    path: *const c_char,
    arguments: Words,
    environment: Words,
) -> isize {
    // SAFETY: the caller's promise.
    unsafe { execute(libc::AT_FDCWD, path, arguments, environment, 0) }
}

/// A file that is no program the kernel knows, given to the shell.
///
/// # Safety
/// As `execve`.
unsafe fn execute_by_shell(path: *const c_char, arguments: Words, environment: Words) -> isize {
    // SAFETY: the caller's promise.
    let given = unsafe { count(arguments) };
    let Some(scratch) = Scratch::new((given + 3) * size_of::<*const c_char>()) else {
        return error(libc::ENOMEM);
    };
    let words = scratch.at.cast::<*const c_char>();
    // SAFETY: shell, file, arguments but the first, and a null all fit.
    unsafe {
        words.write(c"/bin/sh".as_ptr());
        words.add(1).write(path);
        for at in 1..given {
            words.add(at + 1).write(*arguments.add(at));
        }
        execute_path(c"/bin/sh".as_ptr(), words, environment)
    }
}

/// Executes a file, by the shell if the kernel does not know it.
///
/// # Safety
/// As `execve`.
unsafe fn execute_or_script(path: *const c_char, arguments: Words, environment: Words) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        match execute_path(path, arguments, environment) {
            failed if failed == error(libc::ENOEXEC) => {
                execute_by_shell(path, arguments, environment)
            }
            failed => failed,
        }
    }
}

/// Looks for a program in `PATH`, as `execvpe` does.
///
/// # Safety
/// As for `execvpe`.
pub(crate) unsafe fn execute_file(
    file: *const c_char,
    arguments: Words,
    environment: Words,
) -> isize {
    // SAFETY: the caller promises a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(file) }.to_bytes();
    if name.is_empty() {
        return error(libc::ENOENT);
    }
    if name.contains(&b'/') {
        // SAFETY: the caller's promise.
        return unsafe { execute_or_script(file, arguments, environment) };
    }
    // SAFETY: a NUL-terminated name; the value stays while nobody changes the environment.
    let path = unsafe {
        let path = getenv(c"PATH".as_ptr());
        if path.is_null() {
            c"/bin:/usr/bin"
        } else {
            CStr::from_ptr(path)
        }
    };
    let mut denied = false;
    let mut failed = error(libc::ENOENT);
    for directory in path.to_bytes().split(|byte| *byte == b':') {
        let mut full = [0u8; PATH_BYTES];
        let needed = directory.len() + 1 + name.len() + 1;
        if needed > full.len() {
            continue;
        }
        full[..directory.len()].copy_from_slice(directory);
        let mut len = directory.len();
        if len > 0 {
            full[len] = b'/';
            len += 1;
        }
        full[len..][..name.len()].copy_from_slice(name);
        // SAFETY: a NUL follows what was copied; the rest is the caller's.
        failed = unsafe { execute_or_script(full.as_ptr().cast(), arguments, environment) };
        match -failed as c_int {
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ESTALE | libc::ENOTDIR | libc::ENODEV | libc::ETIMEDOUT => {}
            _ => return failed,
        }
    }
    if denied { error(libc::EACCES) } else { failed }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn execve(
    path: *const c_char,
    arguments: Words,
    environment: Words,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { execute_path(path, arguments, environment) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn execv(path: *const c_char, arguments: Words) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { execve(path, arguments, own_environment()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvpe(
    file: *const c_char,
    arguments: Words,
    environment: Words,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { execute_file(file, arguments, environment) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvp(file: *const c_char, arguments: Words) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { execvpe(file, arguments, own_environment()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn execveat(
    at: c_int,
    path: *const c_char,
    arguments: Words,
    environment: Words,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { execute(at, path, arguments, environment, flags) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fexecve(fd: c_int, arguments: Words, environment: Words) -> c_int {
    if fd < 0 || arguments.is_null() || environment.is_null() {
        return finish(error(libc::EINVAL)) as c_int;
    }
    // SAFETY: the caller's promise.
    unsafe {
        execveat(
            fd,
            c"".as_ptr(),
            arguments,
            environment,
            libc::AT_EMPTY_PATH,
        )
    }
}
