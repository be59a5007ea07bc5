//! Receiving from sockets and sending to them.

use super::datagram::{self, is_datagram};
use super::unix::{KernelAddress, Shown};
use super::waiting::{deadline, pause, wait};
use super::{published, scm_rights};
use crate::address::is_internet;
use crate::hooks::fd::iovec::Vectors;
use crate::hooks::fd::object::on_object;
use crate::hooks::fd::real::on_stream;
use crate::hooks::result::error;
use crate::sys::{self, sys};
use crate::turn::{self, Turn};
use brolga_dmt::Wakeup;
use brolga_tape::operation as op;
use brolga_vnet::{Object, ReadOutcome, SocketIx, WaitOn, WriteOutcome};
use core::ffi::{c_int, c_void};
use libc::{iovec, msghdr, socklen_t};

/// Reads from a socket, waiting if it may. With `MSG_TRUNC` the bytes of a connection are dropped
/// instead.
///
/// # Safety
/// The vectors point to writable memory, unless `MSG_TRUNC` is set.
pub(crate) unsafe fn receive(
    mut turn: Turn,
    ix: SocketIx,
    vectors: Vectors,
    flags: c_int,
) -> isize {
    if is_datagram(&mut turn, ix) {
        // SAFETY: the caller promises that the vectors point to writable memory, unless `MSG_TRUNC`
        // is set.
        return unsafe { datagram::read(&mut turn, ix, vectors) };
    }
    if flags & libc::MSG_ERRQUEUE != 0 {
        return error(libc::EAGAIN);
    }
    if flags & libc::MSG_OOB != 0 {
        // Frontends put what comes out of band in line, so that there is never any.
        return error(libc::EINVAL);
    }
    // SAFETY: the caller promises that the vectors point to writable memory, unless `MSG_TRUNC` is
    // set.
    unsafe { receive_stream(turn, ix, vectors, flags) }
}

/// Reads from a connection.
///
/// # Safety
/// As [`receive`].
unsafe fn receive_stream(mut turn: Turn, ix: SocketIx, vectors: Vectors, flags: c_int) -> isize {
    // SAFETY: the caller's promise: vectors that are still there.
    let wanted = unsafe { vectors.len() };
    let socket = turn.shared().net.socket(ix);
    let waits = !socket.nonblocking && flags & libc::MSG_DONTWAIT == 0;
    let timeout = socket.receive_timeout_ns;
    let deadline = deadline(&mut turn, timeout);
    let peek = flags & libc::MSG_PEEK != 0;
    let drop = flags & libc::MSG_TRUNC != 0;
    let all = flags & libc::MSG_WAITALL != 0;
    let mut got = 0;
    loop {
        let mut at = got;
        if all && peek && turn.shared().net.awaits_more(ix, wanted) {
            // All of it or nothing: what is there is not taken away.
            match waits.then(|| wait(&mut turn, ix, WaitOn::Readable(ix), deadline)) {
                Some(Wakeup::Interrupted) => return error(libc::EINTR),
                Some(Wakeup::TimedOut) | None => {}
                Some(_) => continue,
            }
        }
        let (net, mut outside) = turn.net();
        let outcome = net.read(ix, wanted - got, peek, &mut outside, |piece| {
            if !drop {
                // SAFETY: the caller promises that the vectors point to writable memory, unless
                // `MSG_TRUNC` is set.
                unsafe { vectors.put(at, piece) };
            }
            at += piece.len();
        });
        let result = match outcome {
            ReadOutcome::Bytes(count) => {
                got += count;
                if !all || peek || got == wanted {
                    turn.scheduler().note(got as u64);
                    return got as isize;
                }
                continue;
            }
            ReadOutcome::End => 0,
            ReadOutcome::Failed(errno) => error(errno.into()),
            ReadOutcome::NotConnected => error(libc::ENOTCONN),
            ReadOutcome::WouldBlock if got > 0 && wanted == got => 0,
            ReadOutcome::WouldBlock if waits => {
                match pause(&mut turn, ix, WaitOn::Readable(ix), deadline) {
                    Ok(()) => continue,
                    Err(result) => result,
                }
            }
            ReadOutcome::WouldBlock => error(libc::EAGAIN),
        };
        return if got > 0 { got as isize } else { result };
    }
}

