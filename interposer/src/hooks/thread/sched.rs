//! Scheduling policies and priorities: remembered, and without effect, since who runs is up to the
//! schedule. What the kernel would say depends on privileges that replicas may not have alike.

use super::affinity;
use super::handle::by_handle;
use super::sync::wrapped;
use crate::hooks::result::{error, finish};
use crate::hooks::tid::translated;
use crate::libc_symbols::libc_own;
use crate::shared::Priority;
use crate::sys::{self, sys};
use crate::turn::Turn;
use brolga_dmt::ThreadIx;
use brolga_tape::operation as op;
use core::ffi::{c_int, c_void};
use libc::{clockid_t, sched_param};

unsafe extern "C" {
    fn pthread_attr_getinheritsched(attributes: *const c_void, inherits: *mut c_int) -> c_int;
    fn pthread_attr_setinheritsched(attributes: *mut c_void, inherits: c_int) -> c_int;
    fn pthread_attr_getschedpolicy(attributes: *const c_void, policy: *mut c_int) -> c_int;
    fn pthread_attr_getschedparam(attributes: *const c_void, to: *mut sched_param) -> c_int;
    fn pthread_attr_setaffinity_np(attributes: *mut c_void, size: usize, set: *const u8) -> c_int;
}

/// Bit of a policy that a fork resets it.
const RESET_ON_FORK: c_int = 0x4000_0000;

impl Priority {
    /// `None`: there is no such policy, or it has no such priority.
    fn new(policy: c_int, priority: c_int) -> Option<Self> {
        let valid = match policy & !RESET_ON_FORK {
            libc::SCHED_FIFO | libc::SCHED_RR => (1..=99).contains(&priority),
            libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE => priority == 0,
            _ => false,
        };
        valid.then_some(Self { policy, priority })
    }
}

/// Attributes for libc's `pthread_create` in place of the caller's.
pub struct Attributes(libc::pthread_attr_t);

impl Attributes {
    /// The policy and priority that the attributes ask for, if any; libc gets a copy that does not
    /// ask.
    ///
    /// # Safety
    /// The attributes are initialised, and outlive the value.
    pub unsafe fn split(attributes: *const c_void) -> (Self, Option<Priority>) {
        const EXPLICIT: c_int = 1;
        // SAFETY: the caller's promise; the copy is only read, and only changed in its flags.
        unsafe {
            let mut copy = Self(*attributes.cast::<libc::pthread_attr_t>());
            let (mut inherits, mut policy) = (0, 0);
            let mut param: sched_param = core::mem::zeroed();
            pthread_attr_getinheritsched(attributes, &raw mut inherits);
            pthread_attr_getschedpolicy(attributes, &raw mut policy);
            pthread_attr_getschedparam(attributes, &raw mut param);
            pthread_attr_setinheritsched((&raw mut copy.0).cast(), 0);
            let wanted = (inherits == EXPLICIT)
                .then(|| Priority::new(policy, param.sched_priority))
                .flatten();
            (copy, wanted)
        }
    }

    /// The attributes for libc.
    pub fn pointer(&self) -> *const c_void {
        (&raw const self.0).cast()
    }
}

/// The thread that `sched_setscheduler` and its family mean by an id; 0 is the caller.
fn by_id(turn: &mut Turn, id: c_int) -> Option<ThreadIx> {
    if id == 0 {
        return Some(turn.me());
    }
    let shared = turn.shared();
    let (scheduler, threads) = (&shared.scheduler, &shared.threads);
    scheduler
        .living()
        .find(|ix| threads[usize::from(*ix) - 1].tid == id && !scheduler.has_exited(*ix))
}

/// # Safety
/// `param` is null or points to a parameter.
unsafe fn set(id: c_int, policy: Option<c_int>, param: *const sched_param) -> isize {
    let Some(mut turn) = Turn::take(op::OPTION) else {
        return error(libc::EPERM);
    };
    // SAFETY: the caller promises that `param` is null or points to a parameter.
    let Some(param) = (unsafe { param.as_ref() }) else {
        return error(libc::EINVAL);
    };
    let Some(ix) = by_id(&mut turn, id) else {
        return error(libc::ESRCH);
    };
    let now = &mut turn.shared().thread(ix).priority;
    match Priority::new(policy.unwrap_or(now.policy), param.sched_priority) {
        Some(wanted) => *now = wanted,
        None => return error(libc::EINVAL),
    }
    0
}

fn of(id: c_int) -> Result<Priority, isize> {
    let Some(mut turn) = Turn::take(op::OPTION) else {
        return Ok(Priority::NORMAL);
    };
    match by_id(&mut turn, id) {
        Some(ix) => Ok(turn.shared().thread(ix).priority),
        None => Err(error(libc::ESRCH)),
    }
}

