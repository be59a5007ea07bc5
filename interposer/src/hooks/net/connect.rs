//! `connect`: virtual sockets to the tree itself and to the outside without the kernel, real
//! objects inside the tree with it.

use super::datagram::{self, is_datagram};
use super::published;
use super::unix::KernelAddress;
use super::waiting::{deadline, wait};
use crate::address::{self, family, is_internet};
use crate::hooks::fd::object::on_object;
use crate::hooks::fd::real::on_stream;
use crate::hooks::result::{error, finish};
use crate::sys::{self, sys};
use crate::turn::{self, Turn};
use brolga_dmt::Wakeup;
use brolga_tape::operation as op;
use brolga_vnet::{ConnectOutcome, Object, SocketIx, State, WaitOn};
use core::ffi::{c_int, c_void};
use core::net::SocketAddr;
use libc::socklen_t;

/// Connects a socket of any kind.
///
/// # Safety
/// As `connect`: `to` points to `len` readable bytes.
unsafe fn connect_(fd: c_int, to: *const c_void, len: socklen_t) -> isize {
    let raw = || {
        // SAFETY: the caller's pointer, passed on.
        unsafe { sys!(sys::SYS_connect, fd, to, len) }
    };
    on_object(fd, op::CONNECT, raw, |mut turn, object| match object {
        // SAFETY: the caller promises that `to` points to `len` readable bytes.
        Object::Socket(ix) if is_datagram(&mut turn, ix) => unsafe {
            datagram::connect(&mut turn, ix, to, len)
        },
        // SAFETY: the caller promises that `to` points to `len` readable bytes.
        Object::Socket(ix) => unsafe { connect_virtual(&mut turn, ix, to, len) },
        // SAFETY: the caller promises that `to` points to `len` readable bytes.
        Object::Stream if unsafe { is_internet(to, len) } => {
            turn::fault(&[b"the server uses an internet socket that is neither TCP nor UDP"])
        }
        Object::Stream => {
            // SAFETY: the caller promises that `to` points to `len` readable bytes.
            match unsafe { published::destination(&mut turn, fd, to, len) } {
                Some(Ok((ix, to))) => return connect_published(&mut turn, ix, to),
                Some(Err(failure)) => return failure,
                None => {}
            }
            // SAFETY: the caller promises that `to` points to `len` readable bytes.
            let named = unsafe { KernelAddress::of(&mut turn, to, len) };
            on_stream(&mut turn, fd, libc::POLLOUT, || match &named {
                // SAFETY: an address of our own.
                Some(to) => unsafe { sys!(sys::SYS_connect, fd, to.as_ptr(), to.len()) },
                None => raw(),
            })
        }
        _ => raw(),
    })
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

/// Connects a virtual socket.
///
/// # Safety
/// `to` points to `len` readable bytes.
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

/// Like the kernel, does not wait for the other side to accept.
fn connect_published(turn: &mut Turn, ix: SocketIx, to: SocketAddr) -> isize {
    let (net, mut outside) = turn.net();
    match net.connect(ix, to, false, &mut outside) {
        ConnectOutcome::Connected => 0,
        ConnectOutcome::Exhausted => error(libc::EAGAIN),
        _ => error(libc::ECONNREFUSED),
    }
}

fn connect_to(turn: &mut Turn, ix: SocketIx, to: SocketAddr) -> isize {
    let loopback_is_outside = turn.local().host_loopback;
    let (net, mut outside) = turn.net();
    let outcome = net.connect(ix, to, loopback_is_outside, &mut outside);
    let waits = !net.socket(ix).nonblocking;
    match outcome {
        // As the kernel has it, whoever does not wait is told so even when there is nothing to wait
        // for.
        ConnectOutcome::Connected | ConnectOutcome::UnderWay if !waits => {
            net.defer_connect(ix);
            error(libc::EINPROGRESS)
        }
        ConnectOutcome::Connected => 0,
        ConnectOutcome::Already if !waits => error(libc::EALREADY),
        ConnectOutcome::UnderWay | ConnectOutcome::Already => await_answer(turn, ix),
        ConnectOutcome::Refused => error(libc::ECONNREFUSED),
        ConnectOutcome::Exhausted => error(libc::EADDRNOTAVAIL),
        ConnectOutcome::NotFresh => error(libc::EISCONN),
    }
}

/// Waits until the log has told what came of a connection to the outside.
fn await_answer(turn: &mut Turn, ix: SocketIx) -> isize {
    let timeout = turn.shared().net.socket(ix).send_timeout_ns;
    let deadline = deadline(turn, timeout);
    loop {
        let socket = turn.shared().net.socket_mut(ix);
        match socket.state() {
            State::Connecting => {}
            State::Connected => return 0,
            _ => return error(socket.take_error().map_or(libc::ECONNABORTED, c_int::from)),
        }
        match wait(turn, ix, WaitOn::Writable(ix), deadline) {
            Wakeup::TimedOut => return error(libc::EINPROGRESS),
            Wakeup::Interrupted => return error(libc::EINTR),
            _ => {}
        }
    }
}
