//! The check of a program before it is executed: the interposer has to be loaded into it. As
//! `src/server_image/elf.rs` in the node asks of the first program, it must be a dynamically linked
//! one of this machine for which the linker heeds `LD_PRELOAD`, or a script of one.

use crate::elf::MAGIC;
use crate::sys::{self, sys};
use core::ffi::{CStr, c_char, c_int};
use libc::Elf64_Ehdr;

/// The kernel follows a chain of script interpreters this far, and looks at this much of a first
/// line.
const INTERPRETERS_MAX: u32 = 5;
const LINE_BYTES: usize = 256;
const PATH_BYTES: usize = 4096;

/// The result of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecCheck {
    /// The interposer will be loaded.
    Wrapped,
    /// The interposer cannot be loaded into it; the reason.
    Lost(&'static str),
    /// The kernel refuses to execute it, with an errno of its own.
    Refused,
}

/// An open file that is closed again.
struct Open(c_int);

impl Open {
    fn new(at: c_int, path: &CStr) -> Option<Self> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: a NUL-terminated path.
        let fd = unsafe { sys!(sys::SYS_openat, at, path.as_ptr(), flags) };
        (fd >= 0).then_some(Self(fd as c_int))
    }

    /// Bytes read at a place.
    fn read(&self, to: &mut [u8], place: u64) -> usize {
        // SAFETY: pointer and length of a valid slice.
        let got = unsafe { sys!(sys::SYS_pread64, self.0, to.as_mut_ptr(), to.len(), place) };
        usize::try_from(got).unwrap_or(0)
    }

    fn status(&self) -> Option<libc::stat> {
        let mut status = core::mem::MaybeUninit::<libc::stat>::uninit();
        // SAFETY: room for the answer, filled on success.
        unsafe {
            (sys!(libc::SYS_fstat, self.0, status.as_mut_ptr()) == 0).then(|| status.assume_init())
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: our own descriptor.
        unsafe { sys!(sys::SYS_close, self.0) };
    }
}

/// Checks the program that `execveat` finds.
///
/// # Safety
/// `path` is NUL-terminated.
pub unsafe fn check(at: c_int, path: *const c_char, flags: c_int) -> ExecCheck {
    // SAFETY: the caller promises that `path` is NUL-terminated.
    let path = unsafe { CStr::from_ptr(path) };
    if !path.is_empty() || flags & libc::AT_EMPTY_PATH == 0 {
        return check_file(at, path, 0);
    }
    let mut path_of_descriptor = [0u8; 32];
    let digits = sys::Decimal::new(at.cast_unsigned().into());
    let prefix = b"/proc/self/fd/";
    path_of_descriptor[..prefix.len()].copy_from_slice(prefix);
    path_of_descriptor[prefix.len()..][..digits.bytes().len()].copy_from_slice(digits.bytes());
    match CStr::from_bytes_until_nul(&path_of_descriptor) {
        Ok(path) => check_file(libc::AT_FDCWD, path, 0),
        Err(_) => ExecCheck::Refused,
    }
}

fn check_file(at: c_int, path: &CStr, depth: u32) -> ExecCheck {
    // One that may be executed but not read is taken for an ordinary one.
    let Some(file) = Open::new(at, path) else {
        return ExecCheck::Wrapped;
    };
    let Some(status) = file.status() else {
        return ExecCheck::Refused;
    };
    if status.st_mode & libc::S_IFMT != libc::S_IFREG || status.st_mode & 0o111 == 0 {
        return ExecCheck::Refused;
    }
    let mut start = [0u8; LINE_BYTES];
    let got = file.read(&mut start, 0);
    let start = &start[..got];
    if let Some(line) = start.strip_prefix(b"#!") {
        return check_script(line, depth);
    }
    if !start.starts_with(&MAGIC) {
        return ExecCheck::Refused;
    }
    if gains_rights(&file, &status) {
        return ExecCheck::Lost("setuid, setgid or has file capabilities");
    }
    check_elf(&file, start)
}

fn check_script(line: &[u8], depth: u32) -> ExecCheck {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or(line);
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let from = line.iter().position(|byte| !blank(byte)).unwrap_or(0);
    let name = line[from..].split(blank).next().unwrap_or(&[]);
    let mut path = [0u8; PATH_BYTES];
    if depth >= INTERPRETERS_MAX || name.is_empty() || name.len() >= path.len() {
        return ExecCheck::Refused;
    }
    path[..name.len()].copy_from_slice(name);
    match CStr::from_bytes_until_nul(&path) {
        Ok(path) => check_file(libc::AT_FDCWD, path, depth + 1),
        Err(_) => ExecCheck::Refused,
    }
}

/// Returns whether the linker would distrust the environment.
fn gains_rights(file: &Open, status: &libc::stat) -> bool {
    // SAFETY: plain integers.
    let (user, group, never) = unsafe {
        (
            sys!(libc::SYS_getuid) as u32,
            sys!(libc::SYS_getgid) as u32,
            sys!(sys::SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
        )
    };
    if never {
        return false;
    }
    let sets_group = libc::S_ISGID | libc::S_IXGRP;
    let by_mode = (status.st_mode & libc::S_ISUID != 0 && status.st_uid != user)
        || (status.st_mode & sets_group == sets_group && status.st_gid != group);
    let name = c"security.capability".as_ptr();
    // SAFETY: a NUL-terminated name; the size is asked for only.
    by_mode || (user != 0 && unsafe { sys!(libc::SYS_fgetxattr, file.0, name, 0, 0) } > 0)
}

/// Checks an ELF file that begins with `start`, by its header and program headers (`<elf.h>`).
fn check_elf(file: &Open, start: &[u8]) -> ExecCheck {
    if start.get(libc::EI_CLASS) != Some(&libc::ELFCLASS64) {
        return ExecCheck::Lost("a 32-bit program");
    }
    let mut header = [0u8; size_of::<Elf64_Ehdr>()];
    let got = start.len().min(header.len());
    header[..got].copy_from_slice(&start[..got]);
    // SAFETY: as many bytes, and integers only; what the file lacks is zero.
    let header = unsafe { header.as_ptr().cast::<Elf64_Ehdr>().read_unaligned() };
    if header.e_machine != libc::EM_X86_64 {
        return ExecCheck::Refused;
    }
    let dynamic = (0..u64::from(header.e_phnum)).any(|number| {
        let place = header.e_phoff + number * u64::from(header.e_phentsize);
        let mut kind = [0u8; 4];
        file.read(&mut kind, place) == kind.len() && u32::from_le_bytes(kind) == libc::PT_INTERP
    });
    if dynamic {
        ExecCheck::Wrapped
    } else {
        ExecCheck::Lost("statically linked")
    }
}
