//! Descriptors of any kind: reading, writing, closing, duplicating, flags; pipes and eventfds.
//!
//! A real object inside the tree ([`Object::Stream`]) is read and written by the kernel, but never so
//! that it blocks: if it would, the thread waits in the scheduler until something real has changed.

use super::iovec::{Vectors, total_len};
use super::{counter, lock};
use crate::hooks::net::{netif, socket};
use crate::hooks::signal::action;
use crate::hooks::stdio::stream;
use crate::hooks::{error, op, random};
use crate::sys::{self, finish, sys};
use crate::turn::{REAL, Turn, is_active};
use brolga_dmt::Wakeup;
use brolga_tape::handover::{FIRST_FD, LAST_FD};
use brolga_vnet::Object;
use core::ffi::{c_int, c_long, c_short, c_uint, c_void};
use libc::iovec;

/// What a descriptor of this process names.
pub(crate) fn object(turn: &mut Turn, fd: c_int) -> Option<Object> {
    let process = turn.process();
    turn.shared().net.object(process, fd)
}

/// Names an object by a fresh descriptor. Out of range: closes it again.
pub(crate) fn name(turn: &mut Turn, fd: isize, object: Object) -> isize {
    let process = turn.process();
    if turn.shared().net.set_object(process, fd as c_int, object) {
        return fd;
    }
    // SAFETY: our own fresh descriptor.
    unsafe { sys!(sys::SYS_close, fd) };
    error(libc::EMFILE)
}

fn is_ours(fd: c_int) -> bool {
    (FIRST_FD..=LAST_FD).contains(&fd)
}

// ---- real objects that can block ----

pub(crate) fn is_nonblocking(fd: c_int) -> bool {
    // SAFETY: F_GETFL takes no pointer.
    let flags = unsafe { sys!(sys::SYS_fcntl, fd, libc::F_GETFL) };
    flags < 0 || flags as c_int & libc::O_NONBLOCK != 0
}

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
        action::raise_sigpipe(turn);
    }
    result
}

/// Runs a call that must not block, on a descriptor that would let it. Nobody else sees the flag, since
/// we have the turn.
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

/// The same for scattered memory.
///
/// # Safety
/// `vectors` points to `count` vectors of readable bytes.
unsafe fn write_vectors(turn: &mut Turn, fd: c_int, vectors: *const iovec, count: c_int) -> isize {
    // SAFETY: the caller's promise.
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

// ---- read and write ----

pub(crate) unsafe fn read_(fd: c_int, to: *mut c_void, len: usize) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer and length, passed on.
        unsafe { sys!(sys::SYS_read, fd, to, len) }
    };
    let Some(mut turn) = Turn::take(op::READ) else {
        return raw();
    };
    match object(&mut turn, fd) {
        None => raw(),
        Some(Object::Socket(ix)) => {
            if let Some(kind) = turn.shared().net.counter_kind(ix) {
                // SAFETY: the caller promises `len` writable bytes.
                return unsafe { counter::read(&mut turn, ix, kind, to, len) };
            }
            if len == 0 {
                return 0; // Unlike for recv.
            }
            let mut vector = iovec {
                iov_base: to,
                iov_len: len,
            };
            // SAFETY: the caller promises `len` writable bytes.
            unsafe { socket::receive(turn, ix, Vectors::one(&mut vector), 0) }
        }
        Some(Object::Stream | Object::Epoll(_)) => on_stream(&mut turn, fd, libc::POLLIN, raw),
        Some(Object::Random) => {
            // SAFETY: the caller promises `len` writable bytes.
            unsafe { random::fill(&mut turn, to, len) };
            len as isize
        }
    }
}

