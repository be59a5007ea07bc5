//! Waiting for children: logical ends, in the order in which the children were created.

use crate::hooks::result::{error, finish};
use crate::shared::{INIT, Process};
use crate::sys::{self, sys};
use crate::turn::Turn;
use crate::turn::keys::CHILD;
use brolga_dmt::Wakeup;
use brolga_tape::operation as op;
use brolga_vsignal::{self as vsignal, Info};
use core::ffi::{c_int, c_uint};

/// Which children a call waits for.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    Any,
    One(c_int),
    Group(c_int),
}

impl Which {
    /// As `waitpid` has it.
    fn of_selector(turn: &mut Turn, selector: c_int) -> Self {
        match selector {
            -1 => Self::Any,
            0 => {
                let me = usize::from(turn.process());
                Self::Group(turn.shared().processes[me].group)
            }
            group if group < 0 => Self::Group(group.wrapping_neg()),
            pid => Self::One(pid),
        }
    }

    fn fits(self, process: &Process) -> bool {
        match self {
            Self::Any => true,
            Self::One(pid) => process.pid == pid,
            Self::Group(group) => process.group == group,
        }
    }
}

/// A child to wait for.
enum Found {
    Ended(u16),
    /// Children, but none that has ended.
    Running,
    None,
}

fn find(turn: &mut Turn, which: Which) -> Found {
    let parent = turn.process();
    let mut found = Found::None;
    let mut oldest = c_int::MAX;
    for (at, process) in turn.shared().processes.iter().enumerate() {
        if !process.is_there() || process.parent != parent || !which.fits(process) {
            continue;
        }
        if !process.ended || process.spawning {
            if matches!(found, Found::None) {
                found = Found::Running;
            }
        } else if process.pid < oldest {
            oldest = process.pid;
            found = Found::Ended(at as u16);
        }
    }
    found
}

/// Waits until a child that fits has ended, and gives its slot; `None` when it may not wait.
fn await_end(turn: &mut Turn, which: Which, may_wait: bool) -> Result<Option<u16>, c_int> {
    collect_discarded(turn);
    loop {
        match find(turn, which) {
            Found::Ended(child) => return Ok(Some(child)),
            Found::None => return Err(libc::ECHILD),
            Found::Running if !may_wait => return Ok(None),
            Found::Running => {
                if turn.block(CHILD, None) == Wakeup::Interrupted {
                    return Err(libc::EINTR);
                }
            }
        }
    }
}

/// Collects the kernel's remains of a process and frees its slot. The kernel's own wait can't
/// block, since whoever had the turn after its end has seen it go.
pub(crate) fn collect(turn: &mut Turn, child: u16) {
    let process = &mut turn.shared().processes[usize::from(child)];
    // SAFETY: no status wanted, no other pointers.
    unsafe { sys!(sys::SYS_wait4, process.real_pid, 0, 0, 0) };
    process.real_pid = 0;
}

/// Collects ended children of this process for which no call will wait.
pub(crate) fn collect_discarded(turn: &mut Turn) {
    let me = turn.process();
    for at in 0..brolga_vnet::PROCESSES_MAX as u16 {
        let process = &turn.shared().processes[usize::from(at)];
        if process.real_pid != 0 && process.discarded && process.collector == me {
            collect(turn, at);
        }
    }
}

