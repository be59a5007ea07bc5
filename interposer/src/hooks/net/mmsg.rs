//! Several messages at once: `recvmmsg` and `sendmmsg`.

use super::recv_send::{recvmsg_, sendmsg_};
use crate::hooks::fd::object::object;
use crate::hooks::result::finish;
use crate::nanoseconds;
use crate::sys::sys;
use crate::turn::Turn;
use core::ffi::{c_int, c_uint};
use libc::{mmsghdr, timespec};

/// As many as the kernel takes in one call.
const MESSAGES_MAX: usize = 1024;

/// As with the kernel, a timeout is looked at only when a message has come (recvmmsg(2), BUGS).
///
/// # Safety
/// As `recvmmsg`: `messages` points to `count` valid messages, `timeout` is null or points to a
/// timespec.
unsafe fn recvmmsg_(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> isize {
    // SAFETY: the caller promises that `messages` points to `count` valid messages, `timeout` is
    // null or points to a timespec.
    let wait_ns = unsafe { timeout.as_ref() }.map(nanoseconds::ns_of);
    let deadline = Turn::have().zip(wait_ns);
    let deadline = deadline.map(|(mut turn, ns)| turn.now_ns().saturating_add(ns));
    let mut now = flags & !libc::MSG_WAITFORONE;
    let count = (count as usize).min(MESSAGES_MAX);
    for at in 0..count {
        // SAFETY: the caller promises `count` messages.
        let one = unsafe { &mut *messages.add(at) };
        // SAFETY: the same.
        let got = unsafe { recvmsg_(fd, &raw mut one.msg_hdr, now) };
        if got < 0 {
            return if at > 0 { at as isize } else { got };
        }
        one.msg_len = got as c_uint;
        if flags & libc::MSG_WAITFORONE != 0 {
            now |= libc::MSG_DONTWAIT;
        }
        let late = |mut turn: Turn| deadline.is_some_and(|deadline| turn.now_ns() >= deadline);
        if Turn::have().is_some_and(late) {
            return at as isize + 1;
        }
    }
    count as isize
}

/// Sends one message after the other.
///
/// # Safety
/// As `sendmmsg`: `messages` points to `count` valid messages.
unsafe fn sendmmsg_(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> isize {
    let count = (count as usize).min(MESSAGES_MAX);
    for at in 0..count {
        // SAFETY: the caller promises `count` messages.
        let one = unsafe { &mut *messages.add(at) };
        // SAFETY: the same.
        let sent = unsafe { sendmsg_(fd, &raw const one.msg_hdr, flags) };
        if sent < 0 {
            return if at > 0 { at as isize } else { sent };
        }
        one.msg_len = sent as c_uint;
    }
    count as isize
}

/// Returns whether a call for several messages is ours to take apart.
fn is_known(fd: c_int) -> bool {
    Turn::have().is_some_and(|mut turn| object(&mut turn, fd).is_some())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    // SAFETY: the caller's promise; otherwise its pointers, passed on.
    finish(unsafe {
        if is_known(fd) {
            recvmmsg_(fd, messages, count, flags, timeout)
        } else {
            sys!(libc::SYS_recvmmsg, fd, messages, count, flags, timeout)
        }
    }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's promise; otherwise its pointers, passed on.
    finish(unsafe {
        if is_known(fd) {
            sendmmsg_(fd, messages, count, flags)
        } else {
            sys!(libc::SYS_sendmmsg, fd, messages, count, flags)
        }
    }) as c_int
}