/// Longest piece handed to the output ring at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Writes to a socket, waiting if it may.
///
/// # Safety
/// The vectors point to readable memory.
pub(crate) unsafe fn transmit(
    mut turn: Turn,
    ix: SocketIx,
    vectors: Vectors,
    flags: c_int,
) -> isize {
    if is_datagram(&mut turn, ix) {
        // SAFETY: the caller promises that the vectors point to readable memory.
        return unsafe { datagram::write(&mut turn, ix, vectors, flags) };
    }
    if flags & libc::MSG_OOB != 0 {
        return error(libc::EOPNOTSUPP);
    }
    // SAFETY: the caller promises that the vectors point to readable memory.
    let wanted = unsafe { vectors.len() };
    let socket = turn.shared().net.socket(ix);
    let waits = !socket.nonblocking && flags & libc::MSG_DONTWAIT == 0;
    let timeout = socket.send_timeout_ns;
    let deadline = deadline(&mut turn, timeout);
    let mut sent = 0;
    while sent < wanted {
        let (net, mut outside) = turn.net();
        let failure = match net.write_room(ix, (wanted - sent).min(PIECE_BYTES)) {
            WriteOutcome::Room(room) => {
                // SAFETY: the caller promises that the vectors point to readable memory.
                let piece = unsafe { vectors.slice(sent, room) };
                net.write(ix, piece, &mut outside);
                sent += piece.len();
                continue;
            }
            WriteOutcome::Broken | WriteOutcome::NotConnected => {
                if sent == 0 && flags & libc::MSG_NOSIGNAL == 0 {
                    turn.raise_sigpipe();
                }
                error(libc::EPIPE)
            }
            WriteOutcome::Failed(errno) => error(errno.into()),
            WriteOutcome::WouldBlock if waits => {
                match pause(&mut turn, ix, WaitOn::Writable(ix), deadline) {
                    Ok(()) => continue,
                    Err(result) => result,
                }
            }
            WriteOutcome::WouldBlock => error(libc::EAGAIN),
        };
        return if sent > 0 { sent as isize } else { failure };
    }
    sent as isize
}

/// Receives bytes, and the sender's address if that is asked for.
///
/// # Safety
/// As `recvfrom`: `to` has room for `len` bytes; `from` is null or has room for `*from_len`.
unsafe fn recvfrom_(
    fd: c_int,
    to: *mut c_void,
    len: usize,
    flags: c_int,
    from: *mut c_void,
    from_len: *mut socklen_t,
) -> isize {
    let raw = || {
        // SAFETY: the caller's pointers, passed on.
        unsafe { sys!(sys::SYS_recvfrom, fd, to, len, flags, from, from_len) }
    };
    on_object(fd, op::READ, raw, |mut turn, object| match object {
        Object::Socket(ix) => {
            let mut vector = iovec {
                iov_base: to,
                iov_len: len,
            };
            if is_datagram(&mut turn, ix) {
                let mut message = Vectors::one(&mut vector).message();
                message.msg_name = from;
                // SAFETY: the caller promises `len` writable bytes, and null or valid `from`s.
                unsafe {
                    message.msg_namelen = from_len.as_ref().copied().unwrap_or(0);
                    let got = datagram::receive(&mut turn, ix, &mut message, flags);
                    if got >= 0 && !from.is_null() && !from_len.is_null() {
                        *from_len = message.msg_namelen;
                    }
                    return got;
                }
            }
            // SAFETY: the caller promises `len` writable bytes; streams leave `from` alone.
            unsafe { receive(turn, ix, Vectors::one(&mut vector), flags) }
        }
        // SAFETY: the caller's promises.
        Object::Stream if !from.is_null() && !from_len.is_null() => unsafe {
            receive_named(&mut turn, fd, (to, len), flags, (from, from_len))
        },
        Object::Stream if flags & libc::MSG_DONTWAIT == 0 => {
            on_stream(&mut turn, fd, libc::POLLIN, raw)
        }
        _ => raw(),
    })
}

