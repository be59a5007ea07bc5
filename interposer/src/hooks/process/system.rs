//! `system`: a shell as a child of our own, see [`spawn`](super::spawn).

use super::exec::own_environment;
use super::spawn::{Action, Attributes, Plan, spawn};
use super::wait::wait_for;
use crate::hooks::result::finish_status;
use crate::hooks::signal::kernel::Sigaction;
use crate::hooks::signal::{action, mask};
use crate::libc_symbols::libc_own;
use crate::sys;
use crate::turn::Turn;
use brolga_tape::operation as op;
use brolga_vsignal::{self as vsignal, Set};
use core::ffi::{c_char, c_int, c_short};
use core::sync::atomic::{AtomicI32, Ordering};

/// Interrupt and quit, ignored as long as any thread waits for a command.
struct Ignored {
    waiting: AtomicI32,
    before: core::cell::UnsafeCell<[Sigaction; 2]>,
}
// SAFETY: only looked at by the thread that has the turn.
unsafe impl Sync for Ignored {}
static IGNORED: Ignored = Ignored {
    waiting: AtomicI32::new(0),
    before: core::cell::UnsafeCell::new([Sigaction::DEFAULT; 2]),
};
const TERMINAL_SIGNALS: [c_int; 2] = [libc::SIGINT, libc::SIGQUIT];

impl Ignored {
    /// Ignores them; gives those that a command is to have its default actions for.
    fn begin(&self) -> Set {
        // SAFETY: see Ignored.
        let before = unsafe { &mut *self.before.get() };
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            for (number, before) in TERMINAL_SIGNALS.into_iter().zip(&mut *before) {
                let ignore = Sigaction::with_handler(vsignal::IGNORE);
                // SAFETY: both are valid.
                unsafe { action::sigaction(number, &raw const ignore, before) };
            }
        }
        let told = TERMINAL_SIGNALS.into_iter().zip(before);
        told.filter(|(_, before)| before.handler() != vsignal::IGNORE)
            .fold(Set(0), |set, (number, _)| set.with(Set::of(number as u8)))
    }

    fn end(&self) {
        if self.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            // SAFETY: see Ignored.
            let before = unsafe { &*self.before.get() };
            for (number, before) in TERMINAL_SIGNALS.into_iter().zip(before) {
                // SAFETY: a valid action, nothing wanted back.
                unsafe { action::sigaction(number, before, core::ptr::null_mut()) };
            }
        }
    }
}

/// The plan of a shell that runs a command.
pub(crate) fn shell<'a>(arguments: &[*const c_char; 4], actions: &'a [Action]) -> Plan<'a> {
    Plan {
        program: c"/bin/sh".as_ptr(),
        search: false,
        arguments: arguments.as_ptr(),
        environment: own_environment(),
        actions,
        attributes: Attributes::NONE,
    }
}

/// The arguments of a shell that executes a command.
pub(crate) fn shell_words(command: *const c_char) -> [*const c_char; 4] {
    [c"sh".as_ptr(), c"-c".as_ptr(), command, core::ptr::null()]
}

/// Runs a command to its end; its status as `waitpid` gives it.
///
/// # Safety
/// `command` ends with a NUL.
unsafe fn run(turn: &mut Turn, command: *const c_char) -> isize {
    const NO_SHELL: isize = 127 << 8;
    let words = shell_words(command);
    let mut plan = shell(&words, &[]);
    plan.attributes.flags = (libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK) as c_short;
    plan.attributes.defaults[0] = IGNORED.begin().0;
    let mut child = [0u64; 16];
    child[0] = Set::of(vsignal::CHILD).0;
    let mask = &mut plan.attributes.mask;
    // SAFETY: whole sets.
    unsafe {
        mask::sigprocmask(
            libc::SIG_BLOCK,
            child.as_ptr().cast(),
            mask.as_mut_ptr().cast(),
        );
    }
    // SAFETY: the caller's command.
    let status = match unsafe { spawn(turn, &plan) } {
        Ok(pid) => wait_for(pid),
        Err(errno) => {
            sys::set_errno(errno);
            NO_SHELL
        }
    };
    IGNORED.end();
    // SAFETY: a whole set, nothing wanted back.
    unsafe {
        let before = plan.attributes.mask;
        mask::sigprocmask(
            libc::SIG_SETMASK,
            before.as_ptr().cast(),
            core::ptr::null_mut(),
        );
    }
    status
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn system(command: *const c_char) -> c_int {
    let Some(mut turn) = Turn::take(op::FORK) else {
        return libc_own!(system(command: *const c_char) -> c_int);
    };
    // SAFETY: the caller's command, or one of our own.
    unsafe {
        if command.is_null() {
            return c_int::from(run(&mut turn, c"exit 0".as_ptr()) == 0);
        }
        finish_status(run(&mut turn, command))
    }
}
