//! `fcntl`.

use super::dup::duplicated;
use super::object::{is_ours, object};
use crate::hooks::fs::lock;
use crate::hooks::result::{error, finish};
use crate::sys::{self, sys};
use crate::turn::{Turn, is_active};
use brolga_tape::operation as op;
use brolga_vnet::Object;
use core::ffi::c_int;

/// Returns whether a command would have the kernel send SIGIO at moments of its own: accepted,
/// without effect. Programs that ask for it look at the descriptor by other means as well.
fn asks_for_sigio(command: c_int) -> bool {
    const SETSIG: c_int = 10;
    const GETSIG: c_int = 11;
    const SETOWN_EX: c_int = 15;
    [libc::F_SETOWN, libc::F_GETOWN, SETSIG, GETSIG, SETOWN_EX].contains(&command)
}

/// Does what a command asks for.
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

/// `fcntl` and `ioctl` take a word for a long.
const _: () = assert!(size_of::<core::ffi::c_long>() == size_of::<usize>());
