//! The `stat` family, and the calls that set file times.
//!
//! Identities and times are computed by [`brolga_vfile`]; values that depend on the file system
//! (block counts, sizes and link counts of directories) are constants.

use super::inode::{lasting, write_path};
use super::path;
use crate::hooks::result::{error, finish};
use crate::statx::{EMPTY, HERE, LINK, SELF, ask, just_now, time_of};
use crate::sys::sys;
use crate::turn::Turn;
use brolga_tape::handover::{TEMPORARY_DIRECTORY_FD, WORK_DIRECTORY_FD};
use brolga_tape::operation as op;
use brolga_vfile::times::{self, Seen, Time};
use core::ffi::{c_char, c_int, c_uint};
use libc::{stat as Stat, statx as Statx, timespec, timeval};

/// The device of all files, in the kernel's encoding of 8:1.
const DEVICE: (u32, u32) = (8, 1);
const BLOCK_BYTES: u64 = 512;
const DIRECTORY_BYTES: u64 = 4096;

fn set_time(to: &mut libc::statx_timestamp, time: Time) {
    to.tv_sec = time.seconds;
    to.tv_nsec = time.nanoseconds;
}

fn is(file: &Statx, kind: u32) -> bool {
    u32::from(file.stx_mode) & libc::S_IFMT == kind
}

/// The modification time as the server sees it. A file that has changed is stamped.
///
/// # Safety
/// `path` ends with a NUL.
unsafe fn modified(
    turn: &mut Turn,
    file: &Statx,
    at: c_int,
    path: *const c_char,
    flags: c_int,
) -> Time {
    let launched = turn.shared().launched;
    match times::judge(time_of(&file.stx_mtime), launched) {
        Seen::Stamped(time) => time,
        Seen::Before => time_of(&file.stx_mtime),
        Seen::Changed => {
            let now = times::stamp(times::moment(turn.now_ns()));
            // Of no avail for a file that is not ours; then it counts as changed every time.
            // SAFETY: the caller's path.
            unsafe { set_for_real(at, path, flags, now, now) };
            times::shown(now)
        }
    }
}

/// Sets the times that the kernel keeps.
///
/// # Safety
/// `path` is null or ends with a NUL.
unsafe fn set_for_real(
    at: c_int,
    path: *const c_char,
    flags: c_int,
    accessed: Time,
    modified: Time,
) -> isize {
    let pair = [accessed, modified].map(|time| timespec {
        tv_sec: time.seconds,
        tv_nsec: i64::from(time.nanoseconds),
    });
    let flags = flags & (libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH);
    // SAFETY: the caller's path, and two valid times.
    unsafe { sys!(libc::SYS_utimensat, at, path, pair.as_ptr(), flags) }
}

/// Makes the kernel's answer into the one that the server gets.
///
/// # Safety
/// `path` ends with a NUL.
unsafe fn rewrite(turn: &mut Turn, file: &mut Statx, at: c_int, path: *const c_char, flags: c_int) {
    // SAFETY: the caller promises that `path` ends with a NUL.
    let place = |room: &mut [u8]| unsafe { write_path(at, path, flags, room) };
    let id = lasting(turn, file, place);
    let kept = is(file, libc::S_IFREG) || is(file, libc::S_IFDIR);
    let time = if kept {
        // SAFETY: the caller promises that `path` ends with a NUL.
        unsafe { modified(turn, file, at, path, flags) }
    } else {
        times::GENESIS
    };
    for to in [
        &mut file.stx_atime,
        &mut file.stx_mtime,
        &mut file.stx_ctime,
        &mut file.stx_btime,
    ] {
        set_time(to, time);
    }
    file.stx_ino = turn.shared().inodes.number_of(&id, place);
    (file.stx_dev_major, file.stx_dev_minor) = DEVICE;
    file.stx_blksize = 4096;
    if is(file, libc::S_IFDIR) {
        file.stx_size = DIRECTORY_BYTES;
        file.stx_nlink = 2;
    }
    file.stx_blocks = file.stx_size.div_ceil(BLOCK_BYTES);
    turn.scheduler().note(file.stx_ino);
}

fn as_stat(file: &Statx) -> Stat {
    // SAFETY: all zeros are valid: integers only.
    let mut old: Stat = unsafe { core::mem::zeroed() };
    old.st_dev = libc::makedev(file.stx_dev_major, file.stx_dev_minor);
    old.st_ino = file.stx_ino;
    old.st_nlink = u64::from(file.stx_nlink);
    old.st_mode = u32::from(file.stx_mode);
    old.st_uid = file.stx_uid;
    old.st_gid = file.stx_gid;
    old.st_rdev = libc::makedev(file.stx_rdev_major, file.stx_rdev_minor);
    old.st_size = file.stx_size as i64;
    old.st_blksize = i64::from(file.stx_blksize);
    old.st_blocks = file.stx_blocks as i64;
    (old.st_atime, old.st_atime_nsec) = (file.stx_atime.tv_sec, file.stx_atime.tv_nsec.into());
    (old.st_mtime, old.st_mtime_nsec) = (file.stx_mtime.tv_sec, file.stx_mtime.tv_nsec.into());
    (old.st_ctime, old.st_ctime_nsec) = (file.stx_ctime.tv_sec, file.stx_ctime.tv_nsec.into());
    old
}

