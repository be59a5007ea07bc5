//! `accept` and `accept4`.

use super::published;
use super::recv_send::NOBODY;
use super::unix::Shown;
use super::waiting::{deadline, pause};
use crate::address;
use crate::hooks::fd::object::{name, on_object};
use crate::hooks::fd::real::on_stream;
use crate::hooks::result::{error, finish};
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use brolga_vnet::{Object, SocketIx, State, WaitOn};
use core::ffi::{c_int, c_void};
use libc::socklen_t;

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

/// Takes a connection from a virtual listener, waiting if it may.
///
/// # Safety
/// `from` and `len` are as for `accept`.
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
            match pause(&mut turn, on, WaitOn::Readable(on), deadline) {
                Ok(()) => continue,
                Err(result) => return result,
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
            // SAFETY: the caller promises that `from` and `len` are as for `accept`.
            unsafe { published::write_name(&mut turn, None, from, len) };
        } else if let Some(peer) = connection.peer() {
            // SAFETY: the caller promises that `from` and `len` are as for `accept`.
            unsafe { address::write(peer, connection.v6, from, len) };
        }
        turn.scheduler().note(fd as u64);
        return name(&mut turn, fd, Object::Socket(ix));
    }
}

/// Accepts on a socket of any kind.
///
/// # Safety
/// As `accept4`: `from` is null or has room for `*len` bytes.
unsafe fn accept_(fd: c_int, from: *mut c_void, len: *mut socklen_t, flags: c_int) -> isize {
    let raw = || {
        // SAFETY: the caller's pointers, passed on.
        unsafe { sys!(sys::SYS_accept4, fd, from, len, flags) }
    };
    on_object(fd, op::ACCEPT, raw, |mut turn, object| match object {
        // SAFETY: the caller promises that `from` is null or has room for `*len` bytes.
        Object::Socket(on) => unsafe { accept_virtual(turn, on, from, len, flags) },
        Object::Stream => {
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
                // SAFETY: the caller promises that `from` is null or has room for `*len` bytes.
                unsafe { *len = shown.give(&mut turn) };
            }
            name(&mut turn, fd, Object::Stream)
        }
        _ => raw(),
    })
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
