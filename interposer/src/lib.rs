//! The interposer: libc's own names, loaded before libc into an unmodified server.
//!
//! Every exported function either has no meaning for replication and goes to the kernel, or is an
//! ordered operation: it takes the turn (`turn::Turn`), works on the virtual sockets or the
//! scheduler in memory that the server's process tree shares, and never blocks in the kernel while
//! it has the turn. Without a tape at the agreed descriptor every call passes through, so that a
//! stray `LD_PRELOAD` does no harm.
//!
//! Rules of this crate: no `std`, no allocation, raw system calls (`sys`), no lock but the turn, no
//! panic but on a broken contract (which ends the server: a replica that can't follow the log must
//! stop). Hooks are thin: argument conversion, a kernel-style result, `errno` at the very end.
//!
//! Layers, each of which imports only those above it in this list:
//!
//! 1. `trampoline`, `sys`, `tls`: the kernel, and what a thread keeps for itself;
//! 2. `shared`, the tree's memory; `local`, what a process keeps for itself; `output`, the way to
//!    the node; `libc_symbols`, libc's own functions; `statx`, `mapping`, `exec_check`: questions
//!    to the kernel; `address`, `elf`, `nanoseconds`: C's data;
//! 3. `turn`, the machine room: the turn, waiting, admission of entries, signals, cancellation;
//!    with `restore` and `tsc`;
//! 4. `hooks`, the exported functions;
//! 5. `seccomp`, which catches system calls that go round the hooks; `init`, the constructor.
//!
//! One call goes up: a signal whose action is to end the process is delivered in layer 3 and ends
//! it in layer 4, by a function pointer that `init` sets (`local::Local::die_of`).
//!
//! Deliberately absent: Paxos, disks, networks.
#![no_std]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
compile_error!("the interposer knows Linux with glibc on x86-64 only");

mod address;
mod elf;
mod exec_check;
mod hooks;
mod init;
mod libc_symbols;
mod local;
mod mapping;
mod nanoseconds;
mod output;
mod restore;
mod seccomp;
mod shared;
mod statx;
mod sys;
mod tls;
#[cfg(feature = "trace")]
mod trace;
mod trampoline;
mod tsc;
mod turn;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let (file, line) = info
        .location()
        .map_or(("?", 0), |location| (location.file(), location.line()));
    let message = info.message().as_str().unwrap_or("assertion failed");
    let line = sys::Decimal::new(u64::from(line));
    output::fault(&[
        message.as_bytes(),
        b" at ",
        file.as_bytes(),
        b":",
        line.bytes(),
    ])
}
