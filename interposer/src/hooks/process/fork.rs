//! Processes: fork, wait, exit, kill, ids.
//!
//! The whole tree is under one scheduler. A child of `fork` is a thread of the schedule like any other;
//! it ends logically in its last hook, and whoever takes the turn next waits until the kernel agrees,
//! so that its descriptors are closed (end of file on its pipes) and it can be reaped.

use super::{pgrp, wait};
use crate::hooks::fd::{descriptor, lock};
use crate::hooks::ipc::sysv;
use crate::hooks::stdio::stream;
use crate::hooks::thread::sync;
use crate::hooks::time::timer;
use crate::hooks::{error, op};
use crate::libc_symbols::{Real, libc_own};
use crate::shared::{FIRST, INIT, INIT_PID, Process, ThreadInfo};
use crate::sys::{self, finish, sys};
use crate::turn::{self, Turn, space};
use brolga_dmt::Key;
use brolga_vnet::PROCESSES_MAX;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicI32, Ordering};

type Fork = unsafe extern "C" fn() -> c_int;
type OnExit = unsafe extern "C" fn(c_int, *mut c_void);

static FORK: Real = Real::new(c"fork");
/// Without the program's atfork handlers.
static FORK_ONLY: Real = Real::new(c"_Fork");
static EXIT: Real = Real::new(c"_exit");

/// Signalled when a process ends.
pub(crate) const CHILD: Key = Key {
    space: space::CHILD,
    id: 0,
};

unsafe extern "C" {
    fn __register_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
        library: *mut c_void,
    ) -> c_int;
    fn on_exit(function: OnExit, argument: *mut c_void) -> c_int;
}

pub fn resolve() {
    FORK.get();
    FORK_ONLY.get();
    EXIT.get();
    // Registered first, so run last.
    // SAFETY: a function with the right signature that stays.
    unsafe { on_exit(exiting, core::ptr::null_mut()) };
    // Registered first, so first to run in a child: the handlers of others (allocators unlock their
    // mutexes there) run beside the parent, which has the turn, and must not count as its operations.
    // SAFETY: functions with the right signature that stay.
    unsafe { __register_atfork(None, None, Some(leave_in_child), core::ptr::null_mut()) };
}

/// Kernel id of the process while it forks, else 0.
static FORKING: AtomicI32 = AtomicI32::new(0);

/// Whether this is a child that libc is still making: its parent has the turn.
pub fn is_being_made() -> bool {
    let parent = FORKING.load(Ordering::Relaxed);
    // SAFETY: no arguments.
    parent != 0 && unsafe { sys!(sys::SYS_getpid) } as i32 != parent
}

extern "C" fn leave_in_child() {
    crate::tls::set_thread_ix(0);
}

unsafe extern "C" fn exiting(status: c_int, _: *mut c_void) {
    if Turn::is_scheduled() {
        stream::flush_at_exit();
    }
    end((status & 0xFF) << 8);
}

/// The calling process ends with a status as `waitpid` gives it.
pub(crate) fn end(status: c_int) {
    let Some(mut turn) = Turn::take(op::EXIT) else {
        return;
    };
    let (me, process) = (turn.me(), turn.process());
    if is_last(&mut turn) {
        end_tree(&mut turn, status);
        return;
    }
    if process == FIRST {
        outlive(turn, status);
    }
    let real_pid = turn.shared().processes[usize::from(process)].real_pid;
    mark_ended(&mut turn, process, status);
    remove_threads(&mut turn, process, Some(me));
    turn.shared().dying_pid = real_pid;
    turn.scheduler().exit();
    turn.scheduler().remove(me);
    turn.leave();
}

/// Whether no other process of the tree is alive.
fn is_last(turn: &mut Turn) -> bool {
    let me = turn.process();
    let mut processes = turn.shared().processes.iter().enumerate();
    !processes.any(|(at, it)| at != usize::from(me) && it.is_there() && !it.ended)
}

