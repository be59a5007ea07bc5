//! What files are: the `stat` family and the calls that set times.
//!
//! Identity and times are [`brolga_vfile`]'s; what depends on the file system (block counts, sizes and
//! link counts of directories) is shown as constants.

use super::path;
use crate::hooks::time::clock;
use crate::hooks::{error, op};
use crate::libc_symbols::libc_own;
use crate::sys::{self, finish, sys};
use crate::turn::Turn;
use brolga_tape::handover::{TEMPORARY_DIRECTORY_FD, WORK_DIRECTORY_FD};
use brolga_vfile::numbers::Identity;
use brolga_vfile::times::{self, Seen, Time};
use core::ffi::{c_char, c_int, c_uint};
use core::sync::atomic::{AtomicU64, Ordering};
use libc::{stat as Stat, statx as Statx, timespec, timeval};

/// One device for everything, in the kernel's encoding of 8:1.
const DEVICE: (u32, u32) = (8, 1);
const BLOCK_BYTES: u64 = 512;
const DIRECTORY_BYTES: u64 = 4096;
const EMPTY: *const c_char = c"".as_ptr();
/// In a container, what is bound into it.
const OWN: &[u8] = b"/.brolga/";

fn time_of(time: &libc::statx_timestamp) -> Time {
    Time {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec,
    }
}

fn set_time(to: &mut libc::statx_timestamp, time: Time) {
    to.tv_sec = time.seconds;
    to.tv_nsec = time.nanoseconds;
}

fn is(file: &Statx, kind: u32) -> bool {
    u32::from(file.stx_mode) & libc::S_IFMT == kind
}

/// The kernel's answer, with all that we need.
unsafe fn ask(at: c_int, path: *const c_char, flags: c_int, mask: u32) -> Result<Statx, isize> {
    let mut file = core::mem::MaybeUninit::<Statx>::uninit();
    let wanted = mask | libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    // SAFETY: the caller's path, and room for the answer.
    let result = unsafe { sys!(libc::SYS_statx, at, path, flags, wanted, file.as_mut_ptr()) };
    if result < 0 {
        return Err(result);
    }
    // SAFETY: the kernel has just filled it.
    Ok(unsafe { file.assume_init() })
}

fn identity_of(file: &Statx) -> Identity {
    Identity {
        device: u64::from(file.stx_dev_major) << 32 | u64::from(file.stx_dev_minor),
        inode: file.stx_ino,
        born: if file.stx_mask & libc::STATX_BTIME != 0 {
            time_of(&file.stx_btime)
        } else {
            Time::default()
        },
    }
}

/// The device of files below /proc, in identities. The kernel numbers those anew whenever it has
/// forgotten them, as it does when memory is short, so they are known by their place.
const PROC: u64 = u64::MAX;
const PROC_PLACE_BYTES: usize = 256;

/// What the kernel calls that device, and in which life of the tree it was asked; that counts from 1.
static PROC_DEVICE: AtomicU64 = AtomicU64::new(0);
static PROC_ASKED: AtomicU64 = AtomicU64::new(0);

/// Whether a file is below /proc. Under the turn.
fn is_in_proc(turn: &mut Turn, identity: &Identity) -> bool {
    // Only devices that are none have such numbers.
    if identity.device >> 32 != 0 {
        return false;
    }
    let life = turn.shared().generation + 1;
    if PROC_ASKED.load(Ordering::Relaxed) != life {
        // SAFETY: a NUL-terminated path.
        let top = unsafe { ask(HERE, c"/proc".as_ptr(), 0, 0) };
        let device = top.map_or(PROC, |top| identity_of(&top).device);
        PROC_DEVICE.store(device, Ordering::Relaxed);
        PROC_ASKED.store(life, Ordering::Relaxed);
    }
    PROC_DEVICE.load(Ordering::Relaxed) == identity.device
}

/// What a file is known by as long as the tree lives.
fn lasting(turn: &mut Turn, file: &Statx, place: impl FnOnce(&mut [u8]) -> usize) -> Identity {
    let identity = identity_of(file);
    if !is_in_proc(turn, &identity) {
        return identity;
    }
    let mut room = [0; PROC_PLACE_BYTES];
    let bytes = place(&mut room);
    if bytes == 0 {
        return identity;
    }
    // FNV-1a.
    let inode = room[..bytes]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    Identity {
        device: PROC,
        inode,
        born: Time::default(),
    }
}

/// A file is known by its place, which is the same in every life.
pub(crate) fn is_known_by_place(identity: &Identity) -> bool {
    identity.device == PROC
}

/// What the kernel calls the file at an absolute path, given with its NUL.
pub(crate) fn identity_at(path: &[u8]) -> Option<Identity> {
    if path.last() != Some(&0) {
        return None;
    }
    // SAFETY: it ends with a NUL.
    let file = unsafe { ask(HERE, path.as_ptr().cast(), LINK, 0) };
    file.ok().as_ref().map(identity_of)
}

/// The number by which the server knows an open file.
pub(crate) fn number_of(turn: &mut Turn, fd: isize) -> Option<u64> {
    // SAFETY: a NUL-terminated path.
    let file = unsafe { ask(fd as c_int, EMPTY, SELF, 0) }.ok()?;
    let place = |room: &mut [u8]| read_place(fd as c_int, room);
    let identity = lasting(turn, &file, place);
    Some(turn.shared().numbers.of(&identity, place))
}

