//! Randomness: one stream for the whole process tree, seeded by the cluster.

use crate::hooks::result::{error, finish};
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use core::ffi::{c_int, c_uint, c_void};
use rand_chacha::rand_core::RngCore;

/// Fills memory from the tree's random stream.
///
/// # Safety
/// `to` points to `len` writable bytes.
pub(crate) unsafe fn fill(turn: &mut Turn, to: *mut c_void, len: usize) {
    // SAFETY: the caller promises that `to` points to `len` writable bytes.
    let bytes = unsafe { core::slice::from_raw_parts_mut(to.cast::<u8>(), len) };
    turn.shared().random().fill_bytes(bytes);
}

/// The getrandom call.
///
/// # Safety
/// As the call itself.
pub(crate) unsafe fn getrandom_(to: *mut c_void, len: usize, flags: c_uint) -> isize {
    let Some(mut turn) = Turn::take(op::RANDOM) else {
        // SAFETY: the caller's pointer, passed on.
        return unsafe { sys!(libc::SYS_getrandom, to, len, flags) };
    };
    if len > isize::MAX as usize || (to.is_null() && len > 0) {
        return error(libc::EFAULT);
    }
    if len > 0 {
        // SAFETY: the caller promises `len` bytes.
        unsafe { fill(&mut turn, to, len) };
    }
    len as isize
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(to: *mut c_void, len: usize, flags: c_uint) -> isize {
    // SAFETY: the caller's promise.
    finish(unsafe { getrandom_(to, len, flags) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getentropy(to: *mut c_void, len: usize) -> c_int {
    if len > 256 {
        return finish(error(libc::EIO)) as c_int;
    }
    // SAFETY: the caller's promise.
    let got = finish(unsafe { getrandom_(to, len, 0) });
    if got < 0 { -1 } else { 0 }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn arc4random_buf(to: *mut c_void, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { getrandom_(to, len, 0) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn arc4random() -> u32 {
    let mut value = 0u32;
    // SAFETY: four bytes of our own.
    unsafe { getrandom_((&raw mut value).cast(), 4, 0) };
    value
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn arc4random_uniform(bound: u32) -> u32 {
    let mut value = 0u64;
    // SAFETY: eight bytes of our own.
    unsafe { getrandom_((&raw mut value).cast(), 8, 0) };
    // 64 bits over at most 32: the bias is below 2^-32.
    if bound < 2 {
        0
    } else {
        (value % u64::from(bound)) as u32
    }
}

/// Bytes given to a reader of a random device that reads through stdio, whose reads we don't see.
const DEVICE_FILE_BYTES: usize = 64 * 1024;

/// Opens a random device: a memory file full of the stream. Reads through the descriptor never get
/// to it, see [`brolga_vnet::Object::Random`].
pub(crate) fn open_device(turn: &mut Turn, flags: c_int) -> isize {
    let close_on_exec = if flags & libc::O_CLOEXEC != 0 {
        libc::MFD_CLOEXEC
    } else {
        0
    };
    // SAFETY: a NUL-terminated name.
    let fd = unsafe { sys!(sys::SYS_memfd_create, c"random".as_ptr(), close_on_exec) };
    if fd < 0 {
        return fd;
    }
    let mut block = [0u8; 4096];
    for _ in 0..DEVICE_FILE_BYTES / block.len() {
        turn.shared().random().fill_bytes(&mut block);
        // SAFETY: pointer and length of our own block.
        unsafe { sys!(sys::SYS_write, fd, block.as_ptr(), block.len()) };
    }
    // SAFETY: plain integers.
    unsafe { sys!(sys::SYS_lseek, fd, 0, libc::SEEK_SET) };
    let process = turn.process();
    // Out of range only means that the memory file itself is read.
    let _named = turn
        .shared()
        .net
        .set_object(process, fd as c_int, brolga_vnet::Object::Random);
    fd
}