/// The server is over. What its user is told is the status of the program that was started, as a shell
/// would see it; if that ended well before, leaving a daemon, then that of the last process.
fn end_tree(turn: &mut Turn, status: c_int) {
    let process = usize::from(turn.process());
    let shared = turn.shared();
    let told = match shared.first_status {
        0 => status,
        first => first,
    };
    let real_pid = shared.processes[process].real_pid;
    // What clients were told last is complete.
    let (net, mut outside) = turn.net();
    net.clear_process(process as u16, &mut outside);
    turn::announce_exit(told);
    turn::end_tree(real_pid, told);
}

/// The first process ends and others go on: a daemon that was started, children left behind. For the node
/// and the kernel the first process is the root of the tree and has to stay; for the tree it is gone.
fn outlive(mut turn: Turn, status: c_int) -> ! {
    turn.shared().first_status = status;
    mark_ended(&mut turn, FIRST, status);
    descriptor::close_all();
    let me = turn.me();
    loop {
        let scheduler = turn.scheduler();
        let other = |ix: &u16| {
            *ix != me && scheduler.thread(*ix).process == FIRST && !scheduler.has_exited(*ix)
        };
        let Some(ix) = scheduler.living().find(other) else {
            break;
        };
        // It sleeps on for ever, so its slot is not used again.
        turn.scheduler().retire(ix);
    }
    sync::threads_gone(&mut turn);
    turn.scheduler().exit();
    turn.leave();
    turn::await_end_of_tree()
}

fn mark_ended(turn: &mut Turn, process: u16, status: c_int) {
    let entry = &mut turn.shared().processes[usize::from(process)];
    entry.ended = true;
    entry.status = status;
    let (net, mut outside) = turn.net();
    net.clear_process(process, &mut outside);
    timer::forget(turn, process, false);
    sysv::process_gone(turn, process);
    lock::released(turn);
    turn.scheduler().remove_soft_barriers(process);
    leave_children(turn, process);
    turn.real_changed();
    tell_parent(turn, process);
    turn.wake(CHILD, usize::MAX);
}

/// The parent of a process that has ended gets a signal; if it does not want to wait, or is not in the
/// tree, that was all.
fn tell_parent(turn: &mut Turn, process: u16) {
    let child = turn.shared().processes[usize::from(process)];
    if child.parent != INIT {
        turn.post_to_process(child.parent, wait::told_by_signal(&child));
    }
    if !child.spawning && wait::waits_for_nobody(turn, child.parent) {
        discard(turn, process);
    }
}

/// Nobody will wait for a process that has ended. Its slot is free once the kernel's remains are
/// collected, which only the process that is its parent there can do.
pub(crate) fn discard(turn: &mut Turn, process: u16) {
    let root_is_gone = turn.shared().processes[usize::from(FIRST)].real_pid == 0;
    let entry = &mut turn.shared().processes[usize::from(process)];
    if process == FIRST || (entry.collector == FIRST && root_is_gone) {
        // The kernel collects for a root that only keeps its place.
        entry.real_pid = 0;
    } else {
        entry.discarded = true;
    }
}

/// Children of a process that has ended: nobody's now, and the root collects what the kernel keeps.
fn leave_children(turn: &mut Turn, parent: u16) {
    for at in 0..PROCESSES_MAX as u16 {
        let entry = &mut turn.shared().processes[usize::from(at)];
        if entry.real_pid == 0 || at == parent {
            continue;
        }
        if entry.collector == parent {
            entry.collector = FIRST;
        }
        if entry.parent == parent {
            entry.parent = INIT;
            if entry.ended {
                discard(turn, at);
            }
        }
    }
}

/// The calling process ends of a signal.
pub fn die_of(signal: c_int) -> ! {
    end(signal);
    sys::die(128 + signal)
}

