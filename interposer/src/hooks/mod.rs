//! The exported functions, by family.
//!
//! Each hook is `extern "C"` with libc's name and does no more than to call a function of the same
//! family that returns a kernel-style result. Variadic functions of libc are taken with fixed word
//! arguments, which is the same on x86-64.

/// Exports functions of libc that return a size: `name(argument: type, ...) = function(value, ...);`
macro_rules! hooks {
    ($($name:ident($($arg:ident: $type:ty),*) = $call:ident($($pass:expr),*);)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> isize {
            // SAFETY: the caller's promise.
            $crate::sys::finish(unsafe { $call($($pass),*) })
        }
    )* };
}

mod by_id;
mod by_number;
mod c11;
mod cancel;
mod connect;
mod counter;
mod crash;
mod credentials;
mod datagram;
mod descriptor;
mod directory;
mod entries;
mod exec;
mod fifo;
mod file;
mod futex;
mod group;
mod hint;
mod interface;
mod lock;
mod machine;
mod option;
mod path;
mod priority;
mod process;
mod published;
mod random;
mod readiness;
mod resolve;
mod rights;
mod shm;
mod signal;
mod socket;
mod spawn;
mod splice;
pub mod status;
mod stdio;
mod sync;
mod sysv;
mod temporary;
mod thread;
mod time;
mod timer;
mod unix;
mod variadic;
mod vectors;
mod wait;

use crate::turn::Turn;
pub(crate) use brolga_tape::operation as op;
pub use cancel::{Cancel, after_interruption};
pub(crate) use machine::libc_own;
pub use priority::Priority;
pub use sysv::Sleeper;

/// Looks up what is needed of the real libc. Called once, from the constructor.
pub fn resolve() {
    cancel::resolve();
    thread::resolve();
    process::resolve();
    file::resolve();
    path::resolve();
    crash::resolve();
}

/// Notes what depends on the moment of the tree's start.
pub fn note_launch(turn: &mut Turn) {
    status::note_launch(turn);
}

/// Brings the tables in line after an `exec`: other threads and close-on-exec descriptors are gone.
pub fn after_exec(turn: &mut Turn) {
    process::after_exec(turn);
    thread::after_exec(turn);
    descriptor::after_exec(turn);
    stdio::after_exec(turn);
    signal::after_exec(turn);
    sysv::after_exec(turn);
    let process = turn.process();
    timer::forget(turn, process, true);
    turn.scheduler().remove_soft_barriers(process);
}

/// What an admitted entry brings besides input: timers that went off, operators' signals (bit `n - 1`
/// for signal `n`).
pub fn after_admission(turn: &mut Turn, operators: u64) {
    timer::fire(turn);
    for signal in 1..=64 {
        if operators & 1 << (signal - 1) != 0 {
            signal::from_operator(turn, signal);
        }
    }
}

pub use by_number::call as by_number;
pub(crate) use random::fill as fill_random;

pub use process::{die_of, is_being_made};

/// The result of libc's own function, as the kernel returns it.
pub(crate) fn own(result: core::ffi::c_int) -> isize {
    match result {
        -1 => error(crate::sys::errno()),
        other => other as isize,
    }
}

/// A wait status, or -1 with errno set.
pub(crate) fn finish_status(result: isize) -> core::ffi::c_int {
    crate::sys::finish(result) as core::ffi::c_int
}

/// An error as the kernel returns it.
pub(crate) const fn error(errno: i32) -> isize {
    -(errno as isize)
}
