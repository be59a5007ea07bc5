//! File locks: `flock` and the record locks of `fcntl`.
//!
//! The kernel keeps the locks. A call that would block there is tried without blocking, and its
//! thread waits in the scheduler until a lock may have been released: by an unlock, a closed
//! descriptor, or the end of a process. All waiters then try again, those that have waited longest
//! first.
//!
//! The kernel sees no waiters, so deadlocks of processes that wait for each other's record locks
//! are detected here, as the kernel does it (`EDEADLK`).

use crate::hooks::result::{error, finish};
use crate::sys::sys;
use crate::turn::{Turn, space};
use brolga_dmt::{Key, Wakeup};
use brolga_tape::operation as op;
use core::ffi::c_int;

const KEY: Key = Key {
    space: space::FILE_LOCK,
    id: 0,
};
const OFD_GET: c_int = 36;
const OFD_SET: c_int = 37;
const OFD_SET_WAIT: c_int = 38;
/// Processes that wait for each other, at most, before the kernel gives up looking.
const CIRCLE_MAX: usize = 10;

/// A lock may have been released.
pub(crate) fn released(turn: &mut Turn) {
    turn.wake(KEY, usize::MAX);
}

/// Waits until a lock may have been released. `false`: a signal came.
fn wait(turn: &mut Turn) -> bool {
    turn.block(KEY, None) != Wakeup::Interrupted
}

fn flock_(fd: c_int, operation: c_int) -> isize {
    let raw = |more: c_int| {
        // SAFETY: plain integers.
        unsafe { sys!(libc::SYS_flock, fd, operation | more) }
    };
    let Some(mut turn) = Turn::take(op::FILE_LOCK) else {
        return raw(0);
    };
    let mut result = raw(libc::LOCK_NB);
    // Also when it failed: a lock that is to become another is given up first.
    released(&mut turn);
    while result == error(libc::EWOULDBLOCK) && operation & libc::LOCK_NB == 0 {
        if !wait(&mut turn) {
            return error(libc::EINTR);
        }
        result = raw(libc::LOCK_NB);
    }
    result
}

/// A process that has a lock, as `F_GETLK` names it; `None`: not one process, or none of the tree.
fn holder(turn: &mut Turn, real_pid: c_int) -> Option<u16> {
    if real_pid <= 0 {
        return None;
    }
    turn.shared().process_of(real_pid)
}

/// The process that a process waits for, if it does: the holder of a lock.
fn waits_for(turn: &mut Turn, process: u16) -> Option<u16> {
    let shared = turn.shared();
    let scheduler = &shared.scheduler;
    let waits = |ix: &u16| scheduler.thread(*ix).process == process && scheduler.waits_on(*ix, KEY);
    let mut waiting = scheduler.living().filter(waits);
    waiting.find_map(|ix| shared.lock_holders[usize::from(ix) - 1].checked_sub(1))
}

/// Returns whether this process would wait for itself.
fn closes_circle(turn: &mut Turn, first: u16) -> bool {
    let me = turn.process();
    let mut at = first;
    for _ in 0..CIRCLE_MAX {
        match waits_for(turn, at) {
            Some(next) if next == me => return true,
            Some(next) => at = next,
            None => return false,
        }
    }
    false
}

/// # Safety
/// `lock` points to a `struct flock`.
unsafe fn lock_record(turn: &mut Turn, fd: c_int, command: c_int, lock: *mut libc::flock) -> isize {
    let (set, get) = match command {
        OFD_SET_WAIT => (OFD_SET, OFD_GET),
        _ => (libc::F_SETLK, libc::F_GETLK),
    };
    loop {
        // SAFETY: the caller's pointer, passed on.
        let result = unsafe { sys!(libc::SYS_fcntl, fd, set, lock) };
        if result != error(libc::EAGAIN) && result != error(libc::EACCES) {
            // A part of what it had may be another kind of lock now.
            released(turn);
            return result;
        }
        // SAFETY: the kernel has just read it.
        let mut other = unsafe { *lock };
        // SAFETY: a valid lock of our own.
        unsafe { sys!(libc::SYS_fcntl, fd, get, &raw mut other) };
        let holder = holder(turn, other.l_pid);
        let is_record_lock = command != OFD_SET_WAIT;
        if let Some(first) = holder.filter(|_| is_record_lock)
            && closes_circle(turn, first)
        {
            return error(libc::EDEADLK);
        }
        let me = usize::from(turn.me());
        let known = holder.filter(|_| is_record_lock);
        turn.shared().lock_holders[me - 1] = known.map_or(0, |process| process + 1);
        if !wait(turn) {
            return error(libc::EINTR);
        }
    }
}

/// The lock commands of `fcntl`; `None`: another command.
///
/// # Safety
/// The argument is what the command wants.
pub(crate) unsafe fn control(fd: c_int, command: c_int, argument: usize) -> Option<isize> {
    let lock = core::ptr::with_exposed_provenance_mut::<libc::flock>(argument);
    match command {
        libc::F_SETLKW | OFD_SET_WAIT => {
            let mut turn = Turn::take(op::FILE_LOCK)?;
            // SAFETY: the caller promises that the argument is what the command wants.
            Some(unsafe { lock_record(&mut turn, fd, command, lock) })
        }
        libc::F_SETLK | OFD_SET => {
            let mut turn = Turn::take(op::FILE_LOCK)?;
            // SAFETY: the caller's pointer, passed on.
            let result = unsafe { sys!(libc::SYS_fcntl, fd, command, lock) };
            released(&mut turn);
            Some(result)
        }
        libc::F_GETLK | OFD_GET => {
            let mut turn = Turn::take(op::FILE_LOCK)?;
            // SAFETY: the caller's pointer, passed on.
            let result = unsafe { sys!(libc::SYS_fcntl, fd, command, lock) };
            if result == 0 {
                // SAFETY: the kernel has just filled it.
                let pid = unsafe { &mut (*lock).l_pid };
                if *pid > 0 {
                    *pid = turn.shared().virtual_pid(*pid);
                }
            }
            Some(result)
        }
        _ => None,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn flock(fd: c_int, operation: c_int) -> c_int {
    finish(flock_(fd, operation)) as c_int
}

/// Runs a call that closes a descriptor inside libc.
pub(crate) fn closing<T>(call: impl FnOnce() -> T) -> T {
    // Its number must not come to name something else in between.
    let mut turn = Turn::have();
    let result = call();
    if let Some(turn) = &mut turn {
        released(turn);
    }
    result
}
