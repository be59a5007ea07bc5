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

mod dispatch;
mod dlsym;
mod fd;
pub mod fs;
mod ipc;
mod net;
mod poll;
mod process;
mod random;
mod resource;
mod signal;
mod stdio;
mod sysinfo;
mod thread;
mod time;

use crate::turn::Turn;
pub(crate) use brolga_tape::operation as op;
pub use dispatch::call as dispatch;
pub use ipc::sysv::Sleeper;
pub use process::{exit::die_of, fork::is_being_made};
pub(crate) use random::fill as fill_random;
pub use thread::cancel::{Cancel, after_interruption};
pub use thread::sched::Priority;

/// Looks up what is needed of the real libc. Called once, from the constructor.
pub fn resolve() {
    thread::cancel::resolve();
    thread::pthread::resolve();
    process::fork::resolve();
    process::exit::resolve();
    stdio::fopen::resolve();
    fs::path::resolve();
    signal::crash::resolve();
}

/// Notes what depends on the moment of the tree's start.
pub fn note_launch(turn: &mut Turn) {
    fs::stat::note_launch(turn);
}

/// Brings the tables in line after an `exec`: other threads and close-on-exec descriptors are gone.
pub fn after_exec(turn: &mut Turn) {
    process::fork::after_exec(turn);
    thread::pthread::after_exec(turn);
    fd::object::after_exec(turn);
    stdio::stream::after_exec(turn);
    signal::action::after_exec(turn);
    ipc::sysv::after_exec(turn);
    let process = turn.process();
    time::alarm::forget(turn, process, true);
    turn.scheduler().remove_soft_barriers(process);
}

/// What an admitted entry brings besides input: timers that went off, operators' signals (bit `n - 1`
/// for signal `n`).
pub fn after_admission(turn: &mut Turn, operators: u64) {
    time::alarm::fire(turn);
    for signal in 1..=64 {
        if operators & 1 << (signal - 1) != 0 {
            signal::send::from_operator(turn, signal);
        }
    }
}

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
