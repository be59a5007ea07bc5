//! Use of resources, limits and priorities: `getrusage`, `times`, `prlimit`, `getpriority`.

use crate::hooks::result::{error, finish};
use crate::hooks::tid::{kernel_id, translated};
use crate::hooks::time::clock::{cpu_ns, reading};
use crate::libc_symbols::libc_own;
use crate::nanoseconds::NS;
use crate::sys::sys;
use crate::turn::Turn;
use brolga_tape::operation as op;
use core::ffi::{c_int, c_long, c_void};
use libc::{time_t, timeval};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn times(to: *mut libc::tms) -> libc::clock_t {
    const CLOCK_TICK_NS: u64 = NS / 100;
    let Some(mut turn) = Turn::take(op::CLOCK) else {
        // SAFETY: the caller's pointer, passed on.
        return finish(unsafe { sys!(libc::SYS_times, to) }) as libc::clock_t;
    };
    let used = (cpu_ns(&mut turn) / CLOCK_TICK_NS) as libc::clock_t;
    if !to.is_null() {
        // SAFETY: the caller promises room for a tms.
        unsafe {
            to.write(libc::tms {
                tms_utime: used,
                tms_stime: 0,
                tms_cutime: 0,
                tms_cstime: 0,
            });
        }
    }
    (reading(&mut turn, libc::CLOCK_MONOTONIC).unwrap_or(0) / CLOCK_TICK_NS) as libc::clock_t
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrusage(_who: c_int, to: *mut libc::rusage) -> c_int {
    let Some(mut turn) = Turn::take(op::CLOCK) else {
        // SAFETY: the caller's pointer, passed on.
        return finish(unsafe { sys!(libc::SYS_getrusage, _who, to) }) as c_int;
    };
    let ns = cpu_ns(&mut turn);
    if to.is_null() {
        return finish(error(libc::EFAULT)) as c_int;
    }
    // SAFETY: the caller promises room for a rusage, for which all zeros are valid.
    unsafe {
        core::ptr::write_bytes(to, 0, 1);
        (*to).ru_utime = timeval {
            tv_sec: (ns / NS) as time_t,
            tv_usec: (ns % NS / 1000) as c_long,
        };
    }
    0
}

const PROCESS: c_int = libc::PRIO_PROCESS as c_int;

/// Groups and users are whole trees to the kernel: only a thread or process may be asked about.
fn priority_id(turn: &mut Turn, which: c_int, who: c_int) -> Option<c_int> {
    match which {
        PROCESS => kernel_id(turn, who),
        _ => Some(0),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpriority(which: c_int, who: c_int) -> c_int {
    /// The kernel gives 20 minus the priority, to keep it positive.
    const ZERO: isize = 20;
    let Some(mut turn) = Turn::have() else {
        return libc_own!(getpriority(which: c_int, who: c_int) -> c_int);
    };
    let result = match priority_id(&mut turn, which, who) {
        // SAFETY: plain integers.
        Some(id) => unsafe { sys!(libc::SYS_getpriority, PROCESS, id) },
        None => error(libc::ESRCH),
    };
    if result < 0 {
        return finish(result) as c_int;
    }
    (ZERO - result) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn setpriority(which: c_int, who: c_int, priority: c_int) -> c_int {
    let Some(mut turn) = Turn::have() else {
        return libc_own!(setpriority(which: c_int, who: c_int, priority: c_int) -> c_int);
    };
    finish(match priority_id(&mut turn, which, who) {
        // SAFETY: plain integers.
        Some(id) => unsafe { sys!(libc::SYS_setpriority, PROCESS, id, priority) },
        None => error(libc::ESRCH),
    }) as c_int
}

translated! {
    prlimit(resource: c_int, new: *const c_void, old: *mut c_void) = libc::SYS_prlimit64;
    prlimit64(resource: c_int, new: *const c_void, old: *mut c_void) = libc::SYS_prlimit64;
}
