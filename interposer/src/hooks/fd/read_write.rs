//! `read`, `write`, `readv` and `writev` on descriptors of any kind.

use super::counter::pause;
use super::iovec::{Vectors, total_len};
use super::object::{is_ours, on_object};
use super::real::{is_nonblocking, on_stream, without_blocking};
use super::signalfd::read_signals;
use crate::hooks::net::recv_send;
use crate::hooks::random;
use crate::hooks::result::error;
use crate::sys::{self, sys};
use crate::turn::{REAL, Turn};
use brolga_dmt::Wakeup;
use brolga_tape::operation as op;
use brolga_vnet::{CounterKind, Object, SocketIx, WaitOn};
use brolga_vsignal::Set;
use core::ffi::{c_int, c_void};
use libc::iovec;

/// Writes all to a real object, as a blocking descriptor does, but waits for room in the scheduler.
///
/// # Safety
/// `from` points to `len` readable bytes.
unsafe fn write_stream(turn: &mut Turn, fd: c_int, from: *const c_void, len: usize) -> isize {
    let raw = |from: *const c_void, len: usize| {
        // SAFETY: within what the caller promises.
        unsafe { sys!(sys::SYS_write, fd, from, len) }
    };
    // A pipe that is ready has room for this much.
    if len <= libc::PIPE_BUF || is_nonblocking(fd) {
        return on_stream(turn, fd, libc::POLLOUT, || raw(from, len));
    }
    let mut done = 0;
    while done < len {
        let put = on_stream(turn, fd, libc::POLLOUT, || {
            without_blocking(fd, || raw(from.wrapping_byte_add(done), len - done))
        });
        if put == error(libc::EAGAIN) {
            if turn.block(REAL, None) != Wakeup::Interrupted {
                continue;
            }
            return if done > 0 {
                done as isize
            } else {
                error(libc::EINTR)
            };
        }
        if put < 0 {
            return if done > 0 { done as isize } else { put };
        }
        done += put.cast_unsigned();
    }
    done as isize
}

/// Writes all of scattered memory to a real object.
///
/// # Safety
/// `vectors` points to `count` vectors of readable bytes.
unsafe fn write_vectors(turn: &mut Turn, fd: c_int, vectors: *const iovec, count: c_int) -> isize {
    // SAFETY: the caller promises that `vectors` points to `count` vectors of readable bytes.
    let Some(total) = (unsafe { total_len(vectors, count) }) else {
        return error(libc::EINVAL);
    };
    if total <= libc::PIPE_BUF {
        return on_stream(turn, fd, libc::POLLOUT, || {
            // SAFETY: the caller's pointer, passed on.
            unsafe { sys!(sys::SYS_writev, fd, vectors, count) }
        });
    }
    let mut done = 0;
    for at in 0..count as usize {
        // SAFETY: the caller promises `count` vectors of readable bytes.
        let put = unsafe {
            let vector = *vectors.add(at);
            write_stream(turn, fd, vector.iov_base, vector.iov_len)
        };
        if put < 0 {
            return if done > 0 { done } else { put };
        }
        done += put;
    }
    done
}

/// Reads from a descriptor of any kind.
///
/// # Safety
/// As `read`: `to` has room for `len` bytes.
pub(crate) unsafe fn read_(fd: c_int, to: *mut c_void, len: usize) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer and length, passed on.
        unsafe { sys!(sys::SYS_read, fd, to, len) }
    };
    on_object(fd, op::READ, raw, |mut turn, object| match object {
        Object::Socket(ix) => {
            if let Some(kind) = turn.shared().net.counter_kind(ix) {
                // SAFETY: the caller promises `len` writable bytes.
                return unsafe { read_counter(&mut turn, ix, kind, to, len) };
            }
            if len == 0 {
                return 0; // Unlike for recv.
            }
            let mut vector = iovec {
                iov_base: to,
                iov_len: len,
            };
            // SAFETY: the caller promises `len` writable bytes.
            unsafe { recv_send::receive(turn, ix, Vectors::one(&mut vector), 0) }
        }
        Object::Stream | Object::Epoll(_) => on_stream(&mut turn, fd, libc::POLLIN, raw),
        Object::Random => {
            // SAFETY: the caller promises `len` writable bytes.
            unsafe { random::fill(&mut turn, to, len) };
            len as isize
        }
    })
}