/// Writes where a file is, without links on the way; 0 bytes if it is nowhere or there is no room.
unsafe fn write_place(at: c_int, path: *const c_char, flags: c_int, room: &mut [u8]) -> usize {
    // SAFETY: the caller promises null or a NUL-terminated path.
    if flags & SELF != 0 && at >= 0 && unsafe { path::bytes_of(path) }.is_empty() {
        return read_place(at, room);
    }
    let link = if flags & LINK != 0 {
        libc::O_NOFOLLOW
    } else {
        0
    };
    let open = libc::O_PATH | libc::O_CLOEXEC | link;
    // SAFETY: the caller's path.
    let fd = unsafe { sys!(sys::SYS_openat, at, path, open, 0) };
    if fd < 0 {
        return 0;
    }
    let bytes = read_place(fd as c_int, room);
    // SAFETY: our own descriptor.
    unsafe { sys!(sys::SYS_close, fd) };
    bytes
}

fn read_place(fd: c_int, room: &mut [u8]) -> usize {
    const FOLDER: &[u8] = b"/proc/thread-self/fd/";
    let mut path = [0; FOLDER.len() + 11];
    path[..FOLDER.len()].copy_from_slice(FOLDER);
    let (mut left, mut digits) = (fd.unsigned_abs(), 1);
    while 10u32.pow(digits) <= left {
        digits += 1;
    }
    for place in path[FOLDER.len()..][..digits as usize].iter_mut().rev() {
        *place = b'0' + (left % 10) as u8;
        left /= 10;
    }
    let (here, from) = (HERE, path.as_ptr());
    // SAFETY: a NUL-terminated path, and room for as much as said.
    let bytes = unsafe {
        sys!(
            libc::SYS_readlinkat,
            here,
            from,
            room.as_mut_ptr(),
            room.len()
        )
    };
    match usize::try_from(bytes) {
        // What fills all of it may be cut off; pipes and the like are nowhere. The server's own files
        // are in its image, with their numbers.
        Ok(bytes) if bytes < room.len() && room.starts_with(b"/") => {
            if room.starts_with(OWN) {
                0
            } else {
                bytes
            }
        }
        _ => 0,
    }
}

/// The modification time as the server sees it. A file that has changed is stamped.
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
unsafe fn rewrite(turn: &mut Turn, file: &mut Statx, at: c_int, path: *const c_char, flags: c_int) {
    // SAFETY: the caller's promise.
    let place = |room: &mut [u8]| unsafe { write_place(at, path, flags, room) };
    let identity = lasting(turn, file, place);
    let kept = is(file, libc::S_IFREG) || is(file, libc::S_IFDIR);
    let time = if kept {
        // SAFETY: the caller's promise.
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
    file.stx_ino = turn.shared().numbers.of(&identity, place);
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
unsafe fn followed(at: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller promises null or a NUL-terminated path.
    if flags & LINK != 0 && path::is_common(at, unsafe { path::bytes_of(path) }) {
        return flags & !LINK;
    }
    flags
}

pub(crate) unsafe fn stat_(at: c_int, path: *const c_char, to: *mut Stat, flags: c_int) -> isize {
    let Some(mut turn) = Turn::take(op::FILE) else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(libc::SYS_newfstatat, at, path, to, flags) };
    };
    // SAFETY: the caller's promise.
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
    // SAFETY: the caller's promise.
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

const HERE: c_int = libc::AT_FDCWD;
const LINK: c_int = libc::AT_SYMLINK_NOFOLLOW;
const SELF: c_int = libc::AT_EMPTY_PATH;

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
fn wanted(time: timespec, now: Time) -> Option<Time> {
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
    // SAFETY: the caller's promise.
    (!times.is_null()).then(|| unsafe { [of_timeval(*times), of_timeval(*times.add(1))] })
}

/// # Safety
/// `times` is null or points to two times.
unsafe fn of_timespecs(times: *const timespec) -> Option<[timespec; 2]> {
    // SAFETY: the caller's promise.
    (!times.is_null()).then(|| unsafe { [*times, *times.add(1)] })
}

/// # Safety
/// `times` is null or points to two times.
unsafe fn of_utimbuf(times: *const libc::utimbuf) -> Option<[timespec; 2]> {
    // SAFETY: the caller's promise.
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

// ---- file systems ----

/// How full the disk is, and what it is, is the replica's own affair.
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

/// A moment before now, by the clock of file systems, which lags by a timer tick.
fn just_now() -> Time {
    const LAG_NS: u64 = 100_000_000;
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: room for a time.
    unsafe { sys!(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, &raw mut now) };
    times::moment(clock::ns_of(&now) - LAG_NS)
}

/// The server goes on here and now: on a machine whose clock is behind that of the one where it was
/// started, what it changes from now on looks older than the server.
pub fn note_return(launched: &mut Time) {
    *launched = just_now().min(*launched);
}

/// Notes when the server was started.
pub fn note_launch(turn: &mut Turn) {
    turn.shared().launched = just_now();
    // Made a moment ago, and part of what the server starts with.
    for root in [WORK_DIRECTORY_FD, TEMPORARY_DIRECTORY_FD] {
        // SAFETY: our own descriptors.
        unsafe { set_for_real(root, EMPTY, SELF, times::GENESIS, times::GENESIS) };
    }
}
