//! Threads: creation, end, join.
//!
//! A new thread is in the schedule from the moment its creator says so, and first runs when it is
//! handed the turn. At its end it leaves the schedule in the last round of thread-specific
//! destructors, so that everything the program does on the way out is still ordered; the next
//! thread to take the turn waits until it has really gone, because its stack may be used again.

use super::handle::by_handle;
use super::sched::Attributes;
use super::sync::{self, Until, wrapped};
use crate::hooks::process::exit;
use crate::libc_symbols::Real;
use crate::shared::{Cancel, DyingThread, ThreadInfo};
use crate::sys::{self, sys};
use crate::tls::really;
use crate::turn::{Turn, cancel, space};
use brolga_dmt::{Key, ThreadIx, Wakeup};
use brolga_tape::operation as op;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};
use libc::{clockid_t, timespec};

/// `pthread_exit` unwinds a thread's stack, also through us: that works because there is nothing to
/// clean up in our frames. (As `C-unwind` the compiler would have the call end the process
/// instead.)
type Start = extern "C" fn(*mut c_void) -> *mut c_void;
type StartC11 = extern "C" fn(*mut c_void) -> c_int;
type Create = unsafe extern "C" fn(*mut u64, *const c_void, Start, *mut c_void) -> c_int;
type Join = unsafe extern "C" fn(u64, *mut *mut c_void) -> c_int;
type Detach = unsafe extern "C" fn(u64) -> c_int;

static CREATE: Real = Real::new(c"pthread_create");
static JOIN: Real = Real::new(c"pthread_join");
static DETACH: Real = Real::new(c"pthread_detach");

/// The thread-specific key whose destructor ends a thread.
static END_KEY: AtomicU32 = AtomicU32::new(0);
/// `PTHREAD_DESTRUCTOR_ITERATIONS` of glibc.
const DESTRUCTOR_ROUNDS: usize = 4;

unsafe extern "C" {
    fn pthread_key_create(
        key: *mut u32,
        destructor: Option<unsafe extern "C" fn(*mut c_void)>,
    ) -> c_int;
    fn pthread_setspecific(key: u32, value: *const c_void) -> c_int;
    fn pthread_attr_getdetachstate(attributes: *const c_void, state: *mut c_int) -> c_int;
    fn pthread_self() -> u64;
}

/// Makes the key whose destructor tells of a thread's end.
pub fn resolve() {
    for real in [&CREATE, &JOIN, &DETACH] {
        real.get();
    }
    let mut key = 0;
    // SAFETY: room for a key, a destructor with the right signature.
    let made = unsafe { pthread_key_create(&raw mut key, Some(end_of_thread)) };
    assert_eq!(made, 0, "the first thread-specific key can be had");
    END_KEY.store(key, Ordering::Relaxed);
    if let Some(mut turn) = Turn::have() {
        note_handle(&mut turn);
    }
    // The first thread has no destructors run at exit(); pthread_exit from it does run them.
    arm(1);
}

fn note_handle(turn: &mut Turn) {
    let me = turn.me();
    // SAFETY: no arguments.
    let handle = unsafe { pthread_self() };
    turn.shared().thread(me).handle = handle;
}

/// Has the destructor run in the given round.
fn arm(round: usize) {
    let value = core::ptr::without_provenance(round);
    // SAFETY: our own key; the value is never dereferenced.
    unsafe { pthread_setspecific(END_KEY.load(Ordering::Relaxed), value) };
}

/// Destructor of our key: the thread has ended but for libc's part.
///
/// # Safety
/// libc calls it, in the thread that ends.
unsafe extern "C" fn end_of_thread(round: *mut c_void) {
    let round = round.addr();
    if round < DESTRUCTOR_ROUNDS {
        arm(round + 1);
        return;
    }
    if let Some(turn) = Turn::take(op::EXIT) {
        end(turn);
    }
}

/// The calling thread leaves the schedule, unless it is the last of its process: libc ends the
/// process next, by this thread, and runs the program's exit handlers.
fn end(mut turn: Turn) {
    let me = turn.me();
    if is_last(&mut turn) {
        return;
    }
    // SAFETY: no arguments.
    let (tid, pid) = unsafe { (sys!(sys::SYS_gettid), sys!(sys::SYS_getpid)) };
    turn.shared().dying_thread = DyingThread {
        pid: pid as i32,
        tid: tid as i32,
    };
    turn.wake(join_key(me), usize::MAX);
    sync::threads_gone(&mut turn);
    let detached = turn.shared().thread(me).detached;
    turn.scheduler().exit();
    if detached {
        turn.scheduler().remove(me);
    }
    turn.retarget();
    turn.leave();
}