/// Writes to a descriptor of any kind.
///
/// # Safety
/// As `write`: `from` points to `len` readable bytes.
pub(crate) unsafe fn write_(fd: c_int, from: *const c_void, len: usize) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer and length, passed on.
        unsafe { sys!(sys::SYS_write, fd, from, len) }
    };
    if is_ours(fd) {
        return error(libc::EBADF);
    }
    on_object(fd, op::WRITE, raw, |mut turn, object| match object {
        Object::Socket(ix) => {
            if let Some(kind) = turn.shared().net.counter_kind(ix) {
                // SAFETY: the caller promises `len` readable bytes.
                return unsafe { write_counter(&mut turn, ix, kind, from, len) };
            }
            let mut vector = iovec {
                iov_base: from.cast_mut(),
                iov_len: len,
            };
            // SAFETY: the caller promises `len` readable bytes.
            unsafe { recv_send::transmit(turn, ix, Vectors::one(&mut vector), 0) }
        }
        // SAFETY: the caller promises `len` readable bytes.
        Object::Stream => unsafe { write_stream(&mut turn, fd, from, len) },
        Object::Random | Object::Epoll(_) => raw(),
    })
}

/// Reads into scattered memory.
///
/// # Safety
/// As `readv`: `vectors` points to `count` vectors of writable bytes.
unsafe fn readv_(fd: c_int, vectors: *const iovec, count: c_int) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_readv, fd, vectors, count) }
    };
    on_object(fd, op::READ, raw, |mut turn, object| match object {
        Object::Socket(ix) => {
            // SAFETY: the caller promises `count` vectors of writable bytes.
            unsafe {
                if let Some(kind) = turn.shared().net.counter_kind(ix) {
                    let read = |to, len| read_counter(&mut turn, ix, kind, to, len);
                    return vectored(vectors, count, read);
                }
                match Vectors::new(vectors, count) {
                    Some(vectors) => recv_send::receive(turn, ix, vectors, 0),
                    None => error(libc::EINVAL),
                }
            }
        }
        Object::Stream => on_stream(&mut turn, fd, libc::POLLIN, raw),
        Object::Random | Object::Epoll(_) => raw(),
    })
}

/// Writes from scattered memory.
///
/// # Safety
/// As `writev`: `vectors` points to `count` vectors of readable bytes.
unsafe fn writev_(fd: c_int, vectors: *const iovec, count: c_int) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_writev, fd, vectors, count) }
    };
    on_object(fd, op::WRITE, raw, |mut turn, object| match object {
        Object::Socket(ix) => {
            // SAFETY: the caller promises `count` vectors of readable bytes.
            unsafe {
                if let Some(kind) = turn.shared().net.counter_kind(ix) {
                    let write =
                        |from: *mut c_void, len| write_counter(&mut turn, ix, kind, from, len);
                    return vectored(vectors, count, write);
                }
                match Vectors::new(vectors, count) {
                    Some(vectors) => recv_send::transmit(turn, ix, vectors, 0),
                    None => error(libc::EINVAL),
                }
            }
        }
        Object::Stream if is_nonblocking(fd) => on_stream(&mut turn, fd, libc::POLLOUT, raw),
        // SAFETY: the caller promises `count` vectors of readable bytes.
        Object::Stream => unsafe { write_vectors(&mut turn, fd, vectors, count) },
        Object::Random | Object::Epoll(_) => raw(),
    })
}

hooks! {
    read(fd: c_int, to: *mut c_void, len: usize) = read_(fd, to, len);
    __read(fd: c_int, to: *mut c_void, len: usize) = read_(fd, to, len);
    __read_chk(fd: c_int, to: *mut c_void, len: usize, _room: usize) = read_(fd, to, len);
    write(fd: c_int, from: *const c_void, len: usize) = write_(fd, from, len);
    __write(fd: c_int, from: *const c_void, len: usize) = write_(fd, from, len);
    readv(fd: c_int, vectors: *const iovec, count: c_int) = readv_(fd, vectors, count);
    writev(fd: c_int, vectors: *const iovec, count: c_int) = writev_(fd, vectors, count);
}

const COUNT_BYTES: usize = 8;

/// Reads from a counter.
///
/// # Safety
/// `to` has room for `len` bytes.
pub(crate) unsafe fn read_counter(
    turn: &mut Turn,
    ix: SocketIx,
    kind: CounterKind,
    to: *mut c_void,
    len: usize,
) -> isize {
    if let CounterKind::Signals { mask, .. } = kind {
        // SAFETY: the caller promises that `to` has room for `len` bytes.
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
pub(crate) unsafe fn write_counter(
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
    // SAFETY: the caller promises that `vectors` points to `count` vectors that `each` may be
    // called with.
    match usize::try_from(count) {
        // SAFETY: the caller's promise: at least one vector.
        Ok(1..) => unsafe { each((*vectors).iov_base, (*vectors).iov_len) },
        _ => error(libc::EINVAL),
    }
}
