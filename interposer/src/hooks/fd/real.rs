//! Real objects inside the tree ([`Object::Stream`](brolga_vnet::Object::Stream)): pipes, FIFOs,
//! UNIX sockets.
//!
//! The kernel reads and writes them, but never so that it blocks: if it would, the thread waits in
//! the scheduler until a real object has changed.

use crate::hooks::result::error;
use crate::sys::{self, sys};
use crate::turn::{REAL, Turn};
use brolga_dmt::Wakeup;
use core::ffi::{c_int, c_short};

/// Returns whether calls on a descriptor never block, or it is none.
pub(crate) fn is_nonblocking(fd: c_int) -> bool {
    // SAFETY: F_GETFL takes no pointer.
    let flags = unsafe { sys!(sys::SYS_fcntl, fd, libc::F_GETFL) };
    flags < 0 || flags as c_int & libc::O_NONBLOCK != 0
}

/// Returns whether a descriptor is ready for one of the events now.
pub(crate) fn is_ready(fd: c_int, events: c_short) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one valid pollfd.
    unsafe { sys!(sys::SYS_poll, &raw mut poll, 1, 0) != 0 }
}

/// Runs a call on a real object once it can't block, then has everybody look at real objects again.
pub(crate) fn on_stream(
    turn: &mut Turn,
    fd: c_int,
    events: c_short,
    mut call: impl FnMut() -> isize,
) -> isize {
    if !is_nonblocking(fd) {
        while !is_ready(fd, events) {
            if turn.block(REAL, None) == Wakeup::Interrupted {
                return error(libc::EINTR);
            }
        }
    }
    let result = call();
    if result >= 0 {
        turn.real_changed();
    } else if result == error(libc::EPIPE) && events == libc::POLLOUT {
        turn.raise_sigpipe();
    }
    result
}

/// Runs a call that must not block, on a descriptor that would let it. Nobody else sees the flag,
/// since we have the turn.
pub(crate) fn without_blocking(fd: c_int, call: impl FnOnce() -> isize) -> isize {
    // SAFETY: F_GETFL and F_SETFL take no pointer.
    unsafe {
        let flags = sys!(sys::SYS_fcntl, fd, libc::F_GETFL);
        if flags < 0 {
            return flags;
        }
        let nonblocking = flags as c_int | libc::O_NONBLOCK;
        sys!(sys::SYS_fcntl, fd, libc::F_SETFL, nonblocking);
        let result = call();
        sys!(sys::SYS_fcntl, fd, libc::F_SETFL, flags);
        result
    }
}