wrapped! {
    fn sched_setscheduler(id: c_int, policy: c_int, param: *const sched_param) -> c_int {
        // SAFETY: the caller's promise.
        finish(unsafe { set(id, Some(policy), param) }) as c_int
    }

    fn sched_setparam(id: c_int, param: *const sched_param) -> c_int {
        // SAFETY: the caller's promise.
        finish(unsafe { set(id, None, param) }) as c_int
    }

    fn sched_getscheduler(id: c_int) -> c_int {
        finish(match of(id) {
            Ok(priority) => priority.policy as isize,
            Err(error) => error,
        }) as c_int
    }

    fn sched_getparam(id: c_int, to: *mut sched_param) -> c_int {
        finish(match of(id) {
            Ok(priority) => {
                // SAFETY: the caller promises room for a parameter.
                unsafe { (*to).sched_priority = priority.priority };
                0
            }
            Err(error) => error,
        }) as c_int
    }

    fn pthread_setschedparam(handle: u64, policy: c_int, param: *const sched_param) -> c_int {
        let Some(mut turn) = Turn::take(op::OPTION) else {
            return libc::ESRCH;
        };
        let Some(ix) = by_handle(&mut turn, handle) else {
            return libc::ESRCH;
        };
        // SAFETY: the caller promises a parameter.
        let Some(wanted) = Priority::new(policy, unsafe { (*param).sched_priority }) else {
            return libc::EINVAL;
        };
        turn.shared().thread(ix).priority = wanted;
        0
    }

    fn pthread_setschedprio(handle: u64, priority: c_int) -> c_int {
        let Some(mut turn) = Turn::take(op::OPTION) else {
            return libc::ESRCH;
        };
        let Some(ix) = by_handle(&mut turn, handle) else {
            return libc::ESRCH;
        };
        let now = &mut turn.shared().thread(ix).priority;
        let Some(wanted) = Priority::new(now.policy, priority) else {
            return libc::EINVAL;
        };
        *now = wanted;
        0
    }

    fn pthread_getschedparam(handle: u64, policy: *mut c_int, to: *mut sched_param) -> c_int {
        let Some(mut turn) = Turn::take(op::OPTION) else {
            return libc::ESRCH;
        };
        let Some(ix) = by_handle(&mut turn, handle) else {
            return libc::ESRCH;
        };
        let now = turn.shared().thread(ix).priority;
        // SAFETY: the caller promises room for both.
        unsafe {
            policy.write(now.policy);
            (*to).sched_priority = now.priority;
        }
        0
    }

    /// libc's answer, but with the processors that the server is told of.
    fn pthread_getattr_np(handle: u64, attributes: *mut c_void) -> c_int {
        let result = libc_own!(pthread_getattr_np(handle: u64, attributes: *mut c_void) -> c_int);
        if result == 0
            && let Some(turn) = Turn::have()
        {
            let mut set = [0u8; 128];
            // SAFETY: room for the set; the attributes were initialised just now.
            unsafe {
                affinity::fill_affinity(&turn, set.len(), set.as_mut_ptr());
                pthread_attr_setaffinity_np(attributes, set.len(), set.as_ptr());
            }
        }
        result
    }

    fn pthread_getcpuclockid(handle: u64, to: *mut clockid_t) -> c_int {
        let Some(mut turn) = Turn::have() else {
            return libc::ESRCH;
        };
        let Some(ix) = by_handle(&mut turn, handle) else {
            return libc::ESRCH;
        };
        let tid = turn.shared().thread(ix).tid;
        // SAFETY: the caller promises room for a clock id.
        unsafe { to.write(cpu_clock(tid, OF_THREAD)) };
        0
    }

    fn clock_getcpuclockid(pid: c_int, to: *mut clockid_t) -> c_int {
        let Some(mut turn) = Turn::have() else {
            return libc::ESRCH;
        };
        if pid != 0 && turn.shared().process_by_id(pid).is_none() {
            return libc::ESRCH;
        }
        // SAFETY: the caller promises room for a clock id.
        unsafe { to.write(cpu_clock(pid, 0)) };
        0
    }
}

/// Marks the clock of a thread.
const OF_THREAD: c_int = 4;

/// A CPU clock's id, as the kernel puts it together.
fn cpu_clock(id: c_int, kind: c_int) -> clockid_t {
    const SCHEDULED: c_int = 2;
    !id << 3 | SCHEDULED | kind
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sched_yield() -> c_int {
    match Turn::take(op::YIELD) {
        Some(mut turn) => turn.yield_now(),
        // SAFETY: no arguments.
        None => _ = unsafe { sys!(sys::SYS_sched_yield) },
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sched_yield() -> c_int {
    // SAFETY: no preconditions.
    unsafe { sched_yield() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_yield() -> c_int {
    // SAFETY: no preconditions.
    unsafe { sched_yield() }
}

translated! {
    sched_rr_get_interval(to: *mut libc::timespec) = libc::SYS_sched_rr_get_interval;
}