/// The system call of that name: this thread ends without libc's knowledge.
pub(crate) fn exit(status: c_int) -> isize {
    if let Some(mut turn) = Turn::take(op::EXIT) {
        if is_last(&mut turn) {
            // SAFETY: no preconditions.
            unsafe { exit::_exit(status) }
        }
        end(turn);
    }
    loop {
        // SAFETY: no pointers.
        unsafe { sys!(libc::SYS_exit, status) };
    }
}

fn is_last(turn: &mut Turn) -> bool {
    let (me, process) = (turn.me(), turn.process());
    let scheduler = turn.scheduler();
    let mut others = scheduler.living().filter(|ix| {
        *ix != me && scheduler.thread(*ix).process == process && !scheduler.has_exited(*ix)
    });
    others.next().is_none()
}

fn join_key(ix: ThreadIx) -> Key {
    Key {
        space: space::JOIN,
        id: u64::from(ix),
    }
}

extern "C" fn trampoline(ix: *mut c_void) -> *mut c_void {
    let info = arrive(ix.addr() as ThreadIx);
    let argument = core::ptr::with_exposed_provenance_mut(info.argument);
    let result = if info.c11 {
        // SAFETY: the creator's start routine, stored by `create`.
        let start: StartC11 = unsafe { core::mem::transmute(info.start) };
        core::ptr::without_provenance_mut(start(argument).cast_unsigned() as usize)
    } else {
        // SAFETY: the creator's start routine, stored by `create`.
        let start: Start = unsafe { core::mem::transmute(info.start) };
        start(argument)
    };
    cancel::begin_exit();
    result
}

/// A new thread takes its place in the schedule.
fn arrive(me: ThreadIx) -> ThreadInfo {
    let mut turn = Turn::arrive(me);
    note_handle(&mut turn);
    arm(1);
    *turn.shared().thread(me)
}

