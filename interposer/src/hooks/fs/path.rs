//! Paths of the working directory and of the directory for temporary files. Their real paths
//! contain the replica's name, so the server is told other paths, through descriptors, which work
//! and are the same on every replica.

use crate::hooks::result::{error, finish};
use crate::libc_symbols::Real;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::handover::{TEMPORARY_DIRECTORY_PATH, WORK_DIRECTORY_PATH};
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};

const PATH_BYTES: usize = 4096;
/// The folder of a container's own files.
const CONTAINERS_OWN: &[u8] = b"/.brolga/";
type Path = [u8; PATH_BYTES];
type Realpath = unsafe extern "C" fn(*const c_char, *mut c_char) -> *mut c_char;

static REALPATH: Real = Real::new(c"realpath");

/// A directory whose real path has the replica's name in it.
struct Root {
    descriptor: &'static CStr,
    /// The real path, without a NUL; empty if it does not exist.
    path: Path,
    len: usize,
}

impl Root {
    const fn new(descriptor: &'static CStr) -> Self {
        Self {
            descriptor,
            path: [0; PATH_BYTES],
            len: 0,
        }
    }
}

struct Roots(UnsafeCell<[Root; 2]>);
// SAFETY: written once by the constructor, before there is a second thread.
unsafe impl Sync for Roots {}
static ROOTS: Roots = Roots(UnsafeCell::new([
    Root::new(c"/proc/self/fd/1003"),
    Root::new(c"/proc/self/fd/1005"),
]));

unsafe extern "C" {
    fn malloc(len: usize) -> *mut c_void;
}

/// Looks up libc's functions, and the real paths of the common names.
pub fn resolve() {
    REALPATH.get();
    // SAFETY: see Roots.
    let roots = unsafe { &mut *ROOTS.0.get() };
    debug_assert_eq!(
        roots[0].descriptor.to_bytes(),
        WORK_DIRECTORY_PATH.as_bytes()
    );
    debug_assert_eq!(
        roots[1].descriptor.to_bytes(),
        TEMPORARY_DIRECTORY_PATH.as_bytes()
    );
    for root in roots {
        // SAFETY: a NUL-terminated path and room for the answer.
        let got = unsafe {
            sys!(
                libc::SYS_readlinkat,
                libc::AT_FDCWD,
                root.descriptor.as_ptr(),
                root.path.as_mut_ptr(),
                PATH_BYTES
            )
        };
        root.len = usize::try_from(got).unwrap_or(0);
    }
}

fn roots() -> &'static [Root; 2] {
    // SAFETY: not written any more.
    unsafe { &*ROOTS.0.get() }
}

/// In a container: the common names of its directories, and their real ones there, which are the
/// same in every container.
pub(crate) fn contained() -> impl Iterator<Item = (&'static [u8], &'static [u8])> {
    let both = |root: &'static Root| (root.descriptor.to_bytes(), &root.path[..root.len]);
    let own = |(_, real): &(&[u8], &[u8])| real.starts_with(CONTAINERS_OWN);
    roots().iter().map(both).filter(own)
}

/// Replaces the real path of a directory of this replica by its common name; returns the new
/// length.
fn translate(path: &mut Path, len: usize) -> usize {
    for root in roots() {
        let real = &root.path[..root.len];
        let common = root.descriptor.to_bytes();
        let below = path[..len].starts_with(real) && (len == root.len || path[root.len] == b'/');
        let new_len = len - if below { root.len } else { 0 } + common.len();
        if root.len == 0 || !below || new_len > PATH_BYTES {
            continue;
        }
        path.copy_within(root.len..len, common.len());
        path[..common.len()].copy_from_slice(common);
        return new_len;
    }
    len
}

/// Returns whether a path, or a single step of one, is a symbolic link on the way to a common name.
///
/// To the server the common names are real paths, so whoever walks them step by step must not meet
/// a link there: MariaDB forbids links, and Node.js would follow this one round and round.
pub(crate) fn is_common(at: c_int, path: &[u8]) -> bool {
    match path {
        b"self" => directory_is(at, |path| path == b"/proc"),
        b"1003" | b"1005" => directory_is(at, |path| {
            path.starts_with(b"/proc/") && path.ends_with(b"/fd")
        }),
        path => {
            let common = |root: &Root| root.descriptor.to_bytes() == path;
            path == b"/proc/self" || roots().iter().any(common)
        }
    }
}

/// Returns whether an open directory's path is such.
fn directory_is(fd: c_int, such: impl Fn(&[u8]) -> bool) -> bool {
    let Ok(number) = u64::try_from(fd) else {
        return false;
    };
    let (digits, folder) = (sys::Decimal::new(number), b"/proc/self/fd/");
    let mut link = [0u8; 40];
    link[..folder.len()].copy_from_slice(folder);
    link[folder.len()..folder.len() + digits.bytes().len()].copy_from_slice(digits.bytes());
    let mut target = [0u8; 64];
    // SAFETY: a NUL-terminated path (20 digits at most) and room for the answer, which is cut if
    // longer.
    let got = unsafe {
        sys!(
            libc::SYS_readlinkat,
            libc::AT_FDCWD,
            link.as_ptr(),
            target.as_mut_ptr(),
            target.len()
        )
    };
    usize::try_from(got).is_ok_and(|len| such(&target[..len]))
}

/// # Safety
/// The path is null (then empty) or ends with a NUL, and outlives the use of the slice.
pub(crate) unsafe fn bytes_of<'path>(path: *const c_char) -> &'path [u8] {
    if path.is_null() {
        return &[];
    }
    // SAFETY: the caller promises that the path is null (then empty) or ends with a NUL, and
    // outlives the use of the slice.
    unsafe { CStr::from_ptr(path) }.to_bytes()
}

