//! `ioctl`.

use super::object::object;
use crate::hooks::net::netif;
use crate::hooks::result::finish;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use brolga_vnet::Object;
use core::ffi::c_int;

/// Asks whether the next byte is the one out of band; `<asm/sockios.h>`.
pub(crate) const SIOCATMARK: libc::c_ulong = 0x8905;

/// Does what a request asks for.
///
/// # Safety
/// As `ioctl`: the argument is what the request takes.
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
