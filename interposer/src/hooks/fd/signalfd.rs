//! `signalfd`.

use super::counter::{make, pause};
use super::object::object;
use crate::hooks::result::{error, finish};
use crate::hooks::signal::set::set_at;
use crate::sys::sys;
use crate::turn::Turn;
use crate::turn::signals::describe;
use brolga_tape::operation as op;
use brolga_vnet::{CounterKind, Object, SocketIx, WaitOn};
use brolga_vsignal::{Info, Set};
use core::ffi::c_int;
use libc::{signalfd_siginfo, sigset_t};

/// Takes signals that are pending, as many as there is room for.
///
/// # Safety
/// `to` has room for `len` bytes.
pub(crate) unsafe fn read_signals(
    turn: &mut Turn,
    ix: SocketIx,
    mask: Set,
    to: *mut signalfd_siginfo,
    len: usize,
) -> isize {
    let room = len / size_of::<signalfd_siginfo>();
    if room == 0 {
        return error(libc::EINVAL);
    }
    loop {
        let (process, me) = (turn.process(), turn.me());
        let mut count = 0;
        while count < room
            && let Some(info) = turn.shared().signals.take_from(process, me, mask)
        {
            // SAFETY: the caller promises room for `len` bytes.
            unsafe { to.add(count).write_unaligned(file_info(&info)) };
            turn.scheduler().note(u64::from(info.signal));
            count += 1;
        }
        turn.refresh_signal_files(process);
        if count > 0 {
            return (count * size_of::<signalfd_siginfo>()) as isize;
        }
        if let Err(result) = pause(turn, ix, WaitOn::Readable(ix)) {
            return result;
        }
    }
}

fn file_info(info: &Info) -> signalfd_siginfo {
    let told = describe(info);
    // SAFETY: all zeros are valid: integers only.
    let mut file: signalfd_siginfo = unsafe { core::mem::zeroed() };
    file.ssi_signo = u32::from(info.signal);
    file.ssi_code = told.si_code;
    file.ssi_pid = info.pid.cast_unsigned();
    file.ssi_status = info.status;
    file.ssi_int = info.value as i32;
    file.ssi_ptr = info.value;
    file
}

/// Makes a descriptor for signals, or changes one.
///
/// # Safety
/// As `signalfd`: `mask` is null or points to a set.
unsafe fn signalfd_(fd: c_int, mask: *const sigset_t, flags: c_int) -> isize {
    let Some(mut turn) = Turn::take(op::PIPE) else {
        // SAFETY: the caller's pointer, passed on.
        return unsafe { sys!(libc::SYS_signalfd4, fd, mask, 8, flags) };
    };
    // SAFETY: the caller promises that `mask` is null or points to a set.
    let Some(mask) = (unsafe { set_at(mask) }) else {
        return error(libc::EFAULT);
    };
    let process = turn.process();
    let kind = CounterKind::Signals {
        process,
        mask: mask.blockable().0,
    };
    let result = if fd == -1 {
        make(&mut turn, kind, 0, flags)
    } else {
        match object(&mut turn, fd) {
            Some(Object::Socket(ix)) if turn.shared().net.counter_kind(ix).is_some() => {
                turn.shared().net.set_counter_kind(ix, kind);
                fd as isize
            }
            _ => error(libc::EINVAL),
        }
    };
    turn.refresh_signal_files(process);
    result
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn signalfd(fd: c_int, mask: *const sigset_t, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { signalfd_(fd, mask, flags) }) as c_int
}
