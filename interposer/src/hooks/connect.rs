//! `connect`: to the tree itself without the kernel; real objects inside the tree with it.

use super::datagram::{self, is_datagram};
use super::descriptor::{object, on_stream};
use super::socket::{family, is_internet};
use super::{error, op};
use crate::address;
use crate::sys::{self, finish, sys};
use crate::turn::{self, Turn};
use brolga_vnet::{ConnectOutcome, Object, SocketIx};
use core::ffi::{c_int, c_void};
use core::net::SocketAddr;
use libc::socklen_t;

unsafe fn connect_(fd: c_int, to: *const c_void, len: socklen_t) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_connect, fd, to, len) }
    };
    let Some(mut turn) = Turn::take(op::CONNECT) else {
        return raw();
    };
    match object(&mut turn, fd) {
        // SAFETY: the caller's promise.
        Some(Object::Socket(ix)) if is_datagram(&mut turn, ix) => unsafe {
            datagram::connect(&mut turn, ix, to, len)
        },
        // SAFETY: the caller's promise.
        Some(Object::Socket(ix)) => unsafe { connect_virtual(&mut turn, ix, to, len) },
        // SAFETY: the caller's promise.
        Some(Object::Stream) if unsafe { is_internet(to, len) } => {
            turn::fault(&[b"the server uses an internet socket that is neither TCP nor UDP"])
        }
        Some(Object::Stream) => on_stream(&mut turn, fd, libc::POLLOUT, raw),
        _ => raw(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, to: *const c_void, len: socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { connect_(fd, to, len) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __connect(fd: c_int, to: *const c_void, len: socklen_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { connect(fd, to, len) }
}

unsafe fn connect_virtual(
    turn: &mut Turn,
    ix: SocketIx,
    to: *const c_void,
    len: socklen_t,
) -> isize {
    if turn.shared().net.counter_kind(ix).is_some() {
        return error(libc::ENOTSOCK);
    }
    if turn.shared().net.report_connect(ix) {
        return 0;
    }
    let v6 = turn.shared().net.socket(ix).v6;
    // SAFETY: in both the caller's promise.
    match unsafe { (family(to, len), address::read(to, len)) } {
        (libc::AF_INET, Some(to)) => connect_to(turn, ix, to),
        (libc::AF_INET6, Some(to)) if v6 => connect_to(turn, ix, to),
        (libc::AF_INET | libc::AF_INET6, None) => error(libc::EINVAL),
        _ => error(libc::EAFNOSUPPORT),
    }
}

fn connect_to(turn: &mut Turn, ix: SocketIx, to: SocketAddr) -> isize {
    let (net, mut outside) = turn.net();
    match net.connect(ix, to, &mut outside) {
        // As the kernel has it, whoever does not wait is told so even when there is nothing to wait for.
        ConnectOutcome::Connected if net.socket(ix).nonblocking => {
            net.defer_connect(ix);
            error(libc::EINPROGRESS)
        }
        ConnectOutcome::Connected => 0,
        ConnectOutcome::Refused => error(libc::ECONNREFUSED),
        ConnectOutcome::Exhausted => error(libc::EADDRNOTAVAIL),
        ConnectOutcome::NotFresh => error(libc::EISCONN),
        ConnectOutcome::Outside => turn::fault(&[
            b"the server opens a connection: outgoing connections are not supported yet",
        ]),
    }
}