/// `recvfrom` on a real socket of the tree, for a caller that asks for the sender.
///
/// # Safety
/// `to` has room for `len` bytes, `from` for `*from_len`.
unsafe fn receive_named(
    turn: &mut Turn,
    fd: c_int,
    (to, len): (*mut c_void, usize),
    flags: c_int,
    (from, from_len): (*mut c_void, *mut socklen_t),
) -> isize {
    // SAFETY: the caller promises valid pointers.
    let mut shown = Shown::new(from, unsafe { *from_len });
    let mut call = || {
        let (from, from_len) = shown.place();
        // SAFETY: the caller promises `len` writable bytes; the name goes to our own memory.
        unsafe { sys!(sys::SYS_recvfrom, fd, to, len, flags, from, from_len) }
    };
    let got = match flags & libc::MSG_DONTWAIT == 0 {
        true => on_stream(turn, fd, libc::POLLIN, call),
        false => call(),
    };
    if got >= 0 {
        // SAFETY: the caller promises that `to` has room for `len` bytes, `from` for `*from_len`.
        unsafe { *from_len = shown.give(turn) };
    }
    got
}

/// Sends bytes, to an address if there is one.
///
/// # Safety
/// As `sendto`: `from` points to `len` readable bytes; `to` is null or points to `to_len`.
unsafe fn sendto_(
    fd: c_int,
    from: *const c_void,
    len: usize,
    flags: c_int,
    to: *const c_void,
    to_len: socklen_t,
) -> isize {
    let raw = || {
        // SAFETY: the caller's pointers, passed on.
        unsafe { sys!(sys::SYS_sendto, fd, from, len, flags, to, to_len) }
    };
    on_object(fd, op::WRITE, raw, |mut turn, object| match object {
        Object::Socket(ix) => {
            let mut vector = iovec {
                iov_base: from.cast_mut(),
                iov_len: len,
            };
            if is_datagram(&mut turn, ix) {
                let mut message = Vectors::one(&mut vector).message();
                message.msg_name = to.cast_mut();
                message.msg_namelen = to_len;
                // SAFETY: the caller promises `len` readable bytes and a valid `to`.
                return unsafe { datagram::send(&mut turn, ix, &message, flags) };
            }
            // SAFETY: the caller promises `len` readable bytes.
            unsafe { transmit(turn, ix, Vectors::one(&mut vector), flags) }
        }
        // SAFETY: the caller promises that `from` points to `len` readable bytes; `to` is null or
        // points to `to_len`.
        Object::Stream if unsafe { is_internet(to, to_len) } => {
            turn::fault(&[b"the server uses an internet socket that is neither TCP nor UDP"])
        }
        Object::Stream => {
            // SAFETY: the caller promises that `from` points to `len` readable bytes; `to` is null
            // or points to `to_len`.
            let named = unsafe { KernelAddress::of(&mut turn, to, to_len) };
            on_stream(&mut turn, fd, libc::POLLOUT, || match &named {
                // SAFETY: the caller promises `len` readable bytes; the address is our own.
                Some(to) => unsafe {
                    let (to, to_len) = (to.as_ptr(), to.len());
                    sys!(sys::SYS_sendto, fd, from, len, flags, to, to_len)
                },
                None => raw(),
            })
        }
        _ => raw(),
    })
}

