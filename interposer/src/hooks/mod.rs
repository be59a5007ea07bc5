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

mod counter;
mod descriptor;
mod file;
mod futex;
mod machine;
mod path;
mod process;
mod random;
mod readiness;
mod signal;
mod socket;
mod sync;
mod thread;
mod time;
mod timer;

use crate::turn::Turn;
pub(crate) use machine::libc_own;

/// Numbers of ordered operations in the schedule hash.
pub(crate) mod op {
    pub const SOCKET: u16 = 1;
    pub const BIND: u16 = 2;
    pub const LISTEN: u16 = 3;
    pub const ACCEPT: u16 = 4;
    pub const READ: u16 = 5;
    pub const WRITE: u16 = 6;
    pub const SHUTDOWN: u16 = 7;
    pub const CLOSE: u16 = 8;
    pub const DUP: u16 = 9;
    pub const OPTION: u16 = 10;
    pub const EPOLL: u16 = 11;
    pub const EPOLL_WAIT: u16 = 12;
    pub const POLL: u16 = 13;
    pub const CREATE: u16 = 14;
    pub const EXIT: u16 = 15;
    pub const JOIN: u16 = 16;
    pub const LOCK: u16 = 17;
    pub const UNLOCK: u16 = 18;
    pub const WAIT: u16 = 19;
    pub const SIGNAL: u16 = 20;
    pub const FUTEX: u16 = 21;
    pub const CLOCK: u16 = 22;
    pub const SLEEP: u16 = 23;
    pub const RANDOM: u16 = 24;
    pub const FORK: u16 = 25;
    pub const REAP: u16 = 26;
    pub const KILL: u16 = 27;
    pub const YIELD: u16 = 28;
    pub const FILE: u16 = 29;
    pub const PIPE: u16 = 30;
    pub const SIGACTION: u16 = 31;
    pub const SIGMASK: u16 = 32;
    pub const SIGWAIT: u16 = 33;
    pub const TIMER: u16 = 34;
}

/// Looks up what is needed of the real libc. Called once, from the constructor.
pub fn resolve() {
    thread::resolve();
    process::resolve();
    file::resolve();
    path::resolve();
    signal::resolve();
}

/// Brings the tables in line after an `exec`: other threads and close-on-exec descriptors are gone.
pub fn after_exec(turn: &mut Turn) {
    thread::after_exec(turn);
    descriptor::after_exec(turn);
    signal::after_exec(turn);
    let process = turn.process();
    timer::forget(turn, process, true);
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

pub use process::die_of;

/// The result of libc's own function, as the kernel returns it.
pub(crate) fn own(result: core::ffi::c_int) -> isize {
    match result {
        -1 => error(crate::sys::errno()),
        other => other as isize,
    }
}

/// An error as the kernel returns it.
pub(crate) const fn error(errno: i32) -> isize {
    -(errno as isize)
}
