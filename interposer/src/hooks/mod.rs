//! The exported functions, by family.
//!
//! Each hook is `extern "C"` with libc's name and does no more than to call a function of the same
//! family that returns a kernel-style result ([`result`]). Variadic functions of libc are taken
//! with fixed word arguments, which is the same on x86-64.
//!
//! # The caller's promise
//!
//! Every exported hook's contract is libc's man page of that name: pointers are valid for what the
//! page says is read and written there, strings end with a NUL, sizes are true, and null is given
//! only where the page allows it. An `unsafe fn` with the hook's name and an underscore (`read_` of
//! `read`) inherits that contract, and so do system calls by number ([`dispatch`](mod@dispatch)),
//! with the page of section 2. A `SAFETY` line that names the caller's promise means this one,
//! unless its function has a `# Safety` section.
//!
//! # Where a function is
//!
//! * [`fd`]: descriptors of any kind: `read`, `write`, `close`, `dup`, `fcntl`, pipes, `eventfd`,
//!   `splice` …
//! * [`net`]: sockets, options, names of hosts and interfaces; [`poll`]: `epoll`, `poll`, `select`
//! * [`fs`]: files by name; [`stdio`]: streams
//! * [`process`]: `fork`, `exec`, `wait`, `exit`, ids; [`signal`]; [`ipc`]: System V and POSIX IPC
//! * [`thread`]: POSIX and C11 threads, futexes, locks (`thread/sync`); [`time`]: clocks, sleeps,
//!   timers
//! * [`resource`], [`sysinfo`], [`random`]; [`dlsym`]
//! * [`dispatch`](mod@dispatch): system calls by number, and `syscall` itself; [`tid`]: ids for the
//!   kernel

use crate::turn::{Turn, cancel};
pub use dispatch::call as dispatch;
pub use process::exit::die_of;
pub use process::fork::is_being_made;
pub(crate) use random::fill as fill_random;

/// Exports functions of libc that return a size: `name(argument: type, ...) = function(value,
/// ...);`
macro_rules! hooks {
    ($($name:ident($($arg:ident: $type:ty),*) = $call:ident($($pass:expr),*);)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> isize {
            // SAFETY: the caller's promise.
            $crate::hooks::result::finish(unsafe { $call($($pass),*) })
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
pub(crate) mod result;
mod signal;
mod stdio;
mod sysinfo;
mod thread;
mod tid;
mod time;

/// Looks up what is needed of the real libc. Called once, from the constructor.
pub fn resolve() {
    cancel::resolve();
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
    fd::close::after_exec(turn);
    stdio::stream::after_exec(turn);
    signal::action::after_exec(turn);
    ipc::sysv::after_exec(turn);
    let process = turn.process();
    time::alarm::forget(turn, process, true);
    turn.scheduler().remove_soft_barriers(process);
}