/// Receives a message.
///
/// # Safety
/// As `recvmsg`: `message` is valid, with vectors of writable bytes.
pub(crate) unsafe fn recvmsg_(fd: c_int, message: *mut msghdr, flags: c_int) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_recvmsg, fd, message, flags) }
    };
    on_object(fd, op::READ, raw, |mut turn, object| match object {
        // SAFETY: the caller promises a valid message.
        Object::Socket(ix) if is_datagram(&mut turn, ix) => unsafe {
            datagram::receive(&mut turn, ix, &mut *message, flags)
        },
        // SAFETY: the caller promises a message with valid vectors.
        Object::Socket(ix) => unsafe {
            (*message).msg_namelen = 0;
            (*message).msg_controllen = 0;
            (*message).msg_flags = 0;
            match Vectors::new((*message).msg_iov, (*message).msg_iovlen as c_int) {
                Some(vectors) => receive(turn, ix, vectors, flags),
                None => error(libc::EMSGSIZE),
            }
        },
        // SAFETY: the caller promises that `message` is valid, with vectors of writable bytes.
        Object::Stream => unsafe { scm_rights::receive(&mut turn, fd, message, flags) },
        _ => raw(),
    })
}

/// Sends a message.
///
/// # Safety
/// As `sendmsg`: `message` is valid, with vectors of readable bytes.
pub(crate) unsafe fn sendmsg_(fd: c_int, message: *const msghdr, flags: c_int) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_sendmsg, fd, message, flags) }
    };
    on_object(fd, op::WRITE, raw, |mut turn, object| match object {
        // SAFETY: the caller promises a valid message.
        Object::Socket(ix) if is_datagram(&mut turn, ix) => unsafe {
            datagram::send(&mut turn, ix, &*message, flags)
        },
        // SAFETY: the caller promises a message with valid vectors.
        Object::Socket(ix) => unsafe {
            published::refuse_descriptors(&mut turn, ix, &*message);
            match Vectors::new((*message).msg_iov, (*message).msg_iovlen as c_int) {
                Some(vectors) => transmit(turn, ix, vectors, flags),
                None => error(libc::EMSGSIZE),
            }
        },
        // SAFETY: the caller promises that `message` is valid, with vectors of readable bytes.
        Object::Stream => unsafe { scm_rights::send(&mut turn, fd, message, flags) },
        _ => raw(),
    })
}

hooks! {
    recv(fd: c_int, to: *mut c_void, len: usize, flags: c_int)
        = recvfrom_(fd, to, len, flags, NOBODY, core::ptr::null_mut());
    __recv_chk(fd: c_int, to: *mut c_void, len: usize, _room: usize, flags: c_int)
        = recvfrom_(fd, to, len, flags, NOBODY, core::ptr::null_mut());
    recvfrom(fd: c_int, to: *mut c_void, len: usize, flags: c_int, from: *mut c_void,
        from_len: *mut socklen_t) = recvfrom_(fd, to, len, flags, from, from_len);
    __recvfrom_chk(fd: c_int, to: *mut c_void, len: usize, _room: usize, flags: c_int,
        from: *mut c_void, from_len: *mut socklen_t) = recvfrom_(fd, to, len, flags, from, from_len);
    send(fd: c_int, from: *const c_void, len: usize, flags: c_int)
        = sendto_(fd, from, len, flags, NOBODY, 0);
    __send(fd: c_int, from: *const c_void, len: usize, flags: c_int)
        = sendto_(fd, from, len, flags, NOBODY, 0);
    sendto(fd: c_int, from: *const c_void, len: usize, flags: c_int, to: *const c_void,
        to_len: socklen_t) = sendto_(fd, from, len, flags, to, to_len);
    recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) = recvmsg_(fd, message, flags);
    sendmsg(fd: c_int, message: *const msghdr, flags: c_int) = sendmsg_(fd, message, flags);
}

/// No address.
pub(crate) const NOBODY: *mut c_void = core::ptr::null_mut();