pub(crate) unsafe fn write_(fd: c_int, from: *const c_void, len: usize) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer and length, passed on.
        unsafe { sys!(sys::SYS_write, fd, from, len) }
    };
    if is_ours(fd) {
        return error(libc::EBADF);
    }
    let Some(mut turn) = Turn::take(op::WRITE) else {
        return raw();
    };
    match object(&mut turn, fd) {
        Some(Object::Socket(ix)) => {
            if let Some(kind) = turn.shared().net.counter_kind(ix) {
                // SAFETY: the caller promises `len` readable bytes.
                return unsafe { counter::write(&mut turn, ix, kind, from, len) };
            }
            let mut vector = iovec {
                iov_base: from.cast_mut(),
                iov_len: len,
            };
            // SAFETY: the caller promises `len` readable bytes.
            unsafe { socket::transmit(turn, ix, Vectors::one(&mut vector), 0) }
        }
        // SAFETY: the caller promises `len` readable bytes.
        Some(Object::Stream) => unsafe { write_stream(&mut turn, fd, from, len) },
        None | Some(Object::Random | Object::Epoll(_)) => raw(),
    }
}

unsafe fn readv_(fd: c_int, vectors: *const iovec, count: c_int) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_readv, fd, vectors, count) }
    };
    let Some(mut turn) = Turn::take(op::READ) else {
        return raw();
    };
    match object(&mut turn, fd) {
        Some(Object::Socket(ix)) => {
            // SAFETY: the caller promises `count` vectors of writable bytes.
            unsafe {
                if let Some(kind) = turn.shared().net.counter_kind(ix) {
                    let read = |to, len| counter::read(&mut turn, ix, kind, to, len);
                    return counter::vectored(vectors, count, read);
                }
                match Vectors::new(vectors, count) {
                    Some(vectors) => socket::receive(turn, ix, vectors, 0),
                    None => error(libc::EINVAL),
                }
            }
        }
        Some(Object::Stream) => on_stream(&mut turn, fd, libc::POLLIN, raw),
        None | Some(Object::Random | Object::Epoll(_)) => raw(),
    }
}

unsafe fn writev_(fd: c_int, vectors: *const iovec, count: c_int) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_writev, fd, vectors, count) }
    };
    let Some(mut turn) = Turn::take(op::WRITE) else {
        return raw();
    };
    match object(&mut turn, fd) {
        Some(Object::Socket(ix)) => {
            // SAFETY: the caller promises `count` vectors of readable bytes.
            unsafe {
                if let Some(kind) = turn.shared().net.counter_kind(ix) {
                    let write =
                        |from: *mut c_void, len| counter::write(&mut turn, ix, kind, from, len);
                    return counter::vectored(vectors, count, write);
                }
                match Vectors::new(vectors, count) {
                    Some(vectors) => socket::transmit(turn, ix, vectors, 0),
                    None => error(libc::EINVAL),
                }
            }
        }
        Some(Object::Stream) if is_nonblocking(fd) => on_stream(&mut turn, fd, libc::POLLOUT, raw),
        // SAFETY: the caller promises `count` vectors of readable bytes.
        Some(Object::Stream) => unsafe { write_vectors(&mut turn, fd, vectors, count) },
        None | Some(Object::Random | Object::Epoll(_)) => raw(),
    }
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

// ---- close and duplicate ----

pub(crate) fn close_(fd: c_int) -> isize {
    if is_ours(fd) {
        return error(libc::EBADF);
    }
    let Some(mut turn) = Turn::take(op::CLOSE) else {
        // SAFETY: a plain integer.
        return unsafe { sys!(sys::SYS_close, fd) };
    };
    let known = object(&mut turn, fd);
    if known.is_some() {
        forget(&mut turn, fd);
    }
    // SAFETY: a plain integer.
    let result = unsafe { sys!(sys::SYS_close, fd) };
    if known == Some(Object::Stream) {
        turn.real_changed();
    }
    lock::released(&mut turn);
    result
}

