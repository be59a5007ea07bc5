//! `fork` and its family.

use super::wait;
use crate::hooks::ipc::sysv;
use crate::hooks::result::{error, finish};
use crate::libc_symbols::Real;
use crate::shared::{Process, ThreadInfo};
use crate::sys::{self, sys};
use crate::turn::keys::CHILD;
use crate::turn::{self, Turn};
use brolga_dmt::ThreadIx;
use brolga_tape::operation as op;
use brolga_vnet::PROCESSES_MAX;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicI32, Ordering};

type Fork = unsafe extern "C" fn() -> c_int;

static FORK: Real = Real::new(c"fork");
/// Without the program's atfork handlers.
static FORK_ONLY: Real = Real::new(c"_Fork");

unsafe extern "C" {
    fn __register_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
        library: *mut c_void,
    ) -> c_int;
}

/// Looks up libc's forks, and registers for children that libc makes.
pub fn resolve() {
    FORK.get();
    FORK_ONLY.get();
    // Registered first, so first to run in a child: the handlers of others (allocators unlock their
    // mutexes there) run beside the parent, which has the turn, and must not count as its
    // operations.
    // SAFETY: functions with the right signature that stay.
    unsafe { __register_atfork(None, None, Some(leave_in_child), core::ptr::null_mut()) };
}

/// Kernel id of the process while it forks, else 0.
static FORKING: AtomicI32 = AtomicI32::new(0);

/// Returns whether this is a child that libc is still making: its parent has the turn.
pub fn is_being_made() -> bool {
    let parent = FORKING.load(Ordering::Relaxed);
    // SAFETY: no arguments.
    parent != 0 && unsafe { sys!(sys::SYS_getpid) } as i32 != parent
}

extern "C" fn leave_in_child() {
    crate::tls::set_thread_ix(0);
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

/// The tree's part of a fork.
struct Child {
    process: u16,
    thread: ThreadIx,
    pid: c_int,
}

impl Child {
    /// Takes a slot and a thread of the schedule, and copies what a child inherits. `Err` is the
    /// result of the call.
    fn make(turn: &mut Turn) -> Result<Self, isize> {
        let (parent, me) = (turn.process(), turn.me());
        let child = free_slot(turn).ok_or(error(libc::EAGAIN))?;
        let thread = turn.scheduler().reserve(child).ok_or(error(libc::EAGAIN))?;
        if !sysv::process_made(turn, child) {
            sysv::process_not_made(turn, child);
            turn.scheduler().remove(thread);
            return Err(error(libc::ENOMEM));
        }
        let pid = turn.shared().take_id();
        let shared = turn.shared();
        let ThreadInfo {
            handle,
            cancel,
            priority,
            ..
        } = *shared.thread(me);
        *shared.thread(thread) = ThreadInfo {
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
        shared.signals.thread_made(me, thread);
        Ok(Self {
            process: child,
            thread,
            pid,
        })
    }

    /// The kernel could not make it.
    fn unmake(self, turn: &mut Turn) {
        turn.scheduler().remove(self.thread);
        sysv::process_not_made(turn, self.process);
        let (net, mut outside) = turn.net();
        net.clear_process(self.process, &mut outside);
        turn.shared().processes[usize::from(self.process)].real_pid = 0;
    }
}

/// Forks, with one of libc's own functions. In the child the turn is the child's.
fn fork_(turn: &mut Turn, own: &Real) -> isize {
    wait::collect_discarded(turn);
    let child = match Child::make(turn) {
        Ok(child) => child,
        Err(result) => return result,
    };
    // SAFETY: no arguments; then one of libc's own forks.
    let real_pid = unsafe {
        FORKING.store(sys!(sys::SYS_getpid) as i32, Ordering::Relaxed);
        let real: Fork = core::mem::transmute(own.get());
        real()
    };
    FORKING.store(0, Ordering::Relaxed);
    if real_pid == 0 {
        let result = start_child(child.process, child.thread);
        turn.refresh_me();
        return result;
    }
    if real_pid < 0 {
        // SAFETY: plain errno of the failed call.
        let errno = unsafe { *libc::__errno_location() };
        child.unmake(turn);
        return error(errno);
    }
    turn.shared().processes[usize::from(child.process)].real_pid = real_pid;
    turn.scheduler().begin(child.thread);
    child.pid as isize
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

/// Differs from fork in that the program's atfork handlers don't run, and may be called where they
/// could not; a call of ours is never in the middle of anything, so running them does no harm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Fork() -> c_int {
    // SAFETY: fork has no preconditions.
    unsafe { fork() }
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

/// The process runs another program now.
pub fn after_exec(turn: &mut Turn) {
    let process = usize::from(turn.process());
    turn.shared().processes[process].executed = true;
    // The process that has spawned it waits for that.
    turn.wake(CHILD, usize::MAX);
}
