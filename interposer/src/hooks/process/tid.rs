//! Calls that name a thread or a process by its id and do something to it that is no part of the
//! schedule. The kernel is told its own id for the virtual one.

use crate::hooks::error;
use crate::libc_symbols::libc_own;
use crate::sys::{finish, sys};
use crate::turn::Turn;
use core::ffi::{c_int, c_void};

/// The kernel's id for one that the server knows; 0 is the calling thread. `None`: nobody of the tree.
/// (Threads of other processes, and other threads but the first of a process, have none that we know.)
fn kernel_id(turn: &mut Turn, id: c_int) -> Option<c_int> {
    let me = turn.me();
    if id == 0 || turn.shared().thread(me).tid == id {
        return Some(0);
    }
    let process = turn.shared().process_by_id(id)?;
    Some(turn.shared().processes[usize::from(process)].real_pid)
}

/// `name(id, other arguments) = system call`
macro_rules! by_id {
    ($($name:ident($($argument:ident: $type:ty),*) = $number:expr;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(id: c_int $(, $argument: $type)*) -> c_int {
            let Some(mut turn) = Turn::have() else {
                return libc_own!($name(id: c_int $(, $argument: $type)*) -> c_int);
            };
            finish(match kernel_id(&mut turn, id) {
                // SAFETY: the caller's pointers, passed on.
                Some(id) => unsafe { sys!($number, id $(, $argument)*) },
                None => error(libc::ESRCH),
            }) as c_int
        }
    )* };
}

by_id! {
    sched_rr_get_interval(to: *mut libc::timespec) = libc::SYS_sched_rr_get_interval;
    prlimit(resource: c_int, new: *const c_void, old: *mut c_void) = libc::SYS_prlimit64;
    prlimit64(resource: c_int, new: *const c_void, old: *mut c_void) = libc::SYS_prlimit64;
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

/// The head of the capability calls.
#[repr(C)]
pub struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

unsafe fn capabilities(number: i64, header: *mut CapabilityHeader, data: *mut c_void) -> isize {
    let Some(mut turn) = Turn::have() else {
        // SAFETY: the caller's pointers, passed on.
        return unsafe { sys!(number, header, data) };
    };
    if header.is_null() {
        return error(libc::EFAULT);
    }
    // SAFETY: the caller promises a header, into which the kernel may write the version that it wants.
    let header = unsafe { &mut *header };
    let Some(pid) = kernel_id(&mut turn, header.pid) else {
        return error(libc::ESRCH);
    };
    let named = core::mem::replace(&mut header.pid, pid);
    // SAFETY: the caller's pointers, passed on.
    let result = unsafe { sys!(number, core::ptr::from_mut(header), data) };
    header.pid = named;
    result
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn capget(header: *mut CapabilityHeader, data: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { capabilities(libc::SYS_capget, header, data) }) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn capset(header: *mut CapabilityHeader, data: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    finish(unsafe { capabilities(libc::SYS_capset, header, data) }) as c_int
}
