//! Barriers.

use super::{key_of, wrapped};
use crate::turn::{Turn, space};
use brolga_tape::operation as op;
use core::cell::Cell;
use core::ffi::{c_int, c_uint, c_void};

/// Our `pthread_barrier_t`.
#[repr(C)]
pub struct Barrier {
    needed: u32,
    arrived: Cell<u32>,
    round: Cell<u32>,
    /// Threads that were let through but have not run since: they will look at `round` once more.
    leaving: Cell<u32>,
    /// Threads in `pthread_barrier_destroy`, which waits for those.
    destroyers: Cell<u32>,
    shared: c_int,
}

const _: () = assert!(size_of::<Barrier>() <= size_of::<libc::pthread_barrier_t>());
/// glibc can't count further.
const NEEDED_MAX: u32 = u32::MAX / 2;

impl Barrier {
    fn wait(&self, turn: &mut Turn) -> c_int {
        let key = key_of(turn, space::BARRIER, self, self.shared != 0);
        self.arrived.set(self.arrived.get() + 1);
        if self.arrived.get() == self.needed {
            self.arrived.set(0);
            self.leaving.set(self.leaving.get() + self.needed - 1);
            self.round.set(self.round.get().wrapping_add(1));
            turn.wake(key, usize::MAX);
            return libc::PTHREAD_BARRIER_SERIAL_THREAD;
        }
        let round = self.round.get();
        while self.round.get() == round {
            turn.block_regardless(key, None);
        }
        self.leaving.set(self.leaving.get() - 1);
        if self.leaving.get() == 0 && self.destroyers.get() > 0 {
            turn.wake(key, usize::MAX);
        }
        0
    }

    /// Returns when no thread will touch the barrier any more.
    fn destroy(&self, turn: &mut Turn) {
        let key = key_of(turn, space::BARRIER, self, self.shared != 0);
        self.destroyers.set(self.destroyers.get() + 1);
        while self.leaving.get() > 0 {
            turn.block_regardless(key, None);
        }
        self.destroyers.set(self.destroyers.get() - 1);
    }
}

unsafe extern "C" {
    fn pthread_barrierattr_getpshared(attributes: *const c_void, shared: *mut c_int) -> c_int;
}

wrapped! {
    fn pthread_barrier_init(
        barrier: *mut Barrier,
        attributes: *const c_void,
        needed: c_uint,
    ) -> c_int {
        if needed == 0 || needed > NEEDED_MAX {
            return libc::EINVAL;
        }
        let mut shared = 0;
        if !attributes.is_null() {
            // SAFETY: the caller's attributes.
            unsafe { pthread_barrierattr_getpshared(attributes, &raw mut shared) };
        }
        let fresh = Barrier {
            needed,
            arrived: Cell::new(0),
            round: Cell::new(0),
            leaving: Cell::new(0),
            destroyers: Cell::new(0),
            shared,
        };
        // SAFETY: the caller promises room for a barrier.
        unsafe { barrier.write(fresh) };
        0
    }

    fn pthread_barrier_destroy(barrier: *mut Barrier) -> c_int {
        if let Some(mut turn) = Turn::take(op::BARRIER) {
            // SAFETY: the caller promises an initialised barrier.
            unsafe { &*barrier }.destroy(&mut turn);
        }
        0
    }

    fn pthread_barrier_wait(barrier: *mut Barrier) -> c_int {
        let Some(mut turn) = Turn::take(op::BARRIER) else {
            crate::turn::fault(&[b"a thread outside the schedule waits on a barrier"]);
        };
        // SAFETY: the caller promises an initialised barrier; whoever has the turn has it alone.
        unsafe { &*barrier }.wait(&mut turn)
    }
}
