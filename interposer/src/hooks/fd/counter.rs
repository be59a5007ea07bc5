//! eventfd, timerfd and signalfd: descriptors that count, with virtual readiness.
//!
//! As with sockets the descriptor is a real one that nobody writes to.

use super::descriptor::{name, object};
use crate::hooks::net::socket::wait;
use crate::hooks::signal::action::set_at;
use crate::hooks::{error, op};
use crate::signal_delivery::describe;
use crate::sys::{self, finish, sys};
use crate::turn::Turn;
use brolga_dmt::Wakeup;
use brolga_vnet::{CounterKind, Object, SocketIx, WaitOn};
use brolga_vsignal::{Info, Set};
use core::ffi::{c_int, c_uint, c_void};
use libc::{iovec, signalfd_siginfo, sigset_t};

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
fn pause(turn: &mut Turn, ix: SocketIx, on: WaitOn) -> Result<(), isize> {
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

// ---- eventfd ----

#[unsafe(no_mangle)]
pub extern "C" fn eventfd(value: c_uint, flags: c_int) -> c_int {
    let Some(mut turn) = Turn::take(op::PIPE) else {
        // SAFETY: plain integers.
        return finish(unsafe { sys!(sys::SYS_eventfd2, value, flags) }) as c_int;
    };
    if flags & !(libc::EFD_SEMAPHORE | libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) != 0 {
        return finish(error(libc::EINVAL)) as c_int;
    }
    let kind = CounterKind::Event {
        semaphore: flags & libc::EFD_SEMAPHORE != 0,
    };
    finish(make(&mut turn, kind, u64::from(value), flags)) as c_int
}

// ---- signalfd ----

unsafe fn read_signals(
    turn: &mut Turn,
    ix: SocketIx,
    mask: Set,
    to: *mut signalfd_siginfo,
    len: usize,
) -> isize {
    let room = len / size_of::<signalfd_siginfo>();
    if room == 0 {
        return error(libc::EINVAL);
    }
    loop {
        let (process, me) = (turn.process(), turn.me());
        let mut count = 0;
        while count < room
            && let Some(info) = turn.shared().signals.take_from(process, me, mask)
        {
            // SAFETY: the caller promises room for `len` bytes.
            unsafe { to.add(count).write_unaligned(file_info(&info)) };
            turn.scheduler().note(u64::from(info.signal));
            count += 1;
        }
        turn.refresh_signal_files(process);
        if count > 0 {
            return (count * size_of::<signalfd_siginfo>()) as isize;
        }
        if let Err(result) = pause(turn, ix, WaitOn::Readable(ix)) {
            return result;
        }
    }
}

fn file_info(info: &Info) -> signalfd_siginfo {
    let told = describe(info);
    // SAFETY: all zeros are valid: integers only.
    let mut file: signalfd_siginfo = unsafe { core::mem::zeroed() };
    file.ssi_signo = u32::from(info.signal);
    file.ssi_code = told.si_code;
    file.ssi_pid = info.pid.cast_unsigned();
    file.ssi_status = info.status;
    file.ssi_int = info.value as i32;
    file.ssi_ptr = info.value;
    file
}

unsafe fn signalfd_(fd: c_int, mask: *const sigset_t, flags: c_int) -> isize {
    let Some(mut turn) = Turn::take(op::PIPE) else {
        // SAFETY: the caller's pointer, passed on.
        return unsafe { sys!(libc::SYS_signalfd4, fd, mask, 8, flags) };
    };
    // SAFETY: the caller's promise.
    let Some(mask) = (unsafe { set_at(mask) }) else {
        return error(libc::EFAULT);
    };
    let process = turn.process();
    let kind = CounterKind::Signals {
        process,
        mask: mask.blockable().0,
    };
    let result = if fd == -1 {
        make(&mut turn, kind, 0, flags)
    } else {
        match object(&mut turn, fd) {
            Some(Object::Socket(ix)) if turn.shared().net.counter_kind(ix).is_some() => {
                turn.shared().net.set_counter_kind(ix, kind);
                fd as isize
            }
            _ => error(libc::EINVAL),
        }
    };
    turn.refresh_signal_files(process);
    result
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn signalfd(fd: c_int, mask: *const sigset_t, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { signalfd_(fd, mask, flags) }) as c_int
}
