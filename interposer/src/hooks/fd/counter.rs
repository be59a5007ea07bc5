//! Counters with virtual readiness, the basis of eventfd, timerfd and signalfd.
//!
//! As with sockets, the descriptor is a real one that nobody writes to.

use super::object::name;
use crate::hooks::net::waiting::wait;
use crate::hooks::result::error;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_dmt::Wakeup;
use brolga_vnet::{CounterKind, Object, SocketIx, WaitOn};
use core::ffi::c_int;

/// The real descriptor behind a counter.
fn placeholder(close_on_exec: bool) -> isize {
    let flags = if close_on_exec {
        libc::EFD_CLOEXEC | libc::EFD_NONBLOCK
    } else {
        libc::EFD_NONBLOCK
    };
    // SAFETY: plain integers.
    unsafe { sys!(sys::SYS_eventfd2, 0, flags) }
}

/// Makes a counter and names it; `flags` are `O_CLOEXEC` and `O_NONBLOCK`, whatever the family
/// calls them.
pub(crate) fn make(turn: &mut Turn, kind: CounterKind, count: u64, flags: c_int) -> isize {
    let fd = placeholder(flags & libc::O_CLOEXEC != 0);
    if fd < 0 {
        return fd;
    }
    let Some(ix) = turn.shared().net.make_counter(kind, count) else {
        // SAFETY: our own fresh descriptor.
        unsafe { sys!(sys::SYS_close, fd) };
        return error(libc::EMFILE);
    };
    turn.shared().net.socket_mut(ix).nonblocking = flags & libc::O_NONBLOCK != 0;
    name(turn, fd, Object::Socket(ix))
}

/// Waits for a counter to change, as a call on it does. `Err`: what the call returns instead.
pub(crate) fn pause(turn: &mut Turn, ix: SocketIx, on: WaitOn) -> Result<(), isize> {
    if turn.shared().net.socket(ix).nonblocking {
        return Err(error(libc::EAGAIN));
    }
    match wait(turn, ix, on, None) {
        Wakeup::Interrupted => Err(error(libc::EINTR)),
        _ => Ok(()),
    }
}
