//! Unnamed and named semaphores.

use super::super::machine::libc_own;
use super::super::op;
use super::super::time::{deadline_of, ns_of};
use crate::turn::{Turn, is_active, space};
use brolga_dmt::{Key, Wakeup};
use core::cell::Cell;
use core::ffi::{c_int, c_uint};
use libc::{clockid_t, timespec};

/// The first words of glibc's `sem_t`.
#[repr(C)]
pub struct Semaphore {
    value: Cell<u32>,
    waiters: Cell<u32>,
    private: u32,
}

/// glibc's mark of a semaphore that processes share.
const SEMAPHORE_SHARED: u32 = 128;

impl Semaphore {
    fn key(&self, turn: &Turn) -> Key {
        let address = core::ptr::from_ref(self).addr();
        if self.private == SEMAPHORE_SHARED {
            return Turn::shared_key(space::SEMAPHORE, address);
        }
        turn.private_key(space::SEMAPHORE, address)
    }

    fn try_take(&self) -> bool {
        let there = self.value.get() > 0;
        if there {
            self.value.set(self.value.get() - 1);
        }
        there
    }

    fn take(&self, turn: &mut Turn, deadline_ns: Option<u64>) -> isize {
        loop {
            if self.try_take() {
                return 0;
            }
            self.waiters.set(self.waiters.get() + 1);
            let woken = turn.block(self.key(turn), deadline_ns);
            self.waiters.set(self.waiters.get() - 1);
            if woken == Wakeup::Interrupted {
                return crate::hooks::error(libc::EINTR);
            }
            if woken == Wakeup::TimedOut {
                return if self.try_take() {
                    0
                } else {
                    crate::hooks::error(libc::ETIMEDOUT)
                };
            }
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_init(
    semaphore: *mut Semaphore,
    shared: c_int,
    value: c_uint,
) -> c_int {
    if !is_active() {
        return libc_own!(sem_init(
            semaphore: *mut Semaphore,
            shared: c_int,
            value: c_uint
        ) -> c_int);
    }
    let private = if shared != 0 { SEMAPHORE_SHARED } else { 0 };
    // SAFETY: the caller promises room for a semaphore.
    unsafe {
        semaphore.write(Semaphore {
            value: Cell::new(value),
            waiters: Cell::new(0),
            private,
        });
    };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_destroy(semaphore: *mut Semaphore) -> c_int {
    if !is_active() {
        return libc_own!(sem_destroy(semaphore: *mut Semaphore) -> c_int);
    }
    0
}

unsafe fn sem_take(
    semaphore: *mut Semaphore,
    until: Option<(clockid_t, *const timespec)>,
) -> c_int {
    let Some(mut turn) = Turn::take(op::WAIT) else {
        crate::turn::fault(&[b"a thread outside the schedule waits on a semaphore"]);
    };
    // SAFETY: the caller promises an initialised semaphore and, if any, a timespec.
    let semaphore = unsafe { &*semaphore };
    let deadline = until.map(|(clock, until)| {
        // SAFETY: the caller promises a timespec.
        deadline_of(&mut turn, clock, unsafe { ns_of(&*until) })
    });
    crate::sys::finish(semaphore.take(&mut turn, deadline)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_wait(semaphore: *mut Semaphore) -> c_int {
    if !is_active() {
        return libc_own!(sem_wait(semaphore: *mut Semaphore) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { sem_take(semaphore, None) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_timedwait(semaphore: *mut Semaphore, until: *const timespec) -> c_int {
    if !is_active() {
        return libc_own!(sem_timedwait(semaphore: *mut Semaphore, until: *const timespec) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { sem_take(semaphore, Some((libc::CLOCK_REALTIME, until))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_clockwait(
    semaphore: *mut Semaphore,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    if !is_active() {
        return libc_own!(sem_clockwait(
            semaphore: *mut Semaphore,
            clock: clockid_t,
            until: *const timespec
        ) -> c_int);
    }
    // SAFETY: the caller's promise.
    unsafe { sem_take(semaphore, Some((clock, until))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_trywait(semaphore: *mut Semaphore) -> c_int {
    if !is_active() {
        return libc_own!(sem_trywait(semaphore: *mut Semaphore) -> c_int);
    }
    let turn = Turn::take(op::WAIT);
    // SAFETY: the caller promises an initialised semaphore.
    if unsafe { (*semaphore).try_take() } {
        return 0;
    }
    if let Some(mut turn) = turn {
        turn.yield_now();
    }
    crate::sys::finish(crate::hooks::error(libc::EAGAIN)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_post(semaphore: *mut Semaphore) -> c_int {
    if !is_active() {
        return libc_own!(sem_post(semaphore: *mut Semaphore) -> c_int);
    }
    let turn = Turn::take(op::SIGNAL);
    // SAFETY: the caller promises an initialised semaphore.
    let semaphore = unsafe { &*semaphore };
    if semaphore.value.get() == i32::MAX as u32 {
        return crate::sys::finish(crate::hooks::error(libc::EOVERFLOW)) as c_int;
    }
    semaphore.value.set(semaphore.value.get() + 1);
    if semaphore.waiters.get() > 0
        && let Some(mut turn) = turn
    {
        turn.wake(semaphore.key(&turn), 1);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_getvalue(semaphore: *mut Semaphore, to: *mut c_int) -> c_int {
    if !is_active() {
        return libc_own!(sem_getvalue(semaphore: *mut Semaphore, to: *mut c_int) -> c_int);
    }
    // SAFETY: the caller promises both.
    unsafe { to.write((*semaphore).value.get() as c_int) };
    0
}
