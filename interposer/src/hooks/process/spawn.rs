//! `posix_spawn`. Children that libc would make by itself are children of our own fork that execute
//! a program, so they are in the schedule like any others.

use super::exec::{Words, execute_file, execute_path};
use super::{exit, fork, pgrp, wait};
use crate::hooks::fd::close::{self, close_};
use crate::hooks::fd::dup::dup2_;
use crate::hooks::fs::open;
use crate::hooks::signal::{action, mask};
use crate::libc_symbols::libc_own;
use crate::sys::{self, sys};
use crate::turn::Turn;
use crate::turn::keys::CHILD;
use brolga_tape::operation as op;
use brolga_vsignal::{self as vsignal, SIGNAL_MAX, Set};
use core::ffi::{c_char, c_int, c_short};

/// A file action of glibc's, `struct __spawn_action`: a tag, then fields that depend on it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Action {
    tag: c_int,
    /// Descriptors (the second in the upper half), or the path of `chdir`.
    first: u64,
    /// For `open`, beside the descriptor.
    path: *const c_char,
    flags: c_int,
    mode: u32,
}

const _: () = assert!(size_of::<Action>() == 32);

pub(crate) mod tag {
    pub const CLOSE: i32 = 0;
    pub const DUP: i32 = 1;
    pub const OPEN: i32 = 2;
    pub const CHDIR: i32 = 3;
    pub const FCHDIR: i32 = 4;
    pub const CLOSE_FROM: i32 = 5;
    pub const SET_TERMINAL_GROUP: i32 = 6;
}

impl Action {
    /// An action that takes one or two descriptors.
    pub(crate) const fn on(tag: c_int, fd: c_int, other: c_int) -> Self {
        Self {
            tag,
            first: fd.cast_unsigned() as u64 | (other.cast_unsigned() as u64) << 32,
            path: core::ptr::null(),
            flags: 0,
            mode: 0,
        }
    }

    fn descriptors(&self) -> (c_int, c_int) {
        let half = |at: u32| ((self.first >> at) as u32).cast_signed();
        (half(0), half(32))
    }
}

/// The published start of `posix_spawn_file_actions_t`.
#[repr(C)]
pub struct Actions {
    allocated: c_int,
    used: c_int,
    actions: *const Action,
}

/// The published start of `posix_spawnattr_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Attributes {
    pub(crate) flags: c_short,
    pub(crate) group: c_int,
    pub(crate) defaults: [u64; 16],
    pub(crate) mask: [u64; 16],
}

impl Attributes {
    /// No attributes.
    pub(crate) const NONE: Self = Self {
        flags: 0,
        group: 0,
        defaults: [0; 16],
        mask: [0; 16],
    };

    fn has(&self, flag: c_int) -> bool {
        c_int::from(self.flags) & flag != 0
    }
}

/// A child to be made.
pub(crate) struct Plan<'a> {
    pub(crate) program: *const c_char,
    /// Look for it in `PATH`.
    pub(crate) search: bool,
    pub(crate) arguments: Words,
    pub(crate) environment: Words,
    pub(crate) actions: &'a [Action],
    pub(crate) attributes: Attributes,
}

/// Makes a child that executes a program; returns its id once it does.
///
/// # Safety
/// What the plan points to is as `posix_spawn` wants it.
pub(crate) unsafe fn spawn(turn: &mut Turn, plan: &Plan<'_>) -> Result<c_int, c_int> {
    let me = turn.me();
    let before = turn.shared().signals.mask(me);
    // No handler may run in the child.
    turn.shared()
        .signals
        .set_mask(me, Set(u64::MAX).blockable());
    let forked = fork::fork_for_exec(turn);
    if forked == 0 {
        // SAFETY: the caller promises that what the plan points to is as `posix_spawn` wants it.
        unsafe { become_program(plan, before) }
    }
    let result = if forked < 0 {
        Err(-forked as c_int)
    } else {
        await_program(turn, forked as c_int)
    };
    turn.shared().signals.set_mask(me, before);
    if turn.signal_due() {
        turn.deliver();
    }
    result
}

/// Waits until a child executes its program, or has said why it can't.
fn await_program(turn: &mut Turn, pid: c_int) -> Result<c_int, c_int> {
    let Some(child) = turn.shared().process_by_id(pid) else {
        return Err(libc::ECHILD);
    };
    let at = usize::from(child);
    turn.shared().processes[at].spawning = true;
    loop {
        let process = turn.shared().processes[at];
        if process.executed || process.ended {
            break;
        }
        turn.block(CHILD, None);
    }
    let process = &mut turn.shared().processes[at];
    process.spawning = false;
    let (failure, ended) = (process.spawn_error, process.ended);
    if failure != 0 {
        wait::collect(turn, child);
        return Err(failure);
    }
    if ended && wait::waits_for_nobody(turn, turn.process()) {
        exit::discard(turn, child);
    }
    Ok(pid)
}

/// The child's part. Ends without a word if it can't: its maker is told why.
///
/// # Safety
/// The calling process is the child that was forked for this plan, whose pointers are valid.
unsafe fn become_program(plan: &Plan<'_>, mask: Set) -> ! {
    // SAFETY: the caller promises that the calling process is the child that was forked for this
    // plan, whose pointers are valid.
    let failed = unsafe {
        match prepare(plan, mask) {
            Err(errno) => errno,
            Ok(()) => {
                let (program, arguments) = (plan.program, plan.arguments);
                let failed = if plan.search {
                    execute_file(program, arguments, plan.environment)
                } else {
                    execute_path(program, arguments, plan.environment)
                };
                -failed as c_int
            }
        }
    };
    if let Some(mut turn) = Turn::have() {
        let process = usize::from(turn.process());
        turn.shared().processes[process].spawn_error = failed;
    }
    // SAFETY: no preconditions.
    unsafe { exit::_exit(127) }
}

