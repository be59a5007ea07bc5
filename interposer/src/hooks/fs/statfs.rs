//! The `statfs` and `statvfs` families: constants, since size and kind of the disk differ between
//! replicas.

use crate::hooks::result::finish;
use crate::libc_symbols::libc_own;
use crate::sys::sys;
use crate::turn::Turn;
use brolga_tape::operation as op;
use core::ffi::{c_char, c_int};

/// Constants for all: size and kind of the disk are the replica's own.
fn fixed_statvfs() -> libc::statvfs {
    const BLOCKS: u64 = 1 << 28;
    // SAFETY: all zeros are valid: integers only.
    let mut system: libc::statvfs = unsafe { core::mem::zeroed() };
    system.f_bsize = 4096;
    system.f_frsize = 4096;
    system.f_blocks = BLOCKS;
    system.f_bfree = BLOCKS / 2;
    system.f_bavail = BLOCKS / 2;
    system.f_files = BLOCKS;
    system.f_ffree = BLOCKS / 2;
    system.f_favail = BLOCKS / 2;
    system.f_namemax = 255;
    system
}

fn fixed_statfs() -> libc::statfs {
    let from = fixed_statvfs();
    // SAFETY: all zeros are valid: integers only.
    let mut system: libc::statfs = unsafe { core::mem::zeroed() };
    system.f_type = libc::EXT4_SUPER_MAGIC;
    system.f_bsize = from.f_bsize as i64;
    system.f_frsize = from.f_frsize as i64;
    system.f_blocks = from.f_blocks;
    system.f_bfree = from.f_bfree;
    system.f_bavail = from.f_bavail;
    system.f_files = from.f_files;
    system.f_ffree = from.f_ffree;
    system.f_namelen = 255;
    system
}

/// Lets the kernel say whether there is such a file, and fills in the constants.
///
/// # Safety
/// `first` is what the call takes first, and `to` has room.
unsafe fn file_system<T>(number: i64, first: usize, to: *mut T, fixed: fn() -> T) -> isize {
    let mut real = core::mem::MaybeUninit::<libc::statfs>::uninit();
    let turn = Turn::take(op::FILE);
    // SAFETY: the caller's first argument, and room for the answer.
    let result = unsafe { sys!(number, first, real.as_mut_ptr()) };
    if result == 0 && turn.is_some() {
        // SAFETY: the caller promises room for the answer.
        unsafe { to.write(fixed()) };
    }
    result
}

macro_rules! file_system_hooks {
    ($($name:ident($first:ident: $type:ty, $answer:ty) = $number:expr, $fixed:ident, $word:expr;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($first: $type, to: *mut $answer) -> c_int {
            if !Turn::is_scheduled() {
                return libc_own!($name($first: $type, to: *mut $answer) -> c_int);
            }
            // SAFETY: the caller's promise.
            finish(unsafe { file_system($number, $word, to, $fixed) }) as c_int
        }
    )* };
}

file_system_hooks! {
    statvfs(path: *const c_char, libc::statvfs) =
        libc::SYS_statfs, fixed_statvfs, path.expose_provenance();
    statvfs64(path: *const c_char, libc::statvfs) =
        libc::SYS_statfs, fixed_statvfs, path.expose_provenance();
    fstatvfs(fd: c_int, libc::statvfs) = libc::SYS_fstatfs, fixed_statvfs, fd as usize;
    fstatvfs64(fd: c_int, libc::statvfs) = libc::SYS_fstatfs, fixed_statvfs, fd as usize;
    statfs(path: *const c_char, libc::statfs) = libc::SYS_statfs, fixed_statfs, path.expose_provenance();
    statfs64(path: *const c_char, libc::statfs) = libc::SYS_statfs, fixed_statfs, path.expose_provenance();
    fstatfs(fd: c_int, libc::statfs) = libc::SYS_fstatfs, fixed_statfs, fd as usize;
    fstatfs64(fd: c_int, libc::statfs) = libc::SYS_fstatfs, fixed_statfs, fd as usize;
}