/// Makes a thread of the schedule; an error as `pthread_create` returns it.
///
/// # Safety
/// As `pthread_create`.
unsafe fn create(
    mut turn: Turn,
    handle: *mut u64,
    attributes: *const c_void,
    mut info: ThreadInfo,
) -> c_int {
    let process = turn.process();
    let Some(ix) = turn.scheduler().reserve(process) else {
        return libc::EAGAIN;
    };
    let me = turn.me();
    info.priority = turn.shared().thread(me).priority;
    let mut state = libc::PTHREAD_CREATE_JOINABLE;
    // SAFETY: the caller's attributes.
    let split = (!attributes.is_null()).then(|| unsafe { Attributes::split(attributes) });
    let mut passed_on = core::ptr::null();
    if let Some((copy, wanted)) = &split {
        // SAFETY: the caller's attributes.
        unsafe { pthread_attr_getdetachstate(attributes, &raw mut state) };
        info.priority = wanted.unwrap_or(info.priority);
        passed_on = copy.pointer();
    }
    info.tid = turn.shared().take_id();
    info.detached = state == libc::PTHREAD_CREATE_DETACHED;
    turn.shared().signals.thread_made(me, ix);
    *turn.shared().thread(ix) = info;
    let word = core::ptr::without_provenance_mut(usize::from(ix));
    // SAFETY: libc's own function; the trampoline gets a plain number.
    let result = unsafe {
        let real: Create = core::mem::transmute(CREATE.get());
        really(|| real(handle, passed_on, trampoline, word))
    };
    if result != 0 {
        turn.scheduler().remove(ix);
        return result;
    }
    // SAFETY: filled by a successful creation.
    turn.shared().thread(ix).handle = unsafe { *handle };
    turn.scheduler().begin(ix);
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_create(
    handle: *mut u64,
    attributes: *const c_void,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let info = ThreadInfo {
        start: start as usize,
        argument: argument.expose_provenance(),
        ..ThreadInfo::new(0, 0)
    };
    match Turn::take(op::CREATE) {
        // SAFETY: the caller's promise.
        Some(turn) => unsafe { create(turn, handle, attributes, info) },
        // SAFETY: libc's own function with the caller's arguments.
        None => unsafe {
            let real: Create = core::mem::transmute(CREATE.get());
            real(handle, attributes, start, argument)
        },
    }
}

/// As `thrd_create`, but returns POSIX's errors.
///
/// # Safety
/// There is room for a handle.
pub unsafe fn create_c11(handle: *mut u64, start: StartC11, argument: *mut c_void) -> c_int {
    let info = ThreadInfo {
        start: start as usize,
        argument: argument.expose_provenance(),
        c11: true,
        ..ThreadInfo::new(0, 0)
    };
    let Some(turn) = Turn::take(op::CREATE) else {
        crate::turn::fault(&[b"a thread outside the schedule makes a thread"]);
    };
    // SAFETY: the caller's promise; default attributes.
    unsafe { create(turn, handle, core::ptr::null(), info) }
}

/// Waits for the logical end.
fn wait_end(turn: &mut Turn, ix: ThreadIx, until: Option<&Until>) -> c_int {
    if turn.scheduler().has_exited(ix) {
        return 0;
    }
    let deadline = match sync::deadline(turn, until) {
        Ok(deadline) => deadline,
        Err(invalid) => return invalid,
    };
    loop {
        let woken = turn.block(join_key(ix), deadline);
        if turn.scheduler().has_exited(ix) {
            return 0;
        }
        if woken == Wakeup::TimedOut {
            return libc::ETIMEDOUT;
        }
        if turn.cancel_due() {
            return libc::EINTR;
        }
    }
}

/// Waits for a thread's logical end and takes it out of the schedule; 0 when libc's own function is
/// to do the rest.
fn join_in_schedule(turn: &mut Turn, ix: ThreadIx, until: Option<&Until>) -> c_int {
    let me = turn.me();
    if ix == me || turn.shared().thread(me).joiner == ix {
        return libc::EDEADLK;
    }
    let info = turn.shared().thread(ix);
    if info.detached || info.joiner != 0 {
        return libc::EINVAL;
    }
    info.joiner = me;
    let result = wait_end(turn, ix, until);
    turn.shared().thread(ix).joiner = 0;
    if result == 0 {
        turn.scheduler().remove(ix);
    }
    result
}

/// # Safety
/// The handle is that of a thread, and there is room for a result if it is wanted.
unsafe fn join(handle: u64, result: *mut *mut c_void, until: Option<&Until>) -> c_int {
    if let Some(mut turn) = Turn::take(op::JOIN)
        && let Some(ix) = by_handle(&mut turn, handle)
    {
        let refused = join_in_schedule(&mut turn, ix, until);
        if refused == libc::EINTR {
            turn.cancel_if_due();
        }
        if refused != 0 {
            return refused;
        }
    }
    // SAFETY: libc's own function with the caller's arguments; the thread has left the schedule, so
    // it ends without needing anything of ours.
    unsafe {
        let real: Join = core::mem::transmute(JOIN.get());
        really(|| real(handle, result))
    }
}

wrapped! {
    fn pthread_join(handle: u64, result: *mut *mut c_void) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { join(handle, result, None) }
    }

    fn pthread_timedjoin_np(
        handle: u64,
        result: *mut *mut c_void,
        until: *const timespec,
    ) -> c_int {
        // SAFETY: the caller's promise; null stands for no limit.
        unsafe {
            let until = (!until.is_null()).then(|| Until::new(libc::CLOCK_REALTIME, until));
            join(handle, result, until.as_ref())
        }
    }

    fn pthread_clockjoin_np(
        handle: u64,
        result: *mut *mut c_void,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int {
        // SAFETY: the caller's promise; null stands for no limit.
        unsafe {
            let until = (!until.is_null()).then(|| Until::new(clock, until));
            join(handle, result, until.as_ref())
        }
    }

    fn pthread_tryjoin_np(handle: u64, result: *mut *mut c_void) -> c_int {
        if let Some(mut turn) = Turn::take(op::JOIN)
            && let Some(ix) = by_handle(&mut turn, handle)
            && !turn.scheduler().has_exited(ix)
        {
            turn.yield_now();
            return libc::EBUSY;
        }
        // SAFETY: the caller's promise.
        unsafe { join(handle, result, None) }
    }

    fn pthread_detach(handle: u64) -> c_int {
        if let Some(mut turn) = Turn::take(op::JOIN)
            && let Some(ix) = by_handle(&mut turn, handle)
        {
            turn.shared().thread(ix).detached = true;
            if turn.scheduler().has_exited(ix) {
                turn.scheduler().remove(ix);
            }
        }
        // SAFETY: libc's own function with the caller's argument.
        unsafe {
            let real: Detach = core::mem::transmute(DETACH.get());
            really(|| real(handle))
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettid() -> c_int {
    // SAFETY: no arguments.
    Turn::thread_id().unwrap_or_else(|| unsafe { sys!(sys::SYS_gettid) as c_int })
}

/// After an `exec` the process has one thread, the one that has the turn.
pub fn after_exec(turn: &mut Turn) {
    let (me, process) = (turn.me(), turn.process());
    loop {
        let scheduler = turn.scheduler();
        let gone = |ix: &ThreadIx| *ix != me && scheduler.thread(*ix).process == process;
        let Some(ix) = scheduler.living().find(gone) else {
            break;
        };
        turn.scheduler().remove(ix);
    }
    sync::threads_gone(turn);
    turn.shared().thread(me).cancel = Cancel::NONE;
    // Whichever thread it was, it is the main one now.
    let pid = turn.shared().processes[usize::from(process)].pid;
    turn.shared().thread(me).tid = pid;
    note_handle(turn);
}
