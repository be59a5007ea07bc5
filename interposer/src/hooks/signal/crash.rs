//! Signals that the program's own instructions raise: its faults, which end it or which it handles,
//! and readings of the time stamp counter, which are faults too.

use super::kernel::set_for_real;
use super::send::raise_for_real;
use super::set::KERNEL;
use crate::hooks::process::exit;
use crate::tsc;
use crate::turn::Turn;
use brolga_vsignal as vsignal;
use core::ffi::{c_int, c_void};

/// Without a handler of its own the program is about to die of what it did: the tree must hear of
/// it while the dying thread still has the turn. Then the default action, by doing it again.
extern "C" fn crash(signal: c_int) {
    exit::end(signal);
    set_for_real(signal, vsignal::DEFAULT, 0);
    raise_for_real(signal);
}

/// A fault is a reading of the time stamp counter, or the program's own business.
extern "C" fn faulted(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's arguments, passed on.
    if unsafe { tsc::answer(info, context.cast()) } {
        return;
    }
    let Some(mut turn) = Turn::have() else {
        return crash(signal);
    };
    let (process, me) = (turn.process(), turn.me());
    let signals = &mut turn.shared().signals;
    let (number, mask) = (signal as u8, signals.mask(me));
    let ignored = [vsignal::DEFAULT, vsignal::IGNORE];
    if ignored.contains(&signals.action(process, number).handler) || mask.has(number) {
        return crash(signal);
    }
    let (action, before) = signals.enter_handler(process, me, number);
    drop(turn);
    // SAFETY: the program gave this address as a handler; one without SA_SIGINFO ignores what it
    // gets beyond the first argument.
    unsafe {
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
            core::mem::transmute(action.handler);
        handler(signal, info, context);
    }
    if let Some(mut turn) = Turn::have() {
        let me = turn.me();
        turn.shared().signals.set_mask(me, before);
    }
}

/// Makes a signal that an instruction may raise ours.
pub(crate) fn install(signal: c_int) -> c_int {
    let handler: extern "C" fn(c_int) = crash;
    set_for_real(signal, handler as usize, libc::SA_NODEFER)
}

/// Kernel-side state of a fresh program: broken pipes and crashes are our business.
pub fn resolve() {
    for signal in KERNEL {
        install(signal);
    }
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = faulted;
    let flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
    set_for_real(libc::SIGSEGV, handler as usize, flags);
    set_for_real(libc::SIGPIPE, vsignal::IGNORE, 0);
}
