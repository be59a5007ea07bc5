//! Sockets. Those of the internet families are virtual: the descriptor is a real, unconnected
//! socket that keeps the number, flags and options; bytes come from the tape and go to the output
//! ring. Datagrams are in `datagram.rs`. UNIX sockets are real objects inside the tree. Others are
//! refused where they would reach a network.

use super::datagram::{self, is_datagram};
use super::published;
use super::unix::KernelAddress;
use crate::address::is_internet;
use crate::hooks::fd::object::{name, object, on_object};
use crate::hooks::fd::pipe::pair;
use crate::hooks::result::{error, finish};
use crate::sys::{self, sys};
use crate::turn::{self, Turn};
use brolga_tape::operation as op;
use brolga_vnet::{Object, State};
use core::ffi::{c_int, c_void};
use libc::socklen_t;

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

/// Binds a socket of any kind.
///
/// # Safety
/// As `bind`: `to` points to `len` readable bytes.
unsafe fn bind_(fd: c_int, to: *const c_void, len: socklen_t) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_bind, fd, to, len) }
    };
    on_object(fd, op::BIND, raw, |mut turn, object| match object {
        // SAFETY: the caller promises that `to` points to `len` readable bytes.
        Object::Socket(ix) if is_datagram(&mut turn, ix) => unsafe {
            datagram::bind(&mut turn, ix, to, len)
        },
        Object::Socket(ix) => {
            // SAFETY: the caller promises that `to` points to `len` readable bytes.
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
        // SAFETY: the caller promises that `to` points to `len` readable bytes.
        Object::Stream if unsafe { is_internet(to, len) } => {
            turn::fault(&[b"the server binds an internet socket that is neither TCP nor UDP"])
        }
        // SAFETY: the caller's promise; a name of our own.
        Object::Stream => unsafe {
            if let Some(result) = published::bind(&mut turn, fd, to, len) {
                return result;
            }
            match KernelAddress::to_bind(&mut turn, to, len) {
                Some(to) => sys!(sys::SYS_bind, fd, to.as_ptr(), to.len()),
                None => raw(),
            }
        },
        _ => raw(),
    })
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

fn shutdown_(fd: c_int, how: c_int) -> isize {
    let raw = || {
        // SAFETY: plain integers.
        unsafe { sys!(sys::SYS_shutdown, fd, how) }
    };
    on_object(fd, op::SHUTDOWN, raw, |mut turn, object| match object {
        Object::Socket(ix) => {
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
        Object::Stream => {
            let result = raw();
            turn.real_changed();
            result
        }
        _ => raw(),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    finish(shutdown_(fd, how)) as c_int
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
