//! Once. A routine that is under way carries its thread's id, so that one whose thread ended in it
//! (`pthread_exit`, cancellation), or stayed behind in the parent of a fork, is run again.

use super::{aliases, id, wrapped};
use crate::turn::{Turn, space};
use brolga_dmt::Key;
use brolga_tape::operation as op;
use core::cell::Cell;
use core::ffi::c_int;

/// Our `pthread_once_t` and `once_flag`; all zeros is the static initialiser.
#[repr(C)]
pub struct Once(Cell<u32>);

const _: () = assert!(size_of::<Once>() == size_of::<libc::pthread_once_t>());
const DONE: u32 = 2;
/// The id of the thread is above it.
const RUNNING: u32 = 1;
const ID_SHIFT: u32 = 2;

/// For every routine under way: they are few, and most are over before anybody waits.
const KEY: Key = Key {
    space: space::ONCE,
    id: 0,
};

/// Threads have ended: perhaps in a routine.
pub fn thread_gone(turn: &mut Turn) {
    turn.wake(KEY, usize::MAX);
}

impl Once {
    fn is_done(&self) -> bool {
        self.0.get() == DONE
    }

    /// Returns whether a thread of this process is in the routine.
    fn is_running(&self, turn: &mut Turn) -> bool {
        if self.0.get() & RUNNING == 0 {
            return false;
        }
        let (process, tid) = (turn.process(), (self.0.get() >> ID_SHIFT).cast_signed());
        let shared = turn.shared();
        let (scheduler, threads) = (&shared.scheduler, &shared.threads);
        scheduler.living().any(|ix| {
            threads[usize::from(ix) - 1].tid == tid
                && scheduler.thread(ix).process == process
                && !scheduler.has_exited(ix)
        })
    }

    /// True: the caller is to run the routine.
    fn begin(&self, mut turn: Option<Turn>) -> bool {
        if let Some(turn) = &mut turn {
            while !self.is_done() && self.is_running(turn) {
                turn.block_regardless(KEY, None);
            }
        }
        if self.is_done() {
            return false;
        }
        let me = id(turn.as_mut()).cast_unsigned();
        self.0.set(RUNNING | me << ID_SHIFT);
        true
    }

    fn end(&self) {
        let turn = Turn::take(op::SIGNAL);
        self.0.set(DONE);
        if let Some(mut turn) = turn {
            turn.wake(KEY, usize::MAX);
        }
    }
}

wrapped! {
    fn pthread_once(once: *mut Once, routine: extern "C" fn()) -> c_int {
        // SAFETY: the caller promises an initialised once; it is done for good, or whoever has the
        // turn has it alone.
        let once = unsafe { &*once };
        // Where threads run beside each other, looking without the turn would be a matter of speed.
        let known = once.is_done() && !Turn::is_parallel();
        if known || !once.begin(Turn::take(op::LOCK)) {
            return 0;
        }
        routine();
        once.end();
        0
    }
}

aliases! {
    __pthread_once = pthread_once(once: *mut Once, routine: extern "C" fn());
}