fn forget(turn: &mut Turn, fd: c_int) {
    let process = turn.process();
    let (net, mut outside) = turn.net();
    net.clear_object(process, fd, &mut outside);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    finish(close_(fd)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __close(fd: c_int) -> c_int {
    finish(close_(fd)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    if !Turn::is_scheduled() {
        // SAFETY: plain integers.
        return finish(unsafe { sys!(sys::SYS_close_range, first, last, flags) }) as c_int;
    }
    if flags != 0 {
        // Closing later, at exec: what is open then is looked at then.
        return finish(close_range_around(first, last, flags)) as c_int;
    }
    let last = last.min(brolga_vnet::FDS_MAX as c_uint);
    for fd in first..=last {
        close_(fd as c_int);
    }
    0
}

/// Closes all but our own, for a process that has ended for the tree.
pub(crate) fn close_all() {
    close_range_around(0, c_uint::MAX, 0);
}

/// The kernel's close_range on both sides of our own descriptors.
fn close_range_around(first: c_uint, last: c_uint, flags: c_int) -> isize {
    let (ours, ours_end) = (FIRST_FD as c_uint, LAST_FD as c_uint);
    // SAFETY: plain integers.
    unsafe {
        if first < ours {
            sys!(sys::SYS_close_range, first, last.min(ours - 1), flags);
        }
        if last > ours_end {
            sys!(sys::SYS_close_range, first.max(ours_end + 1), last, flags);
        }
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn closefrom(first: c_int) {
    // SAFETY: plain integers.
    unsafe { close_range(first.max(0) as c_uint, c_uint::MAX, 0) };
}

/// After a kernel call that made `new` out of `old`.
fn duplicated(old: c_int, new: isize) -> isize {
    let Some(mut turn) = Turn::have() else {
        return new;
    };
    if new < 0 || new == old as isize {
        return new;
    }
    let replaced = object(&mut turn, new as c_int);
    if replaced.is_some() {
        forget(&mut turn, new as c_int);
    }
    if replaced == Some(Object::Stream) {
        turn.real_changed();
    }
    lock::released(&mut turn);
    match object(&mut turn, old) {
        Some(object) => {
            let named = name(&mut turn, new, object);
            stream::adopt(&mut turn, new as c_int);
            named
        }
        None => new,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup(old: c_int) -> c_int {
    let _turn = Turn::take(op::DUP);
    // SAFETY: a plain integer.
    finish(duplicated(old, unsafe { sys!(sys::SYS_dup, old) })) as c_int
}

pub(crate) fn dup2_(old: c_int, new: c_int) -> isize {
    let _turn = Turn::take(op::DUP);
    if is_ours(new) {
        return error(libc::EBADF);
    }
    // SAFETY: plain integers.
    duplicated(old, unsafe { sys!(sys::SYS_dup2, old, new) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    finish(dup2_(old, new)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    let _turn = Turn::take(op::DUP);
    if is_ours(new) {
        return finish(error(libc::EBADF)) as c_int;
    }
    // SAFETY: plain integers.
    finish(duplicated(old, unsafe {
        sys!(sys::SYS_dup3, old, new, flags)
    })) as c_int
}

/// What would have the kernel send SIGIO at moments of its own: accepted, and nothing comes of it.
/// Programs that ask for it look at the descriptor by other means as well.
fn asks_for_sigio(command: c_int) -> bool {
    const SETSIG: c_int = 10;
    const GETSIG: c_int = 11;
    const SETOWN_EX: c_int = 15;
    [libc::F_SETOWN, libc::F_GETOWN, SETSIG, GETSIG, SETOWN_EX].contains(&command)
}

pub(crate) fn fcntl_(fd: c_int, command: c_int, mut argument: usize) -> isize {
    // Programs that mark all descriptors to be closed at exec must not lose us.
    if is_ours(fd) && is_active() {
        return error(libc::EBADF);
    }
    // SAFETY: the argument is what the caller's command wants.
    if let Some(result) = unsafe { lock::control(fd, command, argument) } {
        return result;
    }
    let turn = Turn::take(op::DUP);
    if turn.is_some() && asks_for_sigio(command) {
        return 0;
    }
    if turn.is_some() && command == libc::F_SETFL {
        argument &= !(libc::O_ASYNC as usize);
    }
    // SAFETY: the caller's argument, passed on.
    let result = unsafe { sys!(sys::SYS_fcntl, fd, command, argument) };
    let Some(mut turn) = turn else { return result };
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => duplicated(fd, result),
        libc::F_SETFL if result == 0 => {
            if let Some(Object::Socket(ix)) = object(&mut turn, fd) {
                let nonblocking = argument as c_int & libc::O_NONBLOCK != 0;
                turn.shared().net.socket_mut(ix).nonblocking = nonblocking;
            }
            result
        }
        _ => result,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    finish(fcntl_(fd, command, argument)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    finish(fcntl_(fd, command, argument)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    finish(fcntl_(fd, command, argument)) as c_int
}

/// Whether the next byte is the one out of band; `<asm/sockios.h>`.
pub(crate) const SIOCATMARK: libc::c_ulong = 0x8905;

unsafe fn ioctl_(fd: c_int, request: libc::c_ulong, argument: *mut c_int) -> isize {
    const FIOASYNC: libc::c_ulong = 0x5452;
    const SIOCOUTQNSD: libc::c_ulong = 0x894B;
    if request == FIOASYNC && Turn::is_scheduled() {
        return 0; // As for fcntl.
    }
    // SAFETY: the caller promises an argument that fits the request.
    if let Some(result) = unsafe { netif::control(request, argument.cast()) } {
        return result;
    }
    let mut turn = Turn::take(op::OPTION);
    if let Some(turn) = &mut turn
        && let Some(Object::Socket(ix)) = object(turn, fd)
    {
        let net = &mut turn.shared().net;
        let answer = match request {
            libc::FIONREAD => Some(net.unread(ix)),
            libc::TIOCOUTQ | SIOCOUTQNSD => Some(net.unsent(ix)),
            SIOCATMARK => Some(0),
            _ => None,
        };
        if let Some(answer) = answer {
            // SAFETY: the caller promises room for an int.
            unsafe { argument.write(c_int::try_from(answer).unwrap_or(c_int::MAX)) };
            return 0;
        }
        if request == libc::FIONBIO {
            // SAFETY: the caller promises an int.
            net.socket_mut(ix).nonblocking = unsafe { *argument } != 0;
        }
    }
    // SAFETY: the caller's argument, passed on.
    unsafe { sys!(sys::SYS_ioctl, fd, request, argument) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: libc::c_ulong, argument: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { ioctl_(fd, request, argument) }) as c_int
}

// ---- pipes, eventfds, socket pairs ----

unsafe fn pair(result: isize, fds: *mut c_int) -> isize {
    if result < 0 {
        return result;
    }
    if let Some(mut turn) = Turn::have() {
        for at in 0..2 {
            // SAFETY: the kernel has just filled both.
            let fd = unsafe { *fds.add(at) };
            let named = name(&mut turn, fd as isize, Object::Stream);
            if named < 0 {
                return named;
            }
        }
    }
    0
}

/// # Safety
/// `fds` has room for two.
pub(crate) unsafe fn pipe2_(fds: *mut c_int, flags: c_int) -> isize {
    let _turn = Turn::take(op::PIPE);
    // SAFETY: the caller's pointer, passed on.
    unsafe { pair(sys!(sys::SYS_pipe2, fds, flags), fds) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pipe2(fds: *mut c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { pipe2_(fds, flags) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pipe(fds: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { pipe2(fds, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn socketpair(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    fds: *mut c_int,
) -> c_int {
    let _turn = Turn::take(op::PIPE);
    // SAFETY: the caller's pointer, passed on.
    finish(unsafe { pair(sys!(sys::SYS_socketpair, domain, kind, protocol, fds), fds) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn eventfd_read(fd: c_int, to: *mut u64) -> c_int {
    // SAFETY: the caller promises room for eight bytes.
    if finish(unsafe { read_(fd, to.cast(), 8) }) == 8 {
        0
    } else {
        -1
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn eventfd_write(fd: c_int, value: u64) -> c_int {
    // SAFETY: eight bytes of our own.
    if finish(unsafe { write_(fd, (&raw const value).cast(), 8) }) == 8 {
        0
    } else {
        -1
    }
}

/// After an `exec`: what was closed by it no longer names anything.
pub fn after_exec(turn: &mut Turn) {
    for fd in 0..brolga_vnet::FDS_MAX as c_int {
        // SAFETY: F_GETFD takes no pointer.
        if object(turn, fd).is_some() && unsafe { sys!(sys::SYS_fcntl, fd, libc::F_GETFD) } < 0 {
            forget(turn, fd);
        }
    }
    lock::released(turn);
}

/// The size of a long is that of a word, which the variadic hooks rely on.
const _: () = assert!(size_of::<c_long>() == size_of::<usize>());