fn remove_threads(turn: &mut Turn, process: u16, but: Option<u16>) {
    loop {
        let scheduler = turn.scheduler();
        let doomed = |ix: &u16| Some(*ix) != but && scheduler.thread(*ix).process == process;
        let Some(ix) = scheduler.living().find(doomed) else {
            break;
        };
        turn.scheduler().remove(ix);
    }
    sync::threads_gone(turn);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn _exit(status: c_int) -> ! {
    end((status & 0xFF) << 8);
    sys::die(status)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Exit(status: c_int) -> ! {
    // SAFETY: the same function.
    unsafe { _exit(status) }
}

/// A free process slot.
fn free_slot(turn: &mut Turn) -> Option<u16> {
    let processes = &turn.shared().processes;
    let at = (1..PROCESSES_MAX).find(|at| processes[*at].real_pid == 0)?;
    u16::try_from(at).ok()
}

/// A child that is about to execute a program: without the program's atfork handlers.
pub(crate) fn fork_for_exec(turn: &mut Turn) -> isize {
    fork_(turn, &FORK_ONLY)
}

/// In the child the turn is the child's.
fn fork_(turn: &mut Turn, own: &Real) -> isize {
    let (parent, me) = (turn.process(), turn.me());
    wait::collect_discarded(turn);
    let Some(child) = free_slot(turn) else {
        return error(libc::EAGAIN);
    };
    let Some(ix) = turn.scheduler().reserve(child) else {
        return error(libc::EAGAIN);
    };
    if !sysv::process_made(turn, child) {
        sysv::process_not_made(turn, child);
        turn.scheduler().remove(ix);
        return error(libc::ENOMEM);
    }
    let pid = turn.shared().take_id();
    let shared = turn.shared();
    let ThreadInfo {
        handle,
        cancel,
        priority,
        ..
    } = *shared.thread(me);
    *shared.thread(ix) = ThreadInfo {
        cancel,
        priority,
        ..ThreadInfo::new(pid, handle)
    };
    // A placeholder keeps the slot until the kernel's id is known.
    let Process { group, session, .. } = shared.processes[usize::from(parent)];
    shared.processes[usize::from(child)] = Process {
        real_pid: -1,
        pid,
        parent,
        group,
        session,
        executed: false,
        ended: false,
        discarded: false,
        spawning: false,
        spawn_error: 0,
        collector: parent,
        status: 0,
    };
    shared.net.copy_descriptors(parent, child);
    shared.signals.process_made(parent, child);
    shared.signals.thread_made(me, ix);
    // SAFETY: no arguments; then one of libc's own forks.
    let real_pid = unsafe {
        FORKING.store(sys!(sys::SYS_getpid) as i32, Ordering::Relaxed);
        let real: Fork = core::mem::transmute(own.get());
        real()
    };
    FORKING.store(0, Ordering::Relaxed);
    if real_pid == 0 {
        let result = start_child(child, ix);
        turn.refresh_me();
        return result;
    }
    if real_pid < 0 {
        // SAFETY: plain errno of the failed call.
        let errno = unsafe { *libc::__errno_location() };
        turn.scheduler().remove(ix);
        sysv::process_not_made(turn, child);
        let (net, mut outside) = turn.net();
        net.clear_process(child, &mut outside);
        turn.shared().processes[usize::from(child)].real_pid = 0;
        return error(errno);
    }
    turn.shared().processes[usize::from(child)].real_pid = real_pid;
    turn.scheduler().begin(ix);
    pid as isize
}

fn start_child(process: u16, ix: u16) -> isize {
    // SAFETY: a forked child has one thread.
    unsafe { turn::set_process(process) };
    let mut turn = Turn::arrive_forked(ix);
    // SAFETY: no arguments.
    let real = unsafe { sys!(sys::SYS_getpid) } as i32;
    turn.shared().processes[usize::from(process)].real_pid = real;
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fork() -> c_int {
    match Turn::take(op::FORK) {
        Some(mut turn) => finish(fork_(&mut turn, &FORK)) as c_int,
        // SAFETY: libc's own fork.
        None => unsafe {
            let real: Fork = core::mem::transmute(FORK.get());
            real()
        },
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __fork() -> c_int {
    // SAFETY: fork has no preconditions.
    unsafe { fork() }
}

/// Differs from fork in that the program's atfork handlers don't run, and may be called where they could
/// not; a call of ours is never in the middle of anything, so running them does no harm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Fork() -> c_int {
    // SAFETY: fork has no preconditions.
    unsafe { fork() }
}

/// libc's own forks inside libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daemon(stay: c_int, keep: c_int) -> c_int {
    if !Turn::is_scheduled() {
        return libc_own!(daemon(stay: c_int, keep: c_int) -> c_int);
    }
    // SAFETY: fork and _exit have no preconditions.
    unsafe {
        match fork() {
            -1 => return -1,
            0 => {}
            _ => _exit(0),
        }
    }
    pgrp::setsid();
    if stay == 0 {
        // SAFETY: a NUL-terminated path.
        unsafe { sys!(libc::SYS_chdir, c"/".as_ptr()) };
    }
    if keep == 0 {
        // SAFETY: a NUL-terminated path, then plain integers.
        unsafe {
            let null = finish(sys!(
                sys::SYS_openat,
                libc::AT_FDCWD,
                c"/dev/null".as_ptr(),
                libc::O_RDWR
            ));
            if null < 0 {
                return -1;
            }
            for standard in 0..=2 {
                descriptor::dup2(null as c_int, standard);
            }
            if null > 2 {
                descriptor::close_(null as c_int);
            }
        }
    }
    0
}

/// A child that shared our stack could not wait for its turn: fork does what is promised of vfork,
/// but for the memory that is not shared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfork() -> c_int {
    // SAFETY: fork has no preconditions.
    unsafe { fork() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vfork() -> c_int {
    // SAFETY: fork has no preconditions.
    unsafe { fork() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpid() -> c_int {
    // SAFETY: no arguments.
    Turn::process_id().unwrap_or_else(|| unsafe { sys!(sys::SYS_getpid) as c_int })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getppid() -> c_int {
    match Turn::have() {
        Some(mut turn) => {
            let process = turn.process();
            let shared = turn.shared();
            match shared.processes[usize::from(process)].parent {
                INIT => INIT_PID,
                parent => shared.processes[usize::from(parent)].pid,
            }
        }
        // SAFETY: no arguments.
        None => unsafe { sys!(sys::SYS_getppid) as c_int },
    }
}

/// Kills a process of the tree outright; it can't have the turn, since we have it. Its parent is told
/// of `signal`. Returns when it is really gone: the killer may look at its pipes next.
pub(crate) fn kill_outright(turn: &mut Turn, process: u16, signal: c_int) {
    let real_pid = turn.shared().processes[usize::from(process)].real_pid;
    // SAFETY: plain integers.
    unsafe { sys!(sys::SYS_kill, real_pid, libc::SIGKILL) };
    remove_threads(turn, process, None);
    turn::wait_for_end(real_pid);
    mark_ended(turn, process, signal);
}

/// Whether `kill`'s selector means a process that is there.
pub(crate) fn is_meant(turn: &mut Turn, process: u16, selector: c_int) -> bool {
    let me = turn.process();
    let processes = &turn.shared().processes;
    let (it, caller) = (
        &processes[usize::from(process)],
        &processes[usize::from(me)],
    );
    if !it.is_there() {
        return false;
    }
    match selector {
        -1 => process != me,
        0 => it.group == caller.group,
        group if group < 0 => it.group == -group,
        pid => it.pid == pid,
    }
}

/// The process runs another program now.
pub fn after_exec(turn: &mut Turn) {
    let process = usize::from(turn.process());
    turn.shared().processes[process].executed = true;
    // Whoever has spawned it waits for that.
    turn.wake(CHILD, usize::MAX);
}
