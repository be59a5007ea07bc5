//! Children that libc makes by itself: `posix_spawn`, `system`, `popen`. Here they are children of our own
//! fork that execute a program, so they are in the schedule like any others.

use super::exec::{Words, execute_file, execute_path, own_environment};
use super::fork::{self, CHILD};
use super::{pgrp, wait};
use crate::hooks::fd::descriptor::{self, close_, dup2_, pipe2_};
use crate::hooks::fs::open;
use crate::hooks::signal::action::{self, Sigaction};
use crate::hooks::stdio::stream;
use crate::hooks::{error, finish_status, op};
use crate::libc_symbols::libc_own;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_vsignal::{self as vsignal, SIGNAL_MAX, Set};
use core::ffi::{c_char, c_int, c_short, c_void};
use core::sync::atomic::{AtomicI32, Ordering};

/// One of glibc's file actions, `struct __spawn_action`: a tag, then what depends on it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Action {
    tag: c_int,
    /// Descriptors (the second in the upper half), or the path of `chdir`.
    first: u64,
    /// What `open` needs beyond the descriptor.
    path: *const c_char,
    flags: c_int,
    mode: u32,
}

const _: () = assert!(size_of::<Action>() == 32);

mod tag {
    pub const CLOSE: i32 = 0;
    pub const DUP: i32 = 1;
    pub const OPEN: i32 = 2;
    pub const CHDIR: i32 = 3;
    pub const FCHDIR: i32 = 4;
    pub const CLOSE_FROM: i32 = 5;
    pub const SET_TERMINAL_GROUP: i32 = 6;
}

impl Action {
    const fn on(tag: c_int, fd: c_int, other: c_int) -> Self {
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
    flags: c_short,
    group: c_int,
    defaults: [u64; 16],
    mask: [u64; 16],
}

impl Attributes {
    const NONE: Self = Self {
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
struct Plan<'a> {
    program: *const c_char,
    /// Look for it in `PATH`.
    search: bool,
    arguments: Words,
    environment: Words,
    actions: &'a [Action],
    attributes: Attributes,
}

/// Makes a child that executes a program; returns its id once it does.
///
/// # Safety
/// What the plan points to is as `posix_spawn` wants it.
unsafe fn spawn(turn: &mut Turn, plan: &Plan<'_>) -> Result<c_int, c_int> {
    let me = turn.me();
    let before = turn.shared().signals.mask(me);
    // No handler may run in the child.
    turn.shared()
        .signals
        .set_mask(me, Set(u64::MAX).blockable());
    let forked = fork::fork_for_exec(turn);
    if forked == 0 {
        // SAFETY: the caller's promise.
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
        fork::discard(turn, child);
    }
    Ok(pid)
}

/// The child's part. Ends without a word if it can't: its maker is told why.
unsafe fn become_program(plan: &Plan<'_>, mask: Set) -> ! {
    // SAFETY: the caller's promise.
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
    unsafe { fork::_exit(127) }
}

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
        action::sigprocmask(libc::SIG_SETMASK, wanted.as_ptr().cast(), none);
    }
    Ok(())
}

fn check(result: isize) -> Result<isize, c_int> {
    if result < 0 {
        Err(-result as c_int)
    } else {
        Ok(result)
    }
}

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
        tag::CLOSE_FROM => unsafe { descriptor::closefrom(fd) },
        tag::SET_TERMINAL_GROUP => return Err(libc::ENOTTY),
        _ => return Err(libc::EINVAL),
    }
    Ok(())
}

// ---- posix_spawn ----

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

// ---- system ----

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
fn shell<'a>(arguments: &[*const c_char; 4], actions: &'a [Action]) -> Plan<'a> {
    Plan {
        program: c"/bin/sh".as_ptr(),
        search: false,
        arguments: arguments.as_ptr(),
        environment: own_environment(),
        actions,
        attributes: Attributes::NONE,
    }
}

fn shell_words(command: *const c_char) -> [*const c_char; 4] {
    [c"sh".as_ptr(), c"-c".as_ptr(), command, core::ptr::null()]
}

