//! Process groups and sessions: logical state only.
//!
//! The kernel keeps the whole tree in the group that the launcher made, whatever the server asks
//! for, so that the node reaches every process of the tree by one number.

use crate::hooks::result::{error, finish};
use crate::shared::Process;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_tape::operation as op;
use core::ffi::c_int;

/// The process that a selector names: 0 is the caller's.
fn process_named(turn: &mut Turn, pid: c_int) -> Option<u16> {
    match pid {
        0 => Some(turn.process()),
        pid => turn.shared().process_by_id(pid),
    }
}

fn living(turn: &mut Turn) -> impl Iterator<Item = &Process> {
    let processes = turn.shared().processes.iter();
    processes.filter(|process| process.is_there())
}

fn ask(pid: c_int, number: i64, answer: impl Fn(&Process) -> c_int) -> isize {
    let Some(mut turn) = Turn::have() else {
        // SAFETY: a plain integer.
        return unsafe { sys!(number, pid) };
    };
    match process_named(&mut turn, pid) {
        Some(process) => answer(&turn.shared().processes[usize::from(process)]) as isize,
        None => error(libc::ESRCH),
    }
}

fn group_of(pid: c_int) -> isize {
    ask(pid, libc::SYS_getpgid, |process| process.group)
}

#[unsafe(no_mangle)]
pub extern "C" fn getpgid(pid: c_int) -> c_int {
    finish(group_of(pid)) as c_int
}

#[unsafe(no_mangle)]
pub extern "C" fn __getpgid(pid: c_int) -> c_int {
    getpgid(pid)
}

#[unsafe(no_mangle)]
pub extern "C" fn getpgrp() -> c_int {
    getpgid(0)
}

#[unsafe(no_mangle)]
pub extern "C" fn getsid(pid: c_int) -> c_int {
    finish(ask(pid, libc::SYS_getsid, |process| process.session)) as c_int
}

/// Puts a process into a group.
pub(crate) fn set_group(pid: c_int, group: c_int) -> isize {
    let Some(mut turn) = Turn::take(op::GROUP) else {
        // SAFETY: plain integers.
        return unsafe { sys!(libc::SYS_setpgid, pid, group) };
    };
    if group < 0 {
        return error(libc::EINVAL);
    }
    let me = turn.process();
    let caller = turn.shared().processes[usize::from(me)];
    let Some(at) = process_named(&mut turn, pid) else {
        return error(libc::ESRCH);
    };
    let process = turn.shared().processes[usize::from(at)];
    if at != me && process.parent != me {
        return error(libc::ESRCH);
    }
    if process.session != caller.session || process.session == process.pid {
        return error(libc::EPERM);
    }
    if at != me && process.executed {
        return error(libc::EACCES);
    }
    let group = if group == 0 { process.pid } else { group };
    let session = process.session;
    let exists = living(&mut turn).any(|other| other.group == group && other.session == session);
    if group != process.pid && !exists {
        return error(libc::EPERM);
    }
    turn.shared().processes[usize::from(at)].group = group;
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn setpgid(pid: c_int, group: c_int) -> c_int {
    finish(set_group(pid, group)) as c_int
}

#[unsafe(no_mangle)]
pub extern "C" fn __setpgid(pid: c_int, group: c_int) -> c_int {
    setpgid(pid, group)
}

#[unsafe(no_mangle)]
pub extern "C" fn setpgrp() -> c_int {
    setpgid(0, 0)
}

fn new_session() -> isize {
    let Some(mut turn) = Turn::take(op::GROUP) else {
        // SAFETY: no arguments.
        return unsafe { sys!(libc::SYS_setsid) };
    };
    let me = usize::from(turn.process());
    let pid = turn.shared().processes[me].pid;
    if living(&mut turn).any(|process| process.group == pid) {
        return error(libc::EPERM);
    }
    let process = &mut turn.shared().processes[me];
    process.group = pid;
    process.session = pid;
    pid as isize
}

#[unsafe(no_mangle)]
pub extern "C" fn setsid() -> c_int {
    finish(new_session()) as c_int
}

/// No terminal belongs to the tree.
fn no_terminal(fd: c_int, request: u64) -> c_int {
    if Turn::is_scheduled() {
        return finish(error(libc::ENOTTY)) as c_int;
    }
    let mut id: c_int = 0;
    // SAFETY: room for an int.
    let result = unsafe { sys!(sys::SYS_ioctl, fd, request, &raw mut id) };
    if result < 0 {
        finish(result) as c_int
    } else {
        id
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn tcgetpgrp(fd: c_int) -> c_int {
    no_terminal(fd, libc::TIOCGPGRP)
}

#[unsafe(no_mangle)]
pub extern "C" fn tcgetsid(fd: c_int) -> c_int {
    no_terminal(fd, libc::TIOCGSID)
}

#[unsafe(no_mangle)]
pub extern "C" fn tcsetpgrp(fd: c_int, group: c_int) -> c_int {
    if Turn::is_scheduled() {
        return finish(error(libc::ENOTTY)) as c_int;
    }
    // SAFETY: a valid int.
    finish(unsafe { sys!(sys::SYS_ioctl, fd, libc::TIOCSPGRP, &raw const group) }) as c_int
}
