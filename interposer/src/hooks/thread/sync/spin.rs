//! Spin locks, which do not spin: a thread that must wait does so in the scheduler, or the holder
//! would never run.

use super::{key_of, wrapped};
use crate::turn::{Turn, space};
use brolga_dmt::Key;
use brolga_tape::operation as op;
use core::cell::Cell;
use core::ffi::c_int;

/// Our `pthread_spinlock_t`: [`HELD`], [`SHARED`], and between them the number of waiters.
#[repr(C)]
pub struct Spin(Cell<u32>);

const _: () = assert!(size_of::<Spin>() == size_of::<libc::pthread_spinlock_t>());
const HELD: u32 = 1;
const WAITER: u32 = 2;
const SHARED: u32 = 1 << 31;
const WAITERS: u32 = SHARED - WAITER;

impl Spin {
    fn key(&self, turn: &Turn) -> Key {
        key_of(turn, space::SPIN, self, self.0.get() & SHARED != 0)
    }

    fn try_lock(&self) -> bool {
        let free = self.0.get() & HELD == 0;
        self.0.set(self.0.get() | HELD);
        free
    }

    fn lock(&self, turn: &mut Turn) {
        while !self.try_lock() {
            self.0.set(self.0.get() + WAITER);
            turn.block_regardless(self.key(turn), None);
            self.0.set(self.0.get() - WAITER);
        }
    }

    fn unlock(&self, turn: Option<&mut Turn>) {
        self.0.set(self.0.get() & !HELD);
        if self.0.get() & WAITERS != 0
            && let Some(turn) = turn
        {
            turn.wake(self.key(turn), 1);
        }
    }
}

wrapped! {
    fn pthread_spin_init(lock: *mut Spin, shared: c_int) -> c_int {
        let fresh = if shared != 0 { SHARED } else { 0 };
        // SAFETY: the caller promises room for a lock.
        unsafe { lock.write(Spin(Cell::new(fresh))) };
        0
    }

    fn pthread_spin_destroy(_lock: *mut Spin) -> c_int {
        0
    }

    fn pthread_spin_lock(lock: *mut Spin) -> c_int {
        let turn = Turn::take(op::LOCK);
        // SAFETY: the caller promises an initialised lock; whoever has the turn has it alone.
        let lock = unsafe { &*lock };
        match turn {
            Some(mut turn) => lock.lock(&mut turn),
            None => _ = lock.try_lock(),
        }
        0
    }

    fn pthread_spin_trylock(lock: *mut Spin) -> c_int {
        let turn = Turn::take(op::LOCK);
        // SAFETY: as for lock.
        if unsafe { &*lock }.try_lock() {
            return 0;
        }
        if let Some(mut turn) = turn {
            turn.yield_now();
        }
        libc::EBUSY
    }

    fn pthread_spin_unlock(lock: *mut Spin) -> c_int {
        let mut turn = Turn::take(op::UNLOCK);
        // SAFETY: as for lock.
        unsafe { &*lock }.unlock(turn.as_mut());
        0
    }
}
