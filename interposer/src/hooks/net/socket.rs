//! Sockets. Those of the internet families are virtual: the descriptor is a real, unconnected socket
//! that keeps the number, flags and options; bytes come from the tape and go to the output ring.
//! Datagrams are seen to in `datagram.rs`. UNIX sockets are real objects inside the tree. Others are
//! refused where they would reach a network.

use super::datagram::{self, is_datagram};
use super::unix::{KernelAddress, Shown};
use super::{published, scm_rights};
use crate::address;
use crate::hooks::fd::descriptor::{name, object, on_stream};
use crate::hooks::fd::iovec::Vectors;
use crate::hooks::signal::action;
use crate::hooks::{error, op};
use crate::sys::{self, finish, sys};
use crate::turn::{self, Turn, key_of};
use brolga_dmt::Wakeup;
use brolga_vnet::{Object, ReadOutcome, SocketIx, State, WaitOn, WriteOutcome};
use core::ffi::{c_int, c_void};
use libc::{iovec, msghdr, socklen_t};

/// Keeps a socket while its thread waits: another thread may close the descriptor meanwhile.
pub(crate) fn wait(turn: &mut Turn, ix: SocketIx, on: WaitOn, deadline_ns: Option<u64>) -> Wakeup {
    turn.shared().net.retain_socket(ix);
    let woken = turn.block(key_of(on), deadline_ns);
    let (net, mut outside) = turn.net();
    net.release_socket(ix, &mut outside);
    woken
}

pub(crate) fn deadline(turn: &mut Turn, timeout_ns: u64) -> Option<u64> {
    (timeout_ns > 0).then(|| turn.now_ns().saturating_add(timeout_ns))
}

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
        // SAFETY: the caller's promise.
        return unsafe { datagram::read(&mut turn, ix, vectors) };
    }
    if flags & libc::MSG_ERRQUEUE != 0 {
        return error(libc::EAGAIN);
    }
    if flags & libc::MSG_OOB != 0 {
        // Frontends put what comes out of band in line, so that there is never any.
        return error(libc::EINVAL);
    }
    // SAFETY: the caller's promise.
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
                // SAFETY: the caller's promise.
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
                match wait(&mut turn, ix, WaitOn::Readable(ix), deadline) {
                    Wakeup::TimedOut => error(libc::EAGAIN),
                    Wakeup::Interrupted => error(libc::EINTR),
                    _ => continue,
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
        // SAFETY: the caller's promise.
        return unsafe { datagram::write(&mut turn, ix, vectors, flags) };
    }
    if flags & libc::MSG_OOB != 0 {
        return error(libc::EOPNOTSUPP);
    }
    // SAFETY: the caller's promise.
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
                // SAFETY: the caller's promise.
                let piece = unsafe { vectors.slice(sent, room) };
                net.write(ix, piece, &mut outside);
                sent += piece.len();
                continue;
            }
            WriteOutcome::Broken | WriteOutcome::NotConnected => {
                if sent == 0 && flags & libc::MSG_NOSIGNAL == 0 {
                    action::raise_sigpipe(&mut turn);
                }
                error(libc::EPIPE)
            }
            WriteOutcome::Failed(errno) => error(errno.into()),
            WriteOutcome::WouldBlock if waits => {
                match wait(&mut turn, ix, WaitOn::Writable(ix), deadline) {
                    Wakeup::TimedOut => error(libc::EAGAIN),
                    Wakeup::Interrupted => error(libc::EINTR),
                    _ => continue,
                }
            }
            WriteOutcome::WouldBlock => error(libc::EAGAIN),
        };
        return if sent > 0 { sent as isize } else { failure };
    }
    sent as isize
}

// ---- making sockets ----