/// Waits for one child to end and reaps it, whatever signals come; gives its status.
pub(crate) fn reap_one(turn: &mut Turn, pid: c_int) -> Result<c_int, c_int> {
    loop {
        match await_end(turn, Which::One(pid), true) {
            Ok(Some(child)) => {
                let status = turn.shared().processes[usize::from(child)].status;
                collect(turn, child);
                return Ok(status);
            }
            Ok(None) | Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits for a child and reaps it.
///
/// # Safety
/// As `wait4`: `status` and `usage` are null or have room.
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
    let known =
        libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED | libc::__WALL | libc::__WNOTHREAD;
    if options & !(known | libc::__WCLONE) != 0 {
        return error(libc::EINVAL);
    }
    let which = Which::of_selector(&mut turn, selector);
    let child = match await_end(&mut turn, which, options & libc::WNOHANG == 0) {
        Ok(Some(child)) => child,
        Ok(None) => return 0,
        Err(errno) => return error(errno),
    };
    let process = turn.shared().processes[usize::from(child)];
    // SAFETY: the caller promises null or room; all zeros are a valid rusage.
    unsafe {
        if !usage.is_null() {
            usage.write_bytes(0, 1);
        }
        if !status.is_null() {
            status.write(process.status);
        }
    }
    collect(&mut turn, child);
    process.pid as isize
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn waitpid(selector: c_int, status: *mut c_int, options: c_int) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { wait4_(selector, status, options, core::ptr::null_mut()) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __waitpid(selector: c_int, status: *mut c_int, options: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { waitpid(selector, status, options) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn wait(status: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { waitpid(-1, status, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wait(status: *mut c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { waitpid(-1, status, 0) }
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

/// The end of a child as a signal tells it.
pub(crate) fn told_by_signal(child: &Process) -> Info {
    const EXITED: i32 = 1;
    const KILLED: i32 = 2;
    let signal = child.status & 0x7F;
    Info {
        signal: vsignal::CHILD,
        code: if signal == 0 { EXITED } else { KILLED },
        pid: child.pid,
        status: if signal == 0 {
            child.status >> 8
        } else {
            signal
        },
        value: 0,
    }
}

/// Waits for a child and tells of its end.
///
/// # Safety
/// As `waitid`: `info` is null or has room.
unsafe fn waitid_(kind: c_uint, id: c_int, info: *mut libc::siginfo_t, options: c_int) -> isize {
    let Some(mut turn) = Turn::take(op::REAP) else {
        // SAFETY: the caller's pointer, passed on.
        return unsafe { sys!(libc::SYS_waitid, kind, id, info, options, 0) };
    };
    let ends = libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED;
    let known = ends | libc::WNOHANG | libc::WNOWAIT | libc::__WALL | libc::__WNOTHREAD;
    if options & ends == 0 || options & !(known | libc::__WCLONE) != 0 {
        return error(libc::EINVAL);
    }
    let which = match kind {
        libc::P_ALL => Which::Any,
        libc::P_PID if id > 0 => Which::One(id),
        libc::P_PGID if id >= 0 => Which::of_selector(&mut turn, -id),
        // There are no descriptors of processes: pidfd_open is refused.
        _ => return error(libc::EINVAL),
    };
    // Nothing in the tree ever stops or continues.
    let may_wait = options & libc::WNOHANG == 0;
    let found = if options & libc::WEXITED != 0 {
        await_end(&mut turn, which, may_wait)
    } else {
        match find(&mut turn, which) {
            Found::None => Err(libc::ECHILD),
            _ if may_wait => crate::turn::fault(&[b"waiting for a child to stop is not supported"]),
            _ => Ok(None),
        }
    };
    let told = match found {
        Ok(Some(child)) => {
            let process = turn.shared().processes[usize::from(child)];
            if options & libc::WNOWAIT == 0 {
                collect(&mut turn, child);
            }
            crate::turn::signals::describe(&told_by_signal(&process))
        }
        // SAFETY: all zeros are a valid siginfo_t, and mean that there was none.
        Ok(None) => unsafe { core::mem::zeroed() },
        Err(errno) => return error(errno),
    };
    if !info.is_null() {
        // SAFETY: the caller promises room.
        unsafe { info.write(told) };
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn waitid(
    kind: c_uint,
    id: c_int,
    info: *mut libc::siginfo_t,
    options: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { waitid_(kind, id, info, options) }) as c_int
}

/// Returns whether no wait learns of the ends of a process's children.
pub(crate) fn waits_for_nobody(turn: &mut Turn, parent: u16) -> bool {
    if parent == INIT {
        return true;
    }
    let action = turn.shared().signals.action(parent, vsignal::CHILD);
    action.handler == vsignal::IGNORE || action.flags & libc::SA_NOCLDWAIT as u64 != 0
}

/// Waits for one child, whatever signals come.
pub(crate) fn wait_for(pid: c_int) -> isize {
    match Turn::have() {
        Some(mut turn) => match reap_one(&mut turn, pid) {
            Ok(status) => status as isize,
            Err(errno) => error(errno),
        },
        None => error(libc::ECHILD),
    }
}
