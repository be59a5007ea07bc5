//! Counters with virtual readiness, which eventfd, timerfd and signalfd are made of.
//!
//! As with sockets the descriptor is a real one that nobody writes to.

use super::object::name;
use super::signalfd::read_signals;
use crate::hooks::error;
use crate::hooks::net::socket::wait;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_dmt::Wakeup;
use brolga_vnet::{CounterKind, Object, SocketIx, WaitOn};
use brolga_vsignal::Set;
use core::ffi::{c_int, c_void};
use libc::iovec;

const COUNT_BYTES: usize = 8;

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

/// Makes a counter and names it; `flags` are `O_CLOEXEC` and `O_NONBLOCK`, whatever the family calls
/// them.
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

/// Reads from a counter.
///
/// # Safety
/// `to` has room for `len` bytes.
pub(crate) unsafe fn read(
    turn: &mut Turn,
    ix: SocketIx,
    kind: CounterKind,
    to: *mut c_void,
    len: usize,
) -> isize {
    if let CounterKind::Signals { mask, .. } = kind {
        // SAFETY: the caller's promise.
        return unsafe { read_signals(turn, ix, Set(mask), to.cast(), len) };
    }
    if len < COUNT_BYTES {
        return error(libc::EINVAL);
    }
    loop {
        let (net, mut outside) = turn.net();
        if let Some(count) = net.counter_take(ix, &mut outside) {
            // SAFETY: the caller promises room for `len` bytes.
            unsafe { to.cast::<u64>().write_unaligned(count) };
            turn.scheduler().note(count);
            return COUNT_BYTES as isize;
        }
        if let Err(result) = pause(turn, ix, WaitOn::Readable(ix)) {
            return result;
        }
    }
}

/// Writes to a counter; only an eventfd takes it.
///
/// # Safety
/// `from` points to `len` bytes.
pub(crate) unsafe fn write(
    turn: &mut Turn,
    ix: SocketIx,
    kind: CounterKind,
    from: *const c_void,
    len: usize,
) -> isize {
    if !matches!(kind, CounterKind::Event { .. }) || len < COUNT_BYTES {
        return error(libc::EINVAL);
    }
    // SAFETY: the caller promises `len` bytes.
    let amount = unsafe { from.cast::<u64>().read_unaligned() };
    if amount == u64::MAX {
        return error(libc::EINVAL);
    }
    loop {
        let (net, mut outside) = turn.net();
        if net.counter_add(ix, amount, &mut outside) {
            return COUNT_BYTES as isize;
        }
        if let Err(result) = pause(turn, ix, WaitOn::Writable(ix)) {
            return result;
        }
    }
}

/// Reads or writes a counter through scattered memory.
///
/// # Safety
/// `vectors` points to `count` vectors that `each` may be called with.
pub(crate) unsafe fn vectored(
    vectors: *const iovec,
    count: c_int,
    each: impl FnOnce(*mut c_void, usize) -> isize,
) -> isize {
    // SAFETY: the caller's promise.
    match usize::try_from(count) {
        // SAFETY: the caller's promise: at least one vector.
        Ok(1..) => unsafe { each((*vectors).iov_base, (*vectors).iov_len) },
        _ => error(libc::EINVAL),
    }
}
