//! The end of a process, and of the tree.

use super::wait;
use crate::hooks::fd::close;
use crate::hooks::fs::lock;
use crate::hooks::ipc::sysv;
use crate::hooks::stdio::stream;
use crate::hooks::thread::sync;
use crate::hooks::time::alarm;
use crate::shared::{FIRST, INIT};
use crate::sys::{self, sys};
use crate::turn::keys::CHILD;
use crate::turn::{self, Turn};
use brolga_tape::operation as op;
use brolga_vnet::PROCESSES_MAX;
use core::ffi::{c_int, c_void};
pub(crate) type OnExit = unsafe extern "C" fn(c_int, *mut c_void);

unsafe extern "C" {
    fn on_exit(function: OnExit, argument: *mut c_void) -> c_int;
}

/// Registers what runs when the process ends.
pub fn resolve() {
    // Registered first, so run last.
    // SAFETY: a function with the right signature that stays.
    unsafe { on_exit(exiting, core::ptr::null_mut()) };
}

pub(crate) unsafe extern "C" fn exiting(status: c_int, _: *mut c_void) {
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

/// Returns whether no other process of the tree is alive.
fn is_last(turn: &mut Turn) -> bool {
    let me = turn.process();
    let mut processes = turn.shared().processes.iter().enumerate();
    !processes.any(|(at, it)| at != usize::from(me) && it.is_there() && !it.ended)
}

/// The server is over. What its user is told is the status of the program that was started, as a
/// shell would see it; if that ended well before, leaving a daemon, then that of the last process.
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

/// The first process ends and others go on: a daemon that was started, children left behind. For
/// the node and the kernel the first process is the root of the tree and has to stay; for the tree
/// it is gone.
pub(crate) fn outlive(mut turn: Turn, status: c_int) -> ! {
    turn.shared().first_status = status;
    mark_ended(&mut turn, FIRST, status);
    close::close_all();
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
    alarm::forget(turn, process, false);
    sysv::process_gone(turn, process);
    lock::released(turn);
    turn.scheduler().remove_soft_barriers(process);
    leave_children(turn, process);
    turn.real_changed();
    tell_parent(turn, process);
    turn.wake(CHILD, usize::MAX);
}

/// The parent of a process that has ended gets a signal; if it does not want to wait, or is not in
/// the tree, that was all.
fn tell_parent(turn: &mut Turn, process: u16) {
    let child = turn.shared().processes[usize::from(process)];
    if child.parent != INIT {
        turn.post_to_process(child.parent, wait::told_by_signal(&child));
    }
    if !child.spawning && wait::waits_for_nobody(turn, child.parent) {
        discard(turn, process);
    }
}

/// Notes that no call will wait for a process that has ended. Its slot is free once the kernel's
/// remains are collected, which only the process that is its parent there can do.
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

/// Kills a process of the tree outright; it can't have the turn, since we have it. Its parent is
/// told of `signal`. Returns when it is really gone: the killer may look at its pipes next.
pub(crate) fn kill_outright(turn: &mut Turn, process: u16, signal: c_int) {
    let real_pid = turn.shared().processes[usize::from(process)].real_pid;
    // SAFETY: plain integers.
    unsafe { sys!(sys::SYS_kill, real_pid, libc::SIGKILL) };
    remove_threads(turn, process, None);
    turn::wait_for_end(real_pid);
    mark_ended(turn, process, signal);
}
