//! Readiness: `poll` itself, with `epoll` and `select` beside it.
//!
//! Virtual sockets are ready by logical state, real objects of the tree by the kernel's answer with
//! a zero timeout.

pub(crate) mod epoll;
pub(crate) mod select;
pub(crate) mod timeout;

use crate::hooks::fd::object::object;
use crate::hooks::result::finish;
use crate::hooks::signal::mask::with_mask;
use crate::nanoseconds;
use crate::sys::{self, sys};
use crate::turn::{Turn, key_of};
use brolga_dmt::Key;
use brolga_tape::operation as op;
use brolga_vnet::{Object, WaitOn, ready};
use core::ffi::{c_int, c_short};
use libc::{nfds_t, pollfd, sigset_t, timespec};
use timeout::Patience;

/// The events that a descriptor is ready for.
pub(crate) fn ready_now(turn: &mut Turn, fd: c_int, events: c_short) -> c_short {
    if fd < 0 {
        return 0;
    }
    match object(turn, fd) {
        Some(Object::Socket(ix)) => {
            let wanted = events as u32 & 0xFFFF | ready::ERR | ready::HUP;
            (turn.shared().net.readiness(ix) & wanted) as c_short
        }
        Some(Object::Epoll(ix)) if turn.shared().net.epoll_ready(ix) => events & libc::POLLIN,
        _ => {
            let mut one = pollfd {
                fd,
                events,
                revents: 0,
            };
            // SAFETY: one valid pollfd, zero timeout.
            unsafe { sys!(sys::SYS_poll, &raw mut one, 1, 0) };
            one.revents
        }
    }
}

/// The key to wait on: one socket's input if that is all, otherwise any change of one of them.
fn key_for(turn: &mut Turn, fds: &[pollfd]) -> Key {
    if let [one] = fds
        && one.events & libc::POLLOUT == 0
        && let Some(Object::Socket(ix)) = object(turn, one.fd)
    {
        return key_of(WaitOn::Readable(ix));
    }
    for one in fds {
        watch(turn, one.fd);
    }
    key_of(WaitOn::AnySocket)
}

/// A descriptor of a call that is about to wait. Changes of real objects wake all such calls
/// anyway.
pub(crate) fn watch(turn: &mut Turn, fd: c_int) {
    match object(turn, fd) {
        Some(Object::Socket(ix)) => turn.shared().net.watch_socket(ix),
        Some(Object::Epoll(_)) => turn.shared().net.watch_all(),
        _ => {}
    }
}

fn poll_(turn: &mut Turn, fds: &mut [pollfd], patience: Patience) -> isize {
    let look = |turn: &mut Turn, fds: &mut [pollfd]| {
        let mut count = 0;
        for one in fds {
            one.revents = ready_now(turn, one.fd, one.events);
            count += isize::from(one.revents != 0);
        }
        count
    };
    let count = patience.until(turn, fds, look, key_for);
    if count >= 0 {
        turn.scheduler().note(count as u64);
    }
    count
}

/// # Safety
/// `fds` points to `count` descriptions.
unsafe fn poll_slice<'a>(fds: *mut pollfd, count: nfds_t) -> &'a mut [pollfd] {
    if count == 0 {
        return &mut [];
    }
    // SAFETY: the caller promises that `fds` points to `count` descriptions.
    unsafe { core::slice::from_raw_parts_mut(fds, count as usize) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    let Some(mut turn) = Turn::take(op::POLL) else {
        // SAFETY: the caller's pointer, passed on.
        return finish(unsafe { sys!(sys::SYS_poll, fds, count, timeout) }) as c_int;
    };
    let patience = Patience::of_ms(&mut turn, timeout);
    // SAFETY: the caller's promise.
    finish(poll_(
        &mut turn,
        unsafe { poll_slice(fds, count) },
        patience,
    )) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { poll(fds, count, timeout) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __poll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
    _room: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { poll(fds, count, timeout) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let Some(mut turn) = Turn::take(op::POLL) else {
        // SAFETY: the caller's pointers, passed on.
        return finish(unsafe { sys!(sys::SYS_ppoll, fds, count, timeout, mask, 8) }) as c_int;
    };
    // SAFETY: the caller's promise.
    unsafe {
        let patience = Patience::of_ns(&mut turn, timeout.as_ref().map(nanoseconds::ns_of));
        finish(with_mask(&mut turn, mask, |turn| {
            poll_(turn, poll_slice(fds, count), patience)
        })) as c_int
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    _room: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { ppoll(fds, count, timeout, mask) }
}