/// Applies attributes and file actions; `Err` is an errno.
///
/// # Safety
/// As [`become_program`].
unsafe fn prepare(plan: &Plan<'_>, mask: Set) -> Result<(), c_int> {
    let attributes = &plan.attributes;
    if attributes.has(libc::POSIX_SPAWN_SETSIGDEF) {
        for number in 1..=SIGNAL_MAX {
            if Set(attributes.defaults[0]).has(number) {
                action::signal(c_int::from(number), vsignal::DEFAULT);
            }
        }
    }
    if attributes.has(libc::POSIX_SPAWN_SETSID.into()) {
        pgrp::setsid();
    }
    if attributes.has(libc::POSIX_SPAWN_SETPGROUP) {
        check(pgrp::set_group(0, attributes.group))?;
    }
    if attributes.has(libc::POSIX_SPAWN_RESETIDS) {
        // SAFETY: plain integers.
        unsafe {
            let (user, group) = (sys!(libc::SYS_getuid), sys!(libc::SYS_getgid));
            check(sys!(libc::SYS_setresuid, -1isize, user, -1isize))?;
            check(sys!(libc::SYS_setresgid, -1isize, group, -1isize))?;
        }
    }
    for action in plan.actions {
        // SAFETY: the caller's promise.
        unsafe { act(action) }?;
    }
    let mut wanted = [0; 16];
    wanted[0] = mask.0;
    if attributes.has(libc::POSIX_SPAWN_SETSIGMASK) {
        wanted = attributes.mask;
    }
    // SAFETY: a whole set, nothing wanted back.
    unsafe {
        let none = core::ptr::null_mut();
        mask::sigprocmask(libc::SIG_SETMASK, wanted.as_ptr().cast(), none);
    }
    Ok(())
}

/// A kernel-style result as a `Result`.
pub(crate) fn check(result: isize) -> Result<isize, c_int> {
    if result < 0 {
        Err(-result as c_int)
    } else {
        Ok(result)
    }
}

/// Does one file action; `Err` is an errno.
///
/// # Safety
/// The paths in the action end with a NUL.
unsafe fn act(action: &Action) -> Result<(), c_int> {
    let (fd, other) = action.descriptors();
    match action.tag {
        tag::CLOSE => match check(close_(fd)) {
            Err(libc::EBADF) if fd >= 0 => {}
            done => _ = done?,
        },
        tag::DUP if fd == other => {
            // SAFETY: plain integers.
            unsafe { check(sys!(sys::SYS_fcntl, fd, libc::F_SETFD, 0)) }?;
        }
        tag::DUP => _ = check(dup2_(fd, other))?,
        tag::OPEN => {
            close_(fd);
            // SAFETY: the path that the program has given.
            let new = unsafe {
                let (flags, mode) = (action.flags, action.mode);
                check(open::open_(libc::AT_FDCWD, action.path, flags, mode))? as c_int
            };
            if new != fd {
                check(dup2_(new, fd))?;
                close_(new);
            }
        }
        // SAFETY: the path that the program has given.
        tag::CHDIR => unsafe {
            check(sys!(libc::SYS_chdir, action.first))?;
        },
        // SAFETY: a plain integer.
        tag::FCHDIR => unsafe {
            check(sys!(libc::SYS_fchdir, fd))?;
        },
        // SAFETY: a plain integer.
        tag::CLOSE_FROM => unsafe { close::closefrom(fd) },
        tag::SET_TERMINAL_GROUP => return Err(libc::ENOTTY),
        _ => return Err(libc::EINVAL),
    }
    Ok(())
}

/// # Safety
/// As for `posix_spawn`.
unsafe fn posix_spawn_(
    mut turn: Turn,
    to: *mut c_int,
    program: (*const c_char, bool),
    actions: *const Actions,
    attributes: *const Attributes,
    (arguments, environment): (Words, Words),
) -> c_int {
    // SAFETY: the caller promises null or valid, with as many actions as it says.
    let plan = unsafe {
        Plan {
            program: program.0,
            search: program.1,
            arguments,
            environment,
            actions: match actions.as_ref() {
                Some(list) if list.used > 0 => {
                    core::slice::from_raw_parts(list.actions, list.used as usize)
                }
                _ => &[],
            },
            attributes: attributes.as_ref().copied().unwrap_or(Attributes::NONE),
        }
    };
    // SAFETY: the caller's promise.
    match unsafe { spawn(&mut turn, &plan) } {
        Ok(pid) => {
            if !to.is_null() {
                // SAFETY: the caller promises room.
                unsafe { to.write(pid) };
            }
            0
        }
        Err(errno) => errno,
    }
}

macro_rules! posix_spawns {
    ($($name:ident: $search:literal;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            pid: *mut c_int,
            program: *const c_char,
            actions: *const Actions,
            attributes: *const Attributes,
            arguments: Words,
            environment: Words,
        ) -> c_int {
            let words = (arguments, environment);
            match Turn::take(op::FORK) {
                // SAFETY: the caller's promise.
                Some(turn) => unsafe {
                    posix_spawn_(turn, pid, (program, $search), actions, attributes, words)
                },
                None => libc_own!($name(
                    pid: *mut c_int, program: *const c_char, actions: *const Actions,
                    attributes: *const Attributes, arguments: Words, environment: Words
                ) -> c_int),
            }
        }
    )* };
}
posix_spawns! {
    posix_spawn: false;
    posix_spawnp: true;
}