fn socket_(domain: c_int, kind: c_int, protocol: c_int) -> isize {
    let turn = Turn::take(op::SOCKET);
    if turn.is_some() && domain == libc::AF_NETLINK {
        // What the kernel tells of interfaces and routes is the machine's; libc does without.
        return error(libc::EAFNOSUPPORT);
    }
    // SAFETY: plain integers.
    let fd = unsafe { sys!(sys::SYS_socket, domain, kind, protocol) };
    let Some(mut turn) = turn else { return fd };
    if fd < 0 {
        return fd;
    }
    let stream = kind & 0xF == libc::SOCK_STREAM;
    let datagrams = datagram::is_ours(kind, protocol);
    match domain {
        libc::AF_INET | libc::AF_INET6 if stream || datagrams => {
            let (net, v6) = (&mut turn.shared().net, domain == libc::AF_INET6);
            let made = match datagrams {
                true => net.make_datagram_socket(v6),
                false => net.make_socket(v6),
            };
            let Some(ix) = made else {
                // SAFETY: our own fresh descriptor.
                unsafe { sys!(sys::SYS_close, fd) };
                return error(libc::ENFILE);
            };
            let nonblocking = kind & libc::SOCK_NONBLOCK != 0;
            turn.shared().net.socket_mut(ix).nonblocking = nonblocking;
            name(&mut turn, fd, Object::Socket(ix))
        }
        _ => name(&mut turn, fd, Object::Stream),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    finish(socket_(domain, kind, protocol)) as c_int
}

/// Whether an address is one of the internet families.
///
/// # Safety
/// `to` is null or points to `len` readable bytes.
pub(crate) unsafe fn is_internet(to: *const c_void, len: socklen_t) -> bool {
    // SAFETY: the caller's promise.
    [libc::AF_INET, libc::AF_INET6].contains(&unsafe { family(to, len) })
}

/// Family of an address, `AF_UNSPEC` if there is none.
///
/// # Safety
/// `to` is null or points to `len` readable bytes.
pub(crate) unsafe fn family(to: *const c_void, len: socklen_t) -> c_int {
    if to.is_null() || len < 2 {
        return libc::AF_UNSPEC;
    }
    // SAFETY: the caller promises `len` readable bytes.
    c_int::from(unsafe { to.cast::<u16>().read_unaligned() })
}

unsafe fn bind_(fd: c_int, to: *const c_void, len: socklen_t) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_bind, fd, to, len) }
    };
    let Some(mut turn) = Turn::take(op::BIND) else {
        return raw();
    };
    match object(&mut turn, fd) {
        // SAFETY: the caller's promise.
        Some(Object::Socket(ix)) if is_datagram(&mut turn, ix) => unsafe {
            datagram::bind(&mut turn, ix, to, len)
        },
        Some(Object::Socket(ix)) => {
            // SAFETY: the caller's promise.
            let to = match unsafe { datagram::address_for(&mut turn, ix, to, len) } {
                Ok(to) => to,
                Err(failure) => return failure,
            };
            let net = &mut turn.shared().net;
            if net.socket(ix).local().is_some() {
                return error(libc::EINVAL);
            }
            if to.port() != 0 && net.port_taken(ix, to) {
                return error(libc::EADDRINUSE);
            }
            if net.bind(ix, to) {
                0
            } else {
                error(libc::EADDRINUSE)
            }
        }
        // SAFETY: the caller's promise.
        Some(Object::Stream) if unsafe { is_internet(to, len) } => {
            turn::fault(&[b"the server binds an internet socket that is neither TCP nor UDP"])
        }
        // SAFETY: the caller's promise; a name of our own.
        Some(Object::Stream) => unsafe {
            if let Some(result) = published::bind(&mut turn, fd, to, len) {
                return result;
            }
            match KernelAddress::to_bind(&mut turn, to, len) {
                Some(to) => sys!(sys::SYS_bind, fd, to.as_ptr(), to.len()),
                None => raw(),
            }
        },
        _ => raw(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind(fd: c_int, to: *const c_void, len: socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { bind_(fd, to, len) }) as c_int
}

fn listen_(fd: c_int, backlog: c_int) -> isize {
    if let Some(mut turn) = Turn::take(op::LISTEN)
        && let Some(Object::Socket(ix)) = object(&mut turn, fd)
    {
        match turn.shared().net.socket(ix).state() {
            State::Fresh | State::Listening => {}
            State::Datagram => return error(libc::EOPNOTSUPP),
            State::Counter => return error(libc::ENOTSOCK),
            _ => return error(libc::EINVAL),
        }
        let (net, mut outside) = turn.net();
        return if net.listen(ix, &mut outside) {
            0
        } else {
            error(libc::EADDRINUSE)
        };
    }
    // SAFETY: plain integers.
    unsafe { sys!(sys::SYS_listen, fd, backlog) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    finish(listen_(fd, backlog)) as c_int
}

// ---- accept ----

/// The real socket behind an accepted connection.
fn placeholder(v6: bool, unix: bool, flags: c_int) -> isize {
    let domain = match unix {
        true => libc::AF_UNIX,
        false if v6 => libc::AF_INET6,
        false => libc::AF_INET,
    };
    // SAFETY: plain integers.
    unsafe { sys!(sys::SYS_socket, domain, libc::SOCK_STREAM | flags, 0) }
}

unsafe fn accept_virtual(
    mut turn: Turn,
    on: SocketIx,
    from: *mut c_void,
    len: *mut socklen_t,
    flags: c_int,
) -> isize {
    loop {
        let listener = turn.shared().net.socket(on);
        if listener.state() != State::Listening {
            return error(libc::EINVAL);
        }
        let (waits, timeout) = (!listener.nonblocking, listener.receive_timeout_ns);
        let Some(ix) = turn.shared().net.acceptable(on) else {
            let deadline = deadline(&mut turn, timeout);
            if !waits {
                return error(libc::EAGAIN);
            }
            match wait(&mut turn, on, WaitOn::Readable(on), deadline) {
                Wakeup::TimedOut => return error(libc::EAGAIN),
                Wakeup::Interrupted => return error(libc::EINTR),
                _ => continue,
            }
        };
        let connection = *turn.shared().net.socket(ix);
        let unix = published::path_of(&turn, &connection).is_some();
        let fd = placeholder(connection.v6, unix, flags);
        if fd < 0 {
            return fd;
        }
        let net = &mut turn.shared().net;
        net.accept(on);
        net.socket_mut(ix).nonblocking = flags & libc::SOCK_NONBLOCK != 0;
        if unix {
            // SAFETY: the caller's promise.
            unsafe { published::write_name(&mut turn, None, from, len) };
        } else if let Some(peer) = connection.peer() {
            // SAFETY: the caller's promise.
            unsafe { address::write(peer, connection.v6, from, len) };
        }
        turn.scheduler().note(fd as u64);
        return name(&mut turn, fd, Object::Socket(ix));
    }
}

unsafe fn accept_(fd: c_int, from: *mut c_void, len: *mut socklen_t, flags: c_int) -> isize {
    let raw = || {
        // SAFETY: the caller's pointers, passed on.
        unsafe { sys!(sys::SYS_accept4, fd, from, len, flags) }
    };
    let Some(mut turn) = Turn::take(op::ACCEPT) else {
        return raw();
    };
    match object(&mut turn, fd) {
        // SAFETY: the caller's promise.
        Some(Object::Socket(on)) => unsafe { accept_virtual(turn, on, from, len, flags) },
        Some(Object::Stream) => {
            let wanted = if len.is_null() { NOBODY } else { from };
            // SAFETY: the caller promises a valid `len` if there is one.
            let mut shown = Shown::new(wanted, unsafe { len.as_ref() }.copied().unwrap_or(0));
            let fd = on_stream(&mut turn, fd, libc::POLLIN, || {
                let (from, len) = shown.place();
                // SAFETY: the kernel writes to our own memory.
                unsafe { sys!(sys::SYS_accept4, fd, from, len, flags) }
            });
            if fd < 0 {
                return fd;
            }
            if !wanted.is_null() {
                // SAFETY: the caller's promise.
                unsafe { *len = shown.give(&mut turn) };
            }
            name(&mut turn, fd, Object::Stream)
        }
        _ => raw(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept(fd: c_int, from: *mut c_void, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { accept_(fd, from, len, 0) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(
    fd: c_int,
    from: *mut c_void,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { accept_(fd, from, len, flags) }) as c_int
}

// ---- data ----

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
    let Some(mut turn) = Turn::take(op::READ) else {
        return raw();
    };
    match object(&mut turn, fd) {
        Some(Object::Socket(ix)) => {
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
        Some(Object::Stream) if !from.is_null() && !from_len.is_null() => unsafe {
            receive_named(&mut turn, fd, (to, len), flags, (from, from_len))
        },
        Some(Object::Stream) if flags & libc::MSG_DONTWAIT == 0 => {
            on_stream(&mut turn, fd, libc::POLLIN, raw)
        }
        _ => raw(),
    }
}

/// `recvfrom` on a real socket of the tree, for who wants to know the sender.
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
        // SAFETY: the caller's promise.
        unsafe { *from_len = shown.give(turn) };
    }
    got
}

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
    let Some(mut turn) = Turn::take(op::WRITE) else {
        return raw();
    };
    match object(&mut turn, fd) {
        Some(Object::Socket(ix)) => {
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
        // SAFETY: the caller's promise.
        Some(Object::Stream) if unsafe { is_internet(to, to_len) } => {
            turn::fault(&[b"the server uses an internet socket that is neither TCP nor UDP"])
        }
        Some(Object::Stream) => {
            // SAFETY: the caller's promise.
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
    }
}

pub(crate) unsafe fn recvmsg_(fd: c_int, message: *mut msghdr, flags: c_int) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_recvmsg, fd, message, flags) }
    };
    let Some(mut turn) = Turn::take(op::READ) else {
        return raw();
    };
    match object(&mut turn, fd) {
        // SAFETY: the caller promises a valid message.
        Some(Object::Socket(ix)) if is_datagram(&mut turn, ix) => unsafe {
            datagram::receive(&mut turn, ix, &mut *message, flags)
        },
        // SAFETY: the caller promises a message with valid vectors.
        Some(Object::Socket(ix)) => unsafe {
            (*message).msg_namelen = 0;
            (*message).msg_controllen = 0;
            (*message).msg_flags = 0;
            match Vectors::new((*message).msg_iov, (*message).msg_iovlen as c_int) {
                Some(vectors) => receive(turn, ix, vectors, flags),
                None => error(libc::EMSGSIZE),
            }
        },
        // SAFETY: the caller's promise.
        Some(Object::Stream) => unsafe { scm_rights::receive(&mut turn, fd, message, flags) },
        _ => raw(),
    }
}

pub(crate) unsafe fn sendmsg_(fd: c_int, message: *const msghdr, flags: c_int) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_sendmsg, fd, message, flags) }
    };
    let Some(mut turn) = Turn::take(op::WRITE) else {
        return raw();
    };
    match object(&mut turn, fd) {
        // SAFETY: the caller promises a valid message.
        Some(Object::Socket(ix)) if is_datagram(&mut turn, ix) => unsafe {
            datagram::send(&mut turn, ix, &*message, flags)
        },
        // SAFETY: the caller promises a message with valid vectors.
        Some(Object::Socket(ix)) => unsafe {
            published::refuse_descriptors(&mut turn, ix, &*message);
            match Vectors::new((*message).msg_iov, (*message).msg_iovlen as c_int) {
                Some(vectors) => transmit(turn, ix, vectors, flags),
                None => error(libc::EMSGSIZE),
            }
        },
        // SAFETY: the caller's promise.
        Some(Object::Stream) => unsafe { scm_rights::send(&mut turn, fd, message, flags) },
        _ => raw(),
    }
}

const NOBODY: *mut c_void = core::ptr::null_mut();

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

fn shutdown_(fd: c_int, how: c_int) -> isize {
    let raw = || {
        // SAFETY: plain integers.
        unsafe { sys!(sys::SYS_shutdown, fd, how) }
    };
    let Some(mut turn) = Turn::take(op::SHUTDOWN) else {
        return raw();
    };
    match object(&mut turn, fd) {
        Some(Object::Socket(ix)) => {
            let reading = [libc::SHUT_RD, libc::SHUT_RDWR].contains(&how);
            let writing = [libc::SHUT_WR, libc::SHUT_RDWR].contains(&how);
            if !reading && !writing {
                return error(libc::EINVAL);
            }
            let (net, mut outside) = turn.net();
            if net.shutdown(ix, reading, writing, &mut outside) {
                0
            } else {
                error(libc::ENOTCONN)
            }
        }
        Some(Object::Stream) => {
            let result = raw();
            turn.real_changed();
            result
        }
        _ => raw(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    finish(shutdown_(fd, how)) as c_int
}
