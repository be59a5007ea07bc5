//! Actions of signals: `sigaction` and its family.

use super::crash;
use super::kernel::{Sigaction, real_sigaction};
use super::set::{KERNEL, number};
use crate::hooks::result::{error, finish, own};
use crate::turn::Turn;
use brolga_dmt::ThreadIx;
use brolga_tape::operation as op;
use brolga_vsignal::{self as vsignal, Action, Set};
use core::ffi::c_int;

/// Sets an action, and gives the one before.
///
/// # Safety
/// As `sigaction`: `new` is null or points to an action, `old` is null or has room for one.
unsafe fn sigaction_(signal: c_int, new: *const Sigaction, old: *mut Sigaction) -> isize {
    let Some(mut turn) = Turn::take(op::SIGACTION) else {
        return own(real_sigaction(signal, new, old));
    };
    let Some(number) = number(signal) else {
        return error(libc::EINVAL);
    };
    let fixed = number == vsignal::KILL || number == vsignal::STOP;
    if fixed && !new.is_null() {
        return error(libc::EINVAL);
    }
    let process = turn.process();
    let before = turn.shared().signals.action(process, number);
    // SAFETY: the caller promises null or valid; read before `old` is written, which may be the
    // same.
    let wanted = unsafe { new.as_ref() }.map(|new| Action {
        handler: new.handler,
        flags: u64::from(new.flags.cast_unsigned()),
        mask: Set(new.mask[0]).blockable(),
    });
    if let Some(action) = wanted
        && KERNEL.contains(&signal)
    {
        let result = match action.handler {
            _ if signal == libc::SIGSEGV => 0, // `crash` calls the program's own
            vsignal::DEFAULT => crash::install(signal),
            _ => real_sigaction(signal, new, core::ptr::null_mut()),
        };
        if result != 0 {
            return own(result);
        }
    }
    if !old.is_null() {
        let mut mask = [0; 16];
        mask[0] = before.mask.0;
        // SAFETY: the caller promises room.
        unsafe {
            old.write(Sigaction {
                handler: before.handler,
                mask,
                flags: before.flags as c_int,
                restorer: 0,
            });
        }
    }
    if let Some(action) = wanted {
        let shared = turn.shared();
        let (scheduler, signals) = (&shared.scheduler, &mut shared.signals);
        let ours = |ix: &ThreadIx| scheduler.thread(*ix).process == process;
        signals.set_action(process, number, action, scheduler.living().filter(ours));
        turn.refresh_signal_files(process);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigaction(
    signal: c_int,
    new: *const Sigaction,
    old: *mut Sigaction,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { sigaction_(signal, new, old) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sigaction(
    signal: c_int,
    new: *const Sigaction,
    old: *mut Sigaction,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { sigaction(signal, new, old) }
}

/// Sets a handler with flags; gives the one before, or `SIG_ERR`.
fn set_handler(signal: c_int, handler: usize, flags: c_int) -> usize {
    let new = Sigaction {
        handler,
        mask: [0; 16],
        flags,
        restorer: 0,
    };
    let mut old = Sigaction {
        handler: 0,
        mask: [0; 16],
        flags: 0,
        restorer: 0,
    };
    // SAFETY: both are valid.
    match unsafe { sigaction(signal, &raw const new, &raw mut old) } {
        0 => old.handler,
        _ => libc::SIG_ERR,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn signal(signal: c_int, handler: usize) -> usize {
    set_handler(signal, handler, libc::SA_RESTART)
}

#[unsafe(no_mangle)]
pub extern "C" fn bsd_signal(signal: c_int, handler: usize) -> usize {
    set_handler(signal, handler, libc::SA_RESTART)
}

#[unsafe(no_mangle)]
pub extern "C" fn __sysv_signal(signal: c_int, handler: usize) -> usize {
    set_handler(signal, handler, libc::SA_RESETHAND | libc::SA_NODEFER)
}

#[unsafe(no_mangle)]
pub extern "C" fn sysv_signal(signal: c_int, handler: usize) -> usize {
    __sysv_signal(signal, handler)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn siginterrupt(signal: c_int, interrupt: c_int) -> c_int {
    let mut action = core::mem::MaybeUninit::<Sigaction>::uninit();
    // SAFETY: room for an action, which a success fills.
    unsafe {
        if sigaction(signal, core::ptr::null(), action.as_mut_ptr()) != 0 {
            return -1;
        }
        let action = action.assume_init_mut();
        if interrupt != 0 {
            action.flags &= !libc::SA_RESTART;
        } else {
            action.flags |= libc::SA_RESTART;
        }
        sigaction(signal, action, core::ptr::null_mut())
    }
}

/// After an `exec` in the tree: handlers are gone.
pub fn after_exec(turn: &mut Turn) {
    let process = turn.process();
    turn.shared().signals.program_changed(process);
}