/// Gives a string to the caller: into its room, or into fresh memory.
///
/// # Safety
/// `to` is null or points to `room` writable bytes.
unsafe fn give(path: &[u8], to: *mut c_char, room: usize) -> *mut c_char {
    let needed = path.len() + 1;
    if !to.is_null() && room < needed {
        sys::set_errno(libc::ERANGE);
        return core::ptr::null_mut();
    }
    // SAFETY: room was checked, or is allocated; a NUL follows the copy.
    unsafe {
        let to = if to.is_null() {
            malloc(room.max(needed)).cast()
        } else {
            to
        };
        if to.is_null() {
            sys::set_errno(libc::ENOMEM);
            return to;
        }
        to.cast::<u8>()
            .copy_from_nonoverlapping(path.as_ptr(), path.len());
        to.add(path.len()).write(0);
        to
    }
}

/// The working directory as the server knows it.
///
/// # Safety
/// As `getcwd`: `to` is null or has room for `room` bytes.
unsafe fn getcwd_(to: *mut c_char, room: usize) -> *mut c_char {
    let mut path = [0; PATH_BYTES];
    // SAFETY: room for the answer.
    let got = unsafe { sys!(libc::SYS_getcwd, path.as_mut_ptr(), PATH_BYTES) };
    if got <= 0 {
        finish(got);
        return core::ptr::null_mut();
    }
    // The kernel counts the NUL.
    let len = got as usize - 1;
    let len = if Turn::is_scheduled() {
        translate(&mut path, len)
    } else {
        len
    };
    // SAFETY: the caller promises that `to` is null or has room for `room` bytes.
    unsafe { give(&path[..len], to, room) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getcwd(to: *mut c_char, room: usize) -> *mut c_char {
    if room == 0 && !to.is_null() {
        finish(error(libc::EINVAL));
        return core::ptr::null_mut();
    }
    // SAFETY: the caller's promise.
    unsafe { getcwd_(to, room) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __getcwd_chk(to: *mut c_char, room: usize, _real: usize) -> *mut c_char {
    // SAFETY: the caller's promise.
    unsafe { getcwd(to, room) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn get_current_dir_name() -> *mut c_char {
    // SAFETY: no room given, so memory is allocated.
    unsafe { getcwd_(core::ptr::null_mut(), 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn realpath(path: *const c_char, to: *mut c_char) -> *mut c_char {
    // SAFETY: libc's own function.
    let real: Realpath = unsafe { core::mem::transmute(REALPATH.get()) };
    if !Turn::is_scheduled() {
        // SAFETY: the caller's arguments, passed on.
        return unsafe { real(path, to) };
    }
    let mut found = [0u8; PATH_BYTES];
    // SAFETY: the caller's path, and room for the longest answer.
    let there = !unsafe { real(path, found.as_mut_ptr().cast()) }.is_null();
    // SAFETY: plain errno of the call.
    let errno = unsafe { *libc::__errno_location() };
    // Like glibc: how far it got, which some take for the path of a file that they are going to
    // make.
    let part = [libc::ENOENT, libc::EACCES].contains(&errno) && !to.is_null();
    if !there && !part {
        return core::ptr::null_mut();
    }
    let len = found
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(PATH_BYTES - 1);
    let len = translate(&mut found, len);
    // SAFETY: the caller promises PATH_MAX bytes, or wants memory.
    let given = unsafe { give(&found[..len], to, PATH_BYTES) };
    if there {
        return given;
    }
    sys::set_errno(errno);
    core::ptr::null_mut()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __realpath_chk(
    path: *const c_char,
    to: *mut c_char,
    _room: usize,
) -> *mut c_char {
    // SAFETY: the caller's promise.
    unsafe { realpath(path, to) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn canonicalize_file_name(path: *const c_char) -> *mut c_char {
    // SAFETY: the caller's promise.
    unsafe { realpath(path, core::ptr::null_mut()) }
}

/// The target of a link, as the server knows it.
///
/// # Safety
/// As `readlinkat`: `path` ends with a NUL, `to` has room for `room` bytes.
unsafe fn readlink_(at: c_int, path: *const c_char, to: *mut c_char, room: usize) -> isize {
    // SAFETY: the caller promises null or a NUL-terminated path.
    if Turn::is_scheduled() && is_common(at, unsafe { bytes_of(path) }) {
        return error(libc::EINVAL);
    }
    // SAFETY: the caller's pointers, passed on.
    let got = unsafe { sys!(libc::SYS_readlinkat, at, path, to, room) };
    if got <= 0 || !Turn::is_scheduled() {
        return got;
    }
    let mut target = [0; PATH_BYTES];
    let len = (got as usize).min(PATH_BYTES);
    // SAFETY: the kernel has just written `got` bytes; no more than `room` are written back.
    unsafe {
        target.as_mut_ptr().copy_from_nonoverlapping(to.cast(), len);
        let len = translate(&mut target, len).min(room);
        to.cast::<u8>()
            .copy_from_nonoverlapping(target.as_ptr(), len);
        len as isize
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn readlink(path: *const c_char, to: *mut c_char, room: usize) -> isize {
    // SAFETY: the caller's promise.
    finish(unsafe { readlink_(libc::AT_FDCWD, path, to, room) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn readlinkat(
    at: c_int,
    path: *const c_char,
    to: *mut c_char,
    room: usize,
) -> isize {
    // SAFETY: the caller's promise.
    finish(unsafe { readlink_(at, path, to, room) })
}
