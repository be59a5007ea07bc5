//! Ids of processes: virtual, the same on every replica.

use crate::shared::{INIT, INIT_PID};
use crate::sys::{self, sys};
use crate::turn::Turn;
use core::ffi::c_int;

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

/// Returns whether `kill`'s selector means a process that is there.
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
