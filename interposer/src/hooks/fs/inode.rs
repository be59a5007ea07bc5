//! Inode and device numbers: virtual ones, given in the order of the first look.

use super::path;
use crate::statx::{EMPTY, HERE, LINK, PROC, SELF, ask, id_of};
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_vfile::inodes::FileId;
use brolga_vfile::times::Time;
use core::ffi::{c_char, c_int};
use core::sync::atomic::{AtomicU64, Ordering};
use libc::statx as Statx;
const PROC_PLACE_BYTES: usize = 256;

/// The kernel's number of that device, and the life of the tree in which it was asked, counted from
/// 1.
static PROC_DEVICE: AtomicU64 = AtomicU64::new(0);
static PROC_ASKED: AtomicU64 = AtomicU64::new(0);

/// Returns whether a file is below /proc. Under the turn.
fn is_in_proc(turn: &mut Turn, id: &FileId) -> bool {
    // Only devices that are none have such numbers.
    if id.device >> 32 != 0 {
        return false;
    }
    let life = turn.shared().generation + 1;
    if PROC_ASKED.load(Ordering::Relaxed) != life {
        // SAFETY: a NUL-terminated path.
        let top = unsafe { ask(HERE, c"/proc".as_ptr(), 0, 0) };
        let device = top.map_or(PROC, |top| id_of(&top).device);
        PROC_DEVICE.store(device, Ordering::Relaxed);
        PROC_ASKED.store(life, Ordering::Relaxed);
    }
    PROC_DEVICE.load(Ordering::Relaxed) == id.device
}

/// The identity of a file for as long as the tree lives.
pub(crate) fn lasting(
    turn: &mut Turn,
    file: &Statx,
    place: impl FnOnce(&mut [u8]) -> usize,
) -> FileId {
    let id = id_of(file);
    if !is_in_proc(turn, &id) {
        return id;
    }
    let mut room = [0; PROC_PLACE_BYTES];
    let bytes = place(&mut room);
    if bytes == 0 {
        return id;
    }
    // FNV-1a.
    let inode = room[..bytes]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    FileId {
        device: PROC,
        inode,
        born: Time::default(),
    }
}

/// The number by which the server knows an open file.
pub(crate) fn number_of(turn: &mut Turn, fd: isize) -> Option<u64> {
    // SAFETY: a NUL-terminated path.
    let file = unsafe { ask(fd as c_int, EMPTY, SELF, 0) }.ok()?;
    let place = |room: &mut [u8]| read_path(fd as c_int, room);
    let id = lasting(turn, &file, place);
    Some(turn.shared().inodes.number_of(&id, place))
}

/// Writes where a file is, without links on the way; 0 bytes if it is nowhere or there is no room.
///
/// # Safety
/// `path` is null or ends with a NUL.
pub(crate) unsafe fn write_path(
    at: c_int,
    path: *const c_char,
    flags: c_int,
    room: &mut [u8],
) -> usize {
    // SAFETY: the caller promises null or a NUL-terminated path.
    if flags & SELF != 0 && at >= 0 && unsafe { path::bytes_of(path) }.is_empty() {
        return read_path(at, room);
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
    let bytes = read_path(fd as c_int, room);
    // SAFETY: our own descriptor.
    unsafe { sys!(sys::SYS_close, fd) };
    bytes
}

fn read_path(fd: c_int, room: &mut [u8]) -> usize {
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
        // What fills all of it may be cut off; pipes and the like are nowhere. The server's own
        // files are in its image, with their numbers.
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
/// In a container, what is bound into it.
pub(crate) const OWN: &[u8] = b"/.brolga/";