/// Runs a command to its end; its status as `waitpid` gives it.
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
        action::sigprocmask(
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
        action::sigprocmask(
            libc::SIG_SETMASK,
            before.as_ptr().cast(),
            core::ptr::null_mut(),
        );
    }
    status
}

/// Waits for one child, whatever signals come.
fn wait_for(pid: c_int) -> isize {
    match Turn::have() {
        Some(mut turn) => match wait::reap_one(&mut turn, pid) {
            Ok(status) => status as isize,
            Err(errno) => error(errno),
        },
        None => error(libc::ECHILD),
    }
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

// ---- popen ----

/// Our ends of the pipes to commands that were not closed yet: later commands must not have them.
/// Beyond so many they do.
const PIPES_MAX: usize = 64;
static PIPES: [AtomicI32; PIPES_MAX] = [const { AtomicI32::new(-1) }; PIPES_MAX];

fn note_pipe(from: c_int, to: c_int) {
    if let Some(place) = PIPES.iter().find(|fd| fd.load(Ordering::Relaxed) == from) {
        place.store(to, Ordering::Relaxed);
    }
}

/// Closes the stream of a command and waits for the command's end.
pub(crate) fn close_pipe(fd: c_int, pid: c_int) -> c_int {
    note_pipe(fd, -1);
    close_(fd);
    finish_status(wait_for(pid))
}

/// What a mode of `popen` asks for: reading, and closing our end at exec.
unsafe fn popen_mode(mut mode: *const c_char) -> Option<(bool, bool)> {
    let (mut reads, mut writes, mut close) = (false, false, false);
    loop {
        // SAFETY: the caller promises a NUL-terminated mode.
        let letter = unsafe { *mode }.cast_unsigned();
        match letter {
            0 => return (reads != writes).then_some((reads, close)),
            b'r' => reads = true,
            b'w' => writes = true,
            b'e' => close = true,
            _ => return None,
        }
        mode = mode.wrapping_add(1);
    }
}

unsafe fn popen_(
    turn: &mut Turn,
    command: *const c_char,
    mode: *const c_char,
) -> Result<*mut c_void, c_int> {
    // SAFETY: the caller promises a NUL-terminated mode.
    let (reads, close) = unsafe { popen_mode(mode) }.ok_or(libc::EINVAL)?;
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { pipe2_(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let [ours, theirs] = if reads { ends } else { [ends[1], ends[0]] };
    let standard = c_int::from(reads);
    let mut actions = [Action::on(tag::DUP, theirs, standard); PIPES_MAX + 1];
    let mut used = 1;
    for pipe in &PIPES {
        let fd = pipe.load(Ordering::Relaxed);
        if fd >= 0 && fd != standard {
            actions[used] = Action::on(tag::CLOSE, fd, 0);
            used += 1;
        }
    }
    let words = shell_words(command);
    // SAFETY: the caller's command.
    let made = unsafe { spawn(turn, &shell(&words, &actions[..used])) };
    close_(theirs);
    let pid = made.inspect_err(|_| _ = close_(ours))?;
    if !close {
        // SAFETY: plain integers.
        unsafe { sys!(sys::SYS_fcntl, ours, libc::F_SETFD, 0) };
    }
    note_pipe(-1, ours);
    let mode = if reads { c"r" } else { c"w" };
    let stream = stream::open_command(ours, pid, mode);
    if stream.is_null() {
        close_pipe(ours, pid);
        return Err(libc::ENOMEM);
    }
    Ok(stream)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn popen(command: *const c_char, mode: *const c_char) -> *mut c_void {
    let Some(mut turn) = Turn::take(op::FORK) else {
        return libc_own!(popen(command: *const c_char, mode: *const c_char) -> *mut c_void);
    };
    // SAFETY: the caller's promise.
    unsafe { popen_(&mut turn, command, mode) }.unwrap_or_else(|errno| {
        sys::set_errno(errno);
        core::ptr::null_mut()
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn _IO_popen(command: *const c_char, mode: *const c_char) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { popen(command, mode) }
}
