//! Masks of blocked signals.

use super::set::{number, put_set, set_at};
use crate::hooks::result::{error, finish};
use crate::sys::sys;
use crate::turn::Turn;
use crate::turn::signals::Delivered;
use brolga_tape::operation as op;
use brolga_vsignal::Set;
use core::ffi::c_int;
use libc::sigset_t;

/// The kernel's copy of this thread's mask, without the signals that libc and we need for
/// ourselves.
fn copy_to_kernel(mask: Set) {
    const LIBC: Set = Set::of(32).with(Set::of(33));
    const OURS: Set = Set::of(libc::SIGSYS as u8).with(Set::of(libc::SIGSEGV as u8));
    let mask = mask.without(LIBC).without(OURS).0;
    // SAFETY: a set of eight bytes, nothing wanted back.
    unsafe {
        sys!(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            0,
            8
        )
    };
}

/// Changes the calling thread's mask and acts on what that lets through.
fn set_mask(turn: &mut Turn, mask: Set) {
    let (me, process) = (turn.me(), turn.process());
    turn.shared().signals.set_mask(me, mask);
    let mask = turn.shared().signals.mask(me);
    copy_to_kernel(mask);
    if turn.shared().signals.pending(process, me) != Set(0) {
        turn.deliver();
        turn.retarget();
    }
}

/// Changes the mask of the calling thread, and gives the one before.
///
/// # Safety
/// As `sigprocmask`: `new` is null or points to a set, `old` is null or has room for one.
unsafe fn sigprocmask_(how: c_int, new: *const sigset_t, old: *mut sigset_t) -> isize {
    let Some(mut turn) = Turn::take(op::SIGMASK) else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(libc::SYS_rt_sigprocmask, how, new, old, 8) };
    };
    let me = turn.me();
    let before = turn.shared().signals.mask(me);
    // SAFETY: the caller promises null or a valid set; read before `old` is written.
    let wanted = unsafe { set_at(new) };
    let mask = match (wanted, how) {
        (None, _) => None,
        (Some(set), libc::SIG_BLOCK) => Some(before.with(set)),
        (Some(set), libc::SIG_UNBLOCK) => Some(before.without(set)),
        (Some(set), libc::SIG_SETMASK) => Some(set),
        _ => return error(libc::EINVAL),
    };
    // SAFETY: the caller promises null or room for a set.
    unsafe { put_set(old, before) };
    if let Some(mask) = mask {
        set_mask(&mut turn, mask);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigprocmask(
    how: c_int,
    new: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { sigprocmask_(how, new, old) }) as c_int
}

/// Unlike the others this one returns the error itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_sigmask(
    how: c_int,
    new: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    -unsafe { sigprocmask_(how, new, old) } as c_int
}

fn change_one(signal: c_int, how: c_int) -> c_int {
    let Some(number) = number(signal) else {
        return finish(error(libc::EINVAL)) as c_int;
    };
    let mut set = [0u64; 16];
    set[0] = Set::of(number).0;
    // SAFETY: a set of the right size, nothing wanted back.
    unsafe { sigprocmask(how, set.as_ptr().cast(), core::ptr::null_mut()) }
}

#[unsafe(no_mangle)]
pub extern "C" fn sighold(signal: c_int) -> c_int {
    change_one(signal, libc::SIG_BLOCK)
}

#[unsafe(no_mangle)]
pub extern "C" fn sigrelse(signal: c_int) -> c_int {
    change_one(signal, libc::SIG_UNBLOCK)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sigpending(to: *mut sigset_t) -> c_int {
    let Some(mut turn) = Turn::take(op::SIGMASK) else {
        // SAFETY: the caller's pointer, passed on.
        return finish(unsafe { sys!(libc::SYS_rt_sigpending, to, 8) }) as c_int;
    };
    let (process, me) = (turn.process(), turn.me());
    let pending = turn.shared().signals.pending(process, me);
    // SAFETY: the caller promises room for a set.
    unsafe { put_set(to, pending) };
    0
}

/// Waits under another mask, as `ppoll` and its family do: a signal that it lets through ends the
/// wait.
///
/// # Safety
/// `mask` is null or points to a set.
pub(crate) unsafe fn with_mask(
    turn: &mut Turn,
    mask: *const sigset_t,
    wait: impl FnOnce(&mut Turn) -> isize,
) -> isize {
    // SAFETY: the caller promises that `mask` is null or points to a set.
    let Some(mask) = (unsafe { set_at(mask) }) else {
        return wait(turn);
    };
    let me = turn.me();
    let before = turn.shared().signals.mask(me);
    turn.shared().signals.set_mask(me, mask);
    let result = if turn.signal_due() && turn.deliver() != Delivered::Nothing {
        error(libc::EINTR)
    } else {
        wait(turn)
    };
    let me = turn.me();
    turn.shared().signals.set_mask(me, before);
    if turn.signal_due() {
        turn.deliver();
    }
    result
}
