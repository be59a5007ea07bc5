//! Mutexes, condition variables, read-write locks, semaphores, barriers, spin locks, once.
//!
//! The objects' own memory holds their state, in a layout of ours that is compatible with glibc's
//! static initialisers, and with the words that its initialising functions fill in where those are
//! not hooked. Since only the thread that has the turn runs, plain loads and stores do, but in
//! cells: others change an object while its holder waits. Threads that must wait do so in the
//! scheduler, first come first served.
//!
//! A thread that has been woken for good touches the object again only where it may: a program may
//! destroy a condition variable as soon as it has woken all waiters.
//!
//! A thread of a wrapped server that is outside the schedule (it has ended logically) locks and
//! unlocks without waiting. In any other process libc's own functions do the work.
//!
//! Condition variables have two versions in glibc (2.2.5 and 2.3.2); both names lead here, which
//! suits the old one as well: it too starts as zeros and is large enough.

mod barrier;
pub(crate) mod condition;
pub(crate) mod mutex;
mod named;
pub(crate) mod once;
mod rwlock;
mod section;
mod semaphore;
mod spin;

/// Threads have ended, whatever they held.
pub(crate) fn threads_gone(turn: &mut Turn) {
    mutex::owner_gone(turn);
    once::thread_gone(turn);
}

/// Thread ids for owners where there is no schedule.
const OUTSIDE: i32 = -1;

fn id(turn: Option<&mut Turn>) -> i32 {
    match turn {
        Some(turn) => {
            let me = turn.me();
            turn.shared().thread(me).tid
        }
        None => OUTSIDE,
    }
}

/// The key on which threads wait for an object.
fn key_of<T>(turn: &Turn, space: u64, object: &T, shared: bool) -> Key {
    let address = core::ptr::from_ref(object).addr();
    if shared {
        return turn.shared_key(space, address);
    }
    turn.private_key(space, address)
}

/// The moment up to which a caller waits.
#[derive(Clone, Copy)]
pub(crate) struct Until {
    clock: clockid_t,
    time: timespec,
}

impl Until {
    /// # Safety
    /// `time` points to a timespec.
    pub unsafe fn new(clock: clockid_t, time: *const timespec) -> Self {
        // SAFETY: the caller promises that `time` points to a timespec.
        let time = unsafe { *time };
        Self { clock, time }
    }

    /// glibc waits by these two clocks only.
    fn is_clock(clock: clockid_t) -> bool {
        clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_MONOTONIC
    }

    fn is_valid(&self) -> bool {
        Self::is_clock(self.clock) && (0..1_000_000_000).contains(&self.time.tv_nsec)
    }

    /// In virtual time.
    fn deadline(&self, turn: &mut Turn) -> Result<u64, c_int> {
        if !self.is_valid() {
            return Err(libc::EINVAL);
        }
        Ok(deadline_of(turn, self.clock, ns_of(&self.time)))
    }
}

/// The deadline of a call with or without a limit.
pub(crate) fn deadline(turn: &mut Turn, until: Option<&Until>) -> Result<Option<u64>, c_int> {
    until.map(|until| until.deadline(turn)).transpose()
}

/// Exports functions that do what libc does in a process that is not wrapped.
macro_rules! wrapped {
    ($(
        $(#[$meta:meta])*
        fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $result:ty $body:block
    )*) => { $(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            if !$crate::turn::is_active() {
                return $crate::libc_symbols::libc_own!($name($($argument: $type),*) -> $result);
            }
            $body
        }
    )* };
}

use crate::hooks::time::clock::deadline_of;
use crate::nanoseconds::ns_of;
use crate::turn::Turn;
use brolga_dmt::Key;
use core::ffi::c_int;
use libc::{clockid_t, timespec};
pub(crate) use wrapped;

/// Exports other names of exported functions.
macro_rules! aliases {
    ($($alias:ident = $name:ident($($argument:ident: $type:ty),*);)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $alias($($argument: $type),*) -> c_int {
            // SAFETY: the same contract.
            unsafe { $name($($argument),*) }
        }
    )* };
}
use aliases;
