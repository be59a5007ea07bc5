//! The threads of C11: those of POSIX by other names. glibc's `mtx_init`, `cnd_init` and
//! `tss_create` need no hook: they lay out what the others here take.

use super::pthread::{self, pthread_detach, pthread_join};
use super::sched::sched_yield;
use super::sync::condition::{
    Condition, pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_signal,
    pthread_cond_timedwait, pthread_cond_wait,
};
use super::sync::mutex::{
    Mutex, pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_timedlock,
    pthread_mutex_trylock, pthread_mutex_unlock,
};
use super::sync::once::{Once, pthread_once};
use super::sync::wrapped;
use crate::hooks::time::sleep::clock_nanosleep;
use crate::turn::cancel::{begin_exit, exit_thread};
use core::ffi::{c_int, c_void};
use libc::timespec;

const SUCCESS: c_int = 0;
const BUSY: c_int = 1;
const ERROR: c_int = 2;
const NO_MEMORY: c_int = 3;
const TIMED_OUT: c_int = 4;

/// The C11 name of a POSIX function's result.
fn named(result: c_int) -> c_int {
    match result {
        0 => SUCCESS,
        libc::EBUSY => BUSY,
        libc::ENOMEM => NO_MEMORY,
        libc::ETIMEDOUT => TIMED_OUT,
        _ => ERROR,
    }
}

wrapped! {
    fn mtx_lock(mutex: *mut Mutex) -> c_int {
        // SAFETY: the same contract.
        named(unsafe { pthread_mutex_lock(mutex) })
    }

    fn mtx_trylock(mutex: *mut Mutex) -> c_int {
        // SAFETY: the same contract.
        named(unsafe { pthread_mutex_trylock(mutex) })
    }

    fn mtx_timedlock(mutex: *mut Mutex, until: *const timespec) -> c_int {
        // SAFETY: the same contract.
        named(unsafe { pthread_mutex_timedlock(mutex, until) })
    }

    fn mtx_unlock(mutex: *mut Mutex) -> c_int {
        // SAFETY: the same contract.
        named(unsafe { pthread_mutex_unlock(mutex) })
    }

    fn mtx_destroy(mutex: *mut Mutex) -> () {
        // SAFETY: the same contract.
        unsafe { pthread_mutex_destroy(mutex) };
    }

    fn cnd_wait(condition: *mut Condition, mutex: *mut Mutex) -> c_int {
        // SAFETY: the same contract.
        named(unsafe { pthread_cond_wait(condition, mutex) })
    }

    fn cnd_timedwait(
        condition: *mut Condition,
        mutex: *mut Mutex,
        until: *const timespec,
    ) -> c_int {
        // SAFETY: the same contract.
        named(unsafe { pthread_cond_timedwait(condition, mutex, until) })
    }

    fn cnd_signal(condition: *mut Condition) -> c_int {
        // SAFETY: the same contract.
        named(unsafe { pthread_cond_signal(condition) })
    }

    fn cnd_broadcast(condition: *mut Condition) -> c_int {
        // SAFETY: the same contract.
        named(unsafe { pthread_cond_broadcast(condition) })
    }

    fn cnd_destroy(condition: *mut Condition) -> () {
        // SAFETY: the same contract.
        unsafe { pthread_cond_destroy(condition) };
    }

    fn call_once(once: *mut Once, routine: extern "C" fn()) -> () {
        // SAFETY: the same contract.
        unsafe { pthread_once(once, routine) };
    }

    fn thrd_create(
        handle: *mut u64,
        start: extern "C" fn(*mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int {
        // SAFETY: the same contract.
        named(unsafe { pthread::create_c11(handle, start, argument) })
    }

    fn thrd_join(handle: u64, to: *mut c_int) -> c_int {
        let mut result = core::ptr::null_mut();
        // SAFETY: the same contract; room for the result.
        let joined = unsafe { pthread_join(handle, &raw mut result) };
        if joined == 0 && !to.is_null() {
            // SAFETY: the caller promises room for an int.
            unsafe { to.write(result.addr() as c_int) };
        }
        named(joined)
    }

    fn thrd_detach(handle: u64) -> c_int {
        // SAFETY: the same contract.
        named(unsafe { pthread_detach(handle) })
    }

    fn thrd_yield() -> () {
        // SAFETY: no preconditions.
        unsafe { sched_yield() };
    }

    /// -1 for a signal, other negative numbers for other errors.
    fn thrd_sleep(time: *const timespec, remainder: *mut timespec) -> c_int {
        // SAFETY: the same contract.
        match unsafe { clock_nanosleep(libc::CLOCK_REALTIME, 0, time, remainder) } {
            0 => 0,
            libc::EINTR => -1,
            _ => -2,
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn thrd_exit(result: c_int) -> ! {
    begin_exit();
    exit_thread(core::ptr::without_provenance_mut(
        result.cast_unsigned() as usize
    ))
}