/// Flags for a look at a path: links that the server does not know of are followed.
///
/// # Safety
/// `path` is null or ends with a NUL.
unsafe fn followed(at: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller promises null or a NUL-terminated path.
    if flags & LINK != 0 && path::is_common(at, unsafe { path::bytes_of(path) }) {
        return flags & !LINK;
    }
    flags
}

/// Looks at a file.
///
/// # Safety
/// As `fstatat`: `path` ends with a NUL, `to` has room.
pub(crate) unsafe fn stat_(at: c_int, path: *const c_char, to: *mut Stat, flags: c_int) -> isize {
    let Some(mut turn) = Turn::take(op::FILE) else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(libc::SYS_newfstatat, at, path, to, flags) };
    };
    // SAFETY: the caller promises that `path` ends with a NUL, `to` has room.
    let flags = unsafe { followed(at, path, flags) };
    // SAFETY: the caller's promise: a path, and room for the answer.
    unsafe {
        match ask(at, path, flags, 0) {
            Ok(mut file) => {
                rewrite(&mut turn, &mut file, at, path, flags);
                to.write(as_stat(&file));
                0
            }
            Err(result) => result,
        }
    }
}

/// Looks at a file.
///
/// # Safety
/// As `statx`: `path` ends with a NUL, `to` has room.
pub(crate) unsafe fn statx_(
    at: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    to: *mut Statx,
) -> isize {
    let Some(mut turn) = Turn::take(op::FILE) else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(libc::SYS_statx, at, path, flags, mask, to) };
    };
    // SAFETY: the caller promises that `path` ends with a NUL, `to` has room.
    let flags = unsafe { followed(at, path, flags) };
    // SAFETY: the caller's promise: a path, and room for the answer.
    unsafe {
        match ask(at, path, flags, mask) {
            Ok(mut file) => {
                rewrite(&mut turn, &mut file, at, path, flags);
                // Not every file system has these.
                file.stx_mask &= libc::STATX_BASIC_STATS;
                file.stx_attributes = 0;
                file.stx_attributes_mask = 0;
                to.write(file);
                0
            }
            Err(result) => result,
        }
    }
}

macro_rules! status_hooks {
    ($($name:ident($($arg:ident: $type:ty),*) = $call:ident($($pass:expr),*);)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> c_int {
            // SAFETY: the caller's promise.
            finish(unsafe { $call($($pass),*) }) as c_int
        }
    )* };
}

status_hooks! {
    stat(path: *const c_char, to: *mut Stat) = stat_(HERE, path, to, 0);
    stat64(path: *const c_char, to: *mut Stat) = stat_(HERE, path, to, 0);
    lstat(path: *const c_char, to: *mut Stat) = stat_(HERE, path, to, LINK);
    lstat64(path: *const c_char, to: *mut Stat) = stat_(HERE, path, to, LINK);
    fstat(fd: c_int, to: *mut Stat) = stat_(fd, EMPTY, to, SELF);
    fstat64(fd: c_int, to: *mut Stat) = stat_(fd, EMPTY, to, SELF);
    fstatat(at: c_int, path: *const c_char, to: *mut Stat, flags: c_int)
        = stat_(at, path, to, flags);
    fstatat64(at: c_int, path: *const c_char, to: *mut Stat, flags: c_int)
        = stat_(at, path, to, flags);
    __xstat(_version: c_int, path: *const c_char, to: *mut Stat) = stat_(HERE, path, to, 0);
    __xstat64(_version: c_int, path: *const c_char, to: *mut Stat) = stat_(HERE, path, to, 0);
    __lxstat(_version: c_int, path: *const c_char, to: *mut Stat) = stat_(HERE, path, to, LINK);
    __lxstat64(_version: c_int, path: *const c_char, to: *mut Stat) = stat_(HERE, path, to, LINK);
    __fxstat(_version: c_int, fd: c_int, to: *mut Stat) = stat_(fd, EMPTY, to, SELF);
    __fxstat64(_version: c_int, fd: c_int, to: *mut Stat) = stat_(fd, EMPTY, to, SELF);
    __fxstatat(_version: c_int, at: c_int, path: *const c_char, to: *mut Stat, flags: c_int)
        = stat_(at, path, to, flags);
    __fxstatat64(_version: c_int, at: c_int, path: *const c_char, to: *mut Stat, flags: c_int)
        = stat_(at, path, to, flags);
    statx(at: c_int, path: *const c_char, flags: c_int, mask: c_uint, to: *mut Statx)
        = statx_(at, path, flags, mask, to);
}

