//! Processes: fork, wait, exit, kill, ids.
//!
//! The whole tree is under one scheduler. A child of `fork` is a thread of the schedule like any other;
//! it ends logically in its last hook, and whoever takes the turn next waits until the kernel agrees,
//! so that its descriptors are closed (end of file on its pipes) and it can be reaped.

use super::machine::Real;
use super::{error, op};
use crate::shared::{INIT, INIT_PID, Process, ThreadInfo};
use crate::sys::{self, finish, sys};
use crate::turn::{self, Turn, space};
use brolga_dmt::{Key, Wakeup};
use brolga_vnet::PROCESSES_MAX;
use brolga_vsignal::Info;
use core::ffi::{c_int, c_void};

type Fork = unsafe extern "C" fn() -> c_int;
type OnExit = unsafe extern "C" fn(c_int, *mut c_void);

static FORK: Real = Real::new(c"fork");
static EXIT: Real = Real::new(c"_exit");

const CHILD: Key = Key {
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
    EXIT.get();
    // Registered first, so run last.
    // SAFETY: a function with the right signature that stays.
    unsafe { on_exit(exiting, core::ptr::null_mut()) };
    // Registered first, so first to run in a child: the handlers of others (allocators unlock their
    // mutexes there) run beside the parent, which has the turn, and must not count as its operations.
    // SAFETY: functions with the right signature that stay.
    unsafe { __register_atfork(None, None, Some(leave_in_child), core::ptr::null_mut()) };
}

extern "C" fn leave_in_child() {
    crate::tls::set_thread_ix(0);
}

unsafe extern "C" fn exiting(status: c_int, _: *mut c_void) {
    if Turn::have().is_some() {
        super::stdio::flush_at_exit();
    }
    end((status & 0xFF) << 8);
}

/// The calling process ends with a status as `waitpid` gives it.
pub(crate) fn end(status: c_int) {
    let Some(mut turn) = Turn::take(op::EXIT) else {
        return;
    };
    let (me, process) = (turn.me(), turn.process());
    if process == 0 {
        // The tree's first process: the server is over.
        turn::announce_exit(status);
        return;
    }
    mark_ended(&mut turn, process, status);
    remove_threads(&mut turn, process, Some(me));
    let shared = turn.shared();
    shared.dying_pid = shared.processes[usize::from(process)].real_pid;
    turn.scheduler().exit();
    turn.scheduler().remove(me);
    turn.leave();
}

fn mark_ended(turn: &mut Turn, process: u16, status: c_int) {
    let entry = &mut turn.shared().processes[usize::from(process)];
    entry.ended = true;
    entry.status = status;
    let (net, mut outside) = turn.net();
    net.clear_process(process, &mut outside);
    super::timer::forget(turn, process, false);
    turn.real_changed();
    turn.wake(CHILD, usize::MAX);
    tell_parent(turn, process, status);
}

