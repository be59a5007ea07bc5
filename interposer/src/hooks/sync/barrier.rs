//! Barriers, spin locks, once.

use super::super::machine::libc_own;
use super::super::op;
use crate::turn::{Turn, is_active, space};
use core::cell::Cell;
use core::ffi::{c_int, c_uint, c_void};

/// Our `pthread_barrier_t`.
#[repr(C)]
pub struct Barrier {
    needed: u32,
    arrived: Cell<u32>,
    round: Cell<u32>,
    shared: u32,
}

unsafe extern "C" {
    fn pthread_barrierattr_getpshared(attributes: *const c_void, shared: *mut c_int) -> c_int;
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_barrier_init(
    barrier: *mut Barrier,
    attributes: *const c_void,
    needed: c_uint,
) -> c_int {
    if !is_active() {
        return libc_own!(pthread_barrier_init(
            barrier: *mut Barrier,
            attributes: *const c_void,
            needed: c_uint
        ) -> c_int);
    }
    if needed == 0 {
        return libc::EINVAL;
    }
    let mut shared = 0;
    if !attributes.is_null() {
        // SAFETY: the caller's attributes.
        unsafe { pthread_barrierattr_getpshared(attributes, &raw mut shared) };
    }
    let shared = u32::from(shared != 0);
    // SAFETY: the caller promises room for a barrier.
    unsafe {
        barrier.write(Barrier {
            needed,
            arrived: Cell::new(0),
            round: Cell::new(0),
            shared,
        });
    };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_barrier_destroy(barrier: *mut Barrier) -> c_int {
    if !is_active() {
        return libc_own!(pthread_barrier_destroy(barrier: *mut Barrier) -> c_int);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_barrier_wait(barrier: *mut Barrier) -> c_int {
    if !is_active() {
        return libc_own!(pthread_barrier_wait(barrier: *mut Barrier) -> c_int);
    }
    let Some(mut turn) = Turn::take(op::WAIT) else {
        crate::turn::fault(&[b"a thread outside the schedule waits on a barrier"]);
    };
    // SAFETY: the caller promises an initialised barrier; whoever has the turn has it alone.
    let barrier = unsafe { &*barrier };
    let address = core::ptr::from_ref(barrier).addr();
    let key = if barrier.shared != 0 {
        Turn::shared_key(space::BARRIER, address)
    } else {
        turn.private_key(space::BARRIER, address)
    };
    barrier.arrived.set(barrier.arrived.get() + 1);
    if barrier.arrived.get() == barrier.needed {
        barrier.arrived.set(0);
        barrier.round.set(barrier.round.get().wrapping_add(1));
        turn.wake(key, usize::MAX);
        return libc::PTHREAD_BARRIER_SERIAL_THREAD;
    }
    let round = barrier.round.get();
    while barrier.round.get() == round {
        turn.block(key, None);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_spin_lock(lock: *mut c_int) -> c_int {
    if !is_active() {
        return libc_own!(pthread_spin_lock(lock: *mut c_int) -> c_int);
    }
    let turn = Turn::take(op::LOCK);
    // SAFETY: the caller promises an initialised lock; volatile since others change it.
    unsafe {
        if let Some(mut turn) = turn {
            while lock.read_volatile() != 0 {
                turn.yield_now();
            }
        }
        lock.write_volatile(1);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_spin_trylock(lock: *mut c_int) -> c_int {
    if !is_active() {
        return libc_own!(pthread_spin_trylock(lock: *mut c_int) -> c_int);
    }
    let turn = Turn::take(op::LOCK);
    // SAFETY: as for lock.
    unsafe {
        if lock.read_volatile() != 0 {
            if let Some(mut turn) = turn {
                turn.yield_now();
            }
            return libc::EBUSY;
        }
        lock.write_volatile(1);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_spin_unlock(lock: *mut c_int) -> c_int {
    if !is_active() {
        return libc_own!(pthread_spin_unlock(lock: *mut c_int) -> c_int);
    }
    let _turn = Turn::take(op::UNLOCK);
    // SAFETY: as for lock.
    unsafe { lock.write_volatile(0) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_spin_init(lock: *mut c_int, shared: c_int) -> c_int {
    if !is_active() {
        return libc_own!(pthread_spin_init(lock: *mut c_int, shared: c_int) -> c_int);
    }
    // SAFETY: the caller promises room for a lock.
    unsafe { lock.write_volatile(0) };
    0
}

const ONCE_RUNNING: c_int = 1;
const ONCE_DONE: c_int = 2;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_once(once: *mut c_int, routine: extern "C" fn()) -> c_int {
    if !is_active() {
        return libc_own!(pthread_once(once: *mut c_int, routine: extern "C" fn()) -> c_int);
    }
    // SAFETY: the caller promises an initialised once; volatile since others change it.
    unsafe {
        if once.read_volatile() == ONCE_DONE {
            return 0;
        }
        if let Some(mut turn) = Turn::take(op::LOCK) {
            let key = turn.private_key(space::ONCE, once.addr());
            while once.read_volatile() == ONCE_RUNNING {
                turn.block(key, None);
            }
        }
        if once.read_volatile() == ONCE_DONE {
            return 0;
        }
        once.write_volatile(ONCE_RUNNING);
        routine();
        once.write_volatile(ONCE_DONE);
        if let Some(mut turn) = Turn::take(op::SIGNAL) {
            let key = turn.private_key(space::ONCE, once.addr());
            turn.wake(key, usize::MAX);
        }
    }
    0
}
