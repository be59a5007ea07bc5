//! Threads: creation, end, join.
//!
//! A new thread is in the schedule from the moment its creator says so, and first runs when it is
//! handed the turn. At its end it leaves the schedule in the last round of thread-specific destructors,
//! so that everything the program does on the way out is still ordered; the next thread to take the
//! turn waits until it has really gone, because its stack may be used again.

use super::machine::Real;
use super::op;
use crate::shared::ThreadInfo;
use crate::sys::{self, sys};
use crate::turn::{Turn, space};
use brolga_dmt::{Key, ThreadIx};
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};

type Start = extern "C" fn(*mut c_void) -> *mut c_void;
type Create = unsafe extern "C" fn(
    *mut u64,
    *const c_void,
    extern "C" fn(*mut c_void) -> *mut c_void,
    *mut c_void,
) -> c_int;
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

/// The calling thread leaves the schedule.
fn end(mut turn: Turn) {
    let me = turn.me();
    // SAFETY: no arguments.
    let real_tid = unsafe { sys!(sys::SYS_gettid) } as i32;
    turn.shared().dying_tid = real_tid;
    turn.wake(join_key(me), usize::MAX);
    let detached = turn.shared().thread(me).detached;
    turn.scheduler().exit();
    if detached {
        turn.scheduler().remove(me);
    }
    turn.retarget();
    turn.leave();
}

fn join_key(ix: ThreadIx) -> Key {
    Key {
        space: space::JOIN,
        id: u64::from(ix),
    }
}

extern "C" fn trampoline(ix: *mut c_void) -> *mut c_void {
    let me = ix.addr() as ThreadIx;
    let mut turn = Turn::arrive(me);
    note_handle(&mut turn);
    let info = turn.shared().thread(me);
    let (start, argument) = (info.start, info.argument);
    arm(1);
    // SAFETY: the creator's start routine, stored by `create`.
    let start: Start = unsafe { core::mem::transmute(start) };
    start(core::ptr::with_exposed_provenance_mut(argument))
}

unsafe fn create(
    mut turn: Turn,
    handle: *mut u64,
    attributes: *const c_void,
    start: usize,
    argument: usize,
) -> c_int {
    let process = turn.process();
    let Some(ix) = turn.scheduler().reserve(process) else {
        return libc::EAGAIN;
    };
    let mut state = libc::PTHREAD_CREATE_JOINABLE;
    if !attributes.is_null() {
        // SAFETY: the caller's attributes.
        unsafe { pthread_attr_getdetachstate(attributes, &raw mut state) };
    }
    let tid = turn.shared().take_id();
    let me = turn.me();
    turn.shared().signals.thread_made(me, ix);
    *turn.shared().thread(ix) = ThreadInfo {
        tid,
        handle: 0,
        start,
        argument,
        detached: state == libc::PTHREAD_CREATE_DETACHED,
    };
    let word = core::ptr::without_provenance_mut(usize::from(ix));
    // SAFETY: libc's own function; the trampoline gets a plain number.
    let result = unsafe {
        let real: Create = core::mem::transmute(CREATE.get());
        real(handle, attributes, trampoline, word)
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
    match Turn::take(op::CREATE) {
        // SAFETY: the caller's promise.
        Some(turn) => unsafe {
            create(
                turn,
                handle,
                attributes,
                start as usize,
                argument.expose_provenance(),
            )
        },
        // SAFETY: libc's own function with the caller's arguments.
        None => unsafe {
            let real: Create = core::mem::transmute(CREATE.get());
            real(handle, attributes, start, argument)
        },
    }
}

/// The thread of this process with a handle.
pub(crate) fn by_handle(turn: &mut Turn, handle: u64) -> Option<ThreadIx> {
    let process = turn.process();
    let shared = turn.shared();
    let (scheduler, threads) = (&shared.scheduler, &shared.threads);
    scheduler.living().find(|ix| {
        scheduler.thread(*ix).process == process && threads[usize::from(*ix) - 1].handle == handle
    })
}

/// Waits for the logical end; false when `deadline_ns` came first.
fn wait_end(turn: &mut Turn, ix: ThreadIx, deadline_ns: Option<u64>) -> bool {
    while !turn.scheduler().has_exited(ix) {
        if turn.block(join_key(ix), deadline_ns) == brolga_dmt::Wakeup::TimedOut {
            return turn.scheduler().has_exited(ix);
        }
    }
    true
}

unsafe fn join(handle: u64, result: *mut *mut c_void, deadline_ns: Option<u64>) -> c_int {
    if let Some(mut turn) = Turn::take(op::JOIN)
        && let Some(ix) = by_handle(&mut turn, handle)
    {
        if ix == turn.me() {
            return libc::EDEADLK;
        }
        if turn.shared().thread(ix).detached {
            return libc::EINVAL;
        }
        if !wait_end(&mut turn, ix, deadline_ns) {
            return libc::ETIMEDOUT;
        }
        turn.scheduler().remove(ix);
    }
    // SAFETY: libc's own function with the caller's arguments; the thread has left the schedule, so it
    // ends without needing anything of ours.
    unsafe {
        let real: Join = core::mem::transmute(JOIN.get());
        real(handle, result)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_join(handle: u64, result: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { join(handle, result, None) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_timedjoin_np(
    handle: u64,
    result: *mut *mut c_void,
    until: *const libc::timespec,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { join(handle, result, until.as_ref().map(super::time::ns_of)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_tryjoin_np(handle: u64, result: *mut *mut c_void) -> c_int {
    if let Some(mut turn) = Turn::take(op::JOIN)
        && let Some(ix) = by_handle(&mut turn, handle)
        && !turn.scheduler().has_exited(ix)
    {
        return libc::EBUSY;
    }
    // SAFETY: the caller's promise.
    unsafe { join(handle, result, None) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_detach(handle: u64) -> c_int {
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
        real(handle)
    }
}

/// Cancelling a thread that sleeps in the schedule would end it at a real moment, not a logical one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cancel(handle: u64) -> c_int {
    if Turn::have().is_some() {
        crate::turn::fault(&[b"pthread_cancel is not supported yet"]);
    }
    static CANCEL: Real = Real::new(c"pthread_cancel");
    // SAFETY: libc's own function with the caller's argument.
    unsafe {
        let real: Detach = core::mem::transmute(CANCEL.get());
        real(handle)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettid() -> c_int {
    match Turn::have() {
        Some(mut turn) => {
            let me = turn.me();
            turn.shared().thread(me).tid
        }
        // SAFETY: no arguments.
        None => unsafe { sys!(sys::SYS_gettid) as c_int },
    }
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
    note_handle(turn);
}