// ---- setting times ----

/// A time that a program gives: a moment, or one of the two special values.
pub(crate) fn wanted(time: timespec, now: Time) -> Option<Time> {
    match time.tv_nsec {
        libc::UTIME_NOW => Some(now),
        libc::UTIME_OMIT => None,
        nanoseconds => Some(Time {
            seconds: time.tv_sec,
            nanoseconds: u32::try_from(nanoseconds).ok()?,
        }),
    }
}

/// Sets the modification time; the server does not see access times of their own.
///
/// # Safety
/// `path` is null or ends with a NUL.
unsafe fn utime_(
    at: c_int,
    path: *const c_char,
    given: Option<[timespec; 2]>,
    flags: c_int,
) -> isize {
    let Some(mut turn) = Turn::take(op::FILE) else {
        let pointer = given
            .as_ref()
            .map_or(core::ptr::null(), |given| given.as_ptr());
        // SAFETY: the caller's path, and null or two valid times.
        return unsafe { sys!(libc::SYS_utimensat, at, path, pointer, flags) };
    };
    let now = times::moment(turn.now_ns());
    let times = given.map_or([Some(now); 2], |given| given.map(|time| wanted(time, now)));
    let special = |time: timespec| [libc::UTIME_NOW, libc::UTIME_OMIT].contains(&time.tv_nsec);
    let bad = |time: timespec| !special(time) && !(0..1_000_000_000).contains(&time.tv_nsec);
    if given.is_some_and(|given| given.into_iter().any(bad)) {
        return error(libc::EINVAL);
    }
    let (path, flags) = if path.is_null() {
        (EMPTY, flags | SELF)
    } else {
        (path, flags)
    };
    match times[1] {
        Some(modified) => {
            let stamp = times::stamp(modified);
            // SAFETY: the caller's path.
            unsafe { set_for_real(at, path, flags, stamp, stamp) }
        }
        None => 0,
    }
}

fn of_timeval(time: timeval) -> timespec {
    timespec {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_usec * 1000,
    }
}

/// # Safety
/// `times` is null or points to two times.
unsafe fn of_timevals(times: *const timeval) -> Option<[timespec; 2]> {
    // SAFETY: the caller promises that `times` is null or points to two times.
    (!times.is_null()).then(|| unsafe { [of_timeval(*times), of_timeval(*times.add(1))] })
}

/// # Safety
/// `times` is null or points to two times.
unsafe fn of_timespecs(times: *const timespec) -> Option<[timespec; 2]> {
    // SAFETY: the caller promises that `times` is null or points to two times.
    (!times.is_null()).then(|| unsafe { [*times, *times.add(1)] })
}

/// # Safety
/// `times` is null or points to two times.
unsafe fn of_utimbuf(times: *const libc::utimbuf) -> Option<[timespec; 2]> {
    // SAFETY: the caller promises that `times` is null or points to two times.
    unsafe { times.as_ref() }.map(|times| {
        [times.actime, times.modtime].map(|seconds| timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        })
    })
}

const NO_PATH: *const c_char = core::ptr::null();

status_hooks! {
    utimensat(at: c_int, path: *const c_char, times: *const timespec, flags: c_int)
        = utime_(at, path, of_timespecs(times), flags);
    futimens(fd: c_int, times: *const timespec) = utime_(fd, NO_PATH, of_timespecs(times), 0);
    utimes(path: *const c_char, times: *const timeval) = utime_(HERE, path, of_timevals(times), 0);
    lutimes(path: *const c_char, times: *const timeval)
        = utime_(HERE, path, of_timevals(times), LINK);
    futimes(fd: c_int, times: *const timeval) = utime_(fd, NO_PATH, of_timevals(times), 0);
    futimesat(at: c_int, path: *const c_char, times: *const timeval)
        = utime_(at, path, of_timevals(times), 0);
    utime(path: *const c_char, times: *const libc::utimbuf)
        = utime_(HERE, path, of_utimbuf(times), 0);
}

// ---- the launch ----

/// Notes when the server was started.
pub fn note_launch(turn: &mut Turn) {
    turn.shared().launched = just_now();
    // Made a moment ago, and part of what the server starts with.
    for root in [WORK_DIRECTORY_FD, TEMPORARY_DIRECTORY_FD] {
        // SAFETY: our own descriptors.
        unsafe { set_for_real(root, EMPTY, SELF, times::GENESIS, times::GENESIS) };
    }
}