/// SIGCHLD for the parent of a process that has ended.
fn tell_parent(turn: &mut Turn, process: u16, status: c_int) {
    const EXITED: i32 = 1;
    const KILLED: i32 = 2;
    let child = turn.shared().processes[usize::from(process)];
    let signal = status & 0x7F;
    let info = Info {
        signal: brolga_vsignal::CHILD,
        code: if signal == 0 { EXITED } else { KILLED },
        pid: child.pid,
        status: if signal == 0 { status >> 8 } else { signal },
        value: 0,
    };
    turn.post_to_process(child.parent, info);
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

fn fork_(mut turn: Turn) -> isize {
    let (parent, me) = (turn.process(), turn.me());
    let Some(child) = free_slot(&mut turn) else {
        return error(libc::EAGAIN);
    };
    let Some(ix) = turn.scheduler().reserve(child) else {
        return error(libc::EAGAIN);
    };
    let pid = turn.shared().take_id();
    let shared = turn.shared();
    let handle = shared.thread(me).handle;
    *shared.thread(ix) = ThreadInfo {
        tid: pid,
        handle,
        start: 0,
        argument: 0,
        detached: false,
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
        status: 0,
    };
    shared.net.copy_descriptors(parent, child);
    shared.signals.process_made(parent, child);
    shared.signals.thread_made(me, ix);
    // SAFETY: no arguments.
    let by_main_thread = unsafe { sys!(sys::SYS_getpid) == sys!(sys::SYS_gettid) };
    // SAFETY: libc's own fork, which runs the program's atfork handlers.
    let real_pid = unsafe {
        let real: Fork = core::mem::transmute(FORK.get());
        real()
    };
    if real_pid == 0 {
        return start_child(child, ix, by_main_thread);
    }
    if real_pid < 0 {
        // SAFETY: plain errno of the failed call.
        let errno = unsafe { *libc::__errno_location() };
        turn.scheduler().remove(ix);
        let (net, mut outside) = turn.net();
        net.clear_process(child, &mut outside);
        turn.shared().processes[usize::from(child)].real_pid = 0;
        return error(errno);
    }
    turn.shared().processes[usize::from(child)].real_pid = real_pid;
    turn.scheduler().begin(ix);
    pid as isize
}

fn start_child(process: u16, ix: u16, by_main_thread: bool) -> isize {
    // The child must not outlive a killed server. The kernel ties that to the parent's thread, which
    // may end long before its process does unless it is the main one.
    if by_main_thread {
        // SAFETY: plain integers.
        unsafe { sys!(sys::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    }
    // SAFETY: a forked child has one thread.
    unsafe { turn::set_process(process) };
    let mut turn = Turn::arrive(ix);
    // SAFETY: no arguments.
    let real = unsafe { sys!(sys::SYS_getpid) } as i32;
    turn.shared().processes[usize::from(process)].real_pid = real;
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fork() -> c_int {
    match Turn::take(op::FORK) {
        Some(turn) => finish(fork_(turn)) as c_int,
        // SAFETY: libc's own fork.
        None => unsafe {
            let real: Fork = core::mem::transmute(FORK.get());
            real()
        },
    }
}

/// A child that shared our stack could not wait for its turn: fork does what is promised of vfork,
/// but for the memory that is not shared.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfork() -> c_int {
    // SAFETY: fork has no preconditions.
    unsafe { fork() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpid() -> c_int {
    match Turn::have() {
        Some(mut turn) => {
            let process = usize::from(turn.process());
            turn.shared().processes[process].pid
        }
        // SAFETY: no arguments.
        None => unsafe { sys!(sys::SYS_getpid) as c_int },
    }
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

/// A child that fits `waitpid`'s selector and has ended, or whether there is one at all.
fn find_child(turn: &mut Turn, selector: c_int) -> (Option<u16>, bool) {
    let parent = turn.process();
    let mut any = false;
    let processes = &turn.shared().processes;
    for (at, process) in processes.iter().enumerate().skip(1) {
        let ours = process.real_pid != 0 && process.parent == parent;
        if !ours || (selector > 0 && process.pid != selector) {
            continue;
        }
        any = true;
        if process.ended {
            return (u16::try_from(at).ok(), true);
        }
    }
    (None, any)
}

/// Reaps an ended child: the kernel's own wait can't block, since whoever had the turn after its end
/// has seen it go.
fn reap(turn: &mut Turn, child: u16, usage: *mut libc::rusage) -> (c_int, c_int) {
    let process = turn.shared().processes[usize::from(child)];
    // SAFETY: no status wanted; then the caller's pointer, for which all zeros are valid.
    unsafe {
        sys!(sys::SYS_wait4, process.real_pid, 0, 0, 0);
        if !usage.is_null() {
            core::ptr::write_bytes(usage, 0, 1);
        }
    }
    turn.shared().processes[usize::from(child)].real_pid = 0;
    (process.pid, process.status)
}

unsafe fn wait4_(
    selector: c_int,
    status: *mut c_int,
    options: c_int,
    usage: *mut libc::rusage,
) -> isize {
    let Some(mut turn) = Turn::take(op::REAP) else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(sys::SYS_wait4, selector, status, options, usage) };
    };
    loop {
        match find_child(&mut turn, selector) {
            (Some(child), _) => {
                let (pid, value) = reap(&mut turn, child, usage);
                if !status.is_null() {
                    // SAFETY: the caller promises room for an int.
                    unsafe { status.write(value) };
                }
                return pid as isize;
            }
            (None, false) => {
                // Perhaps a helper that libc made by itself (system, posix_spawn).
                // SAFETY: the caller's pointers, passed on.
                return unsafe { sys!(sys::SYS_wait4, selector, status, options, usage) };
            }
            (None, true) if options & libc::WNOHANG != 0 => return 0,
            (None, true) => {
                if turn.block(CHILD, None) == Wakeup::Interrupted {
                    return error(libc::EINTR);
                }
            }
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn waitpid(selector: c_int, status: *mut c_int, options: c_int) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { wait4_(selector, status, options, core::ptr::null_mut()) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn wait(status: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { wait4_(-1, status, 0, core::ptr::null_mut()) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn wait3(
    status: *mut c_int,
    options: c_int,
    usage: *mut libc::rusage,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { wait4_(-1, status, options, usage) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn wait4(
    selector: c_int,
    status: *mut c_int,
    options: c_int,
    usage: *mut libc::rusage,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { wait4_(selector, status, options, usage) }) as c_int
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
    if it.real_pid == 0 {
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
}
