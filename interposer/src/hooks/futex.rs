//! The `syscall` function, above all for futexes (Rust's `std`, InnoDB and others wait that way).

use super::{descriptor, error, op, random, thread};
use crate::sys::{self, finish};
use crate::turn::{Turn, space};
use brolga_dmt::{Key, Wakeup};
use core::sync::atomic::{AtomicU32, Ordering};
use libc::timespec;

fn key(turn: &Turn, word: usize, operation: i32) -> Key {
    if operation & libc::FUTEX_PRIVATE_FLAG != 0 {
        return turn.private_key(space::FUTEX, word);
    }
    Turn::shared_key(space::FUTEX, word)
}

/// FUTEX_WAIT takes a relative timeout, FUTEX_WAIT_BITSET an absolute one.
unsafe fn deadline(turn: &mut Turn, operation: i32, timeout: *const timespec) -> Option<u64> {
    // SAFETY: the caller's promise: null or valid.
    let ns = super::time::ns_of(unsafe { timeout.as_ref() }?);
    if operation & libc::FUTEX_CMD_MASK == libc::FUTEX_WAIT {
        return Some(turn.now_ns().saturating_add(ns));
    }
    let real = operation & libc::FUTEX_CLOCK_REALTIME != 0;
    let clock = if real {
        libc::CLOCK_REALTIME
    } else {
        libc::CLOCK_MONOTONIC
    };
    Some(super::time::deadline_of(turn, clock, ns))
}

/// The futex call with the turn. Bitsets other than "any" are treated as "any": a waker may wake a
/// waiter too early, which futexes allow.
unsafe fn futex(mut turn: Turn, arguments: [usize; 6]) -> isize {
    let [word, operation, value, timeout, word2, value3] = arguments;
    let operation = operation as i32;
    let from = key(&turn, word, operation);
    // SAFETY: the caller promises a futex word.
    let current = || unsafe {
        AtomicU32::from_ptr(core::ptr::with_exposed_provenance_mut(word)).load(Ordering::SeqCst)
    };
    match operation & libc::FUTEX_CMD_MASK {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => {
            if current() != value as u32 {
                return error(libc::EAGAIN);
            }
            let timeout = core::ptr::with_exposed_provenance(timeout);
            // SAFETY: the caller's promise.
            let deadline = unsafe { deadline(&mut turn, operation, timeout) };
            match turn.block(from, deadline) {
                Wakeup::TimedOut => error(libc::ETIMEDOUT),
                Wakeup::Interrupted | Wakeup::Restart => error(libc::EINTR),
                _ => 0,
            }
        }
        libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET => turn.wake(from, value) as isize,
        libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE => {
            let compares = operation & libc::FUTEX_CMD_MASK == libc::FUTEX_CMP_REQUEUE;
            if compares && current() != value3 as u32 {
                return error(libc::EAGAIN);
            }
            let to = key(&turn, word2, operation);
            let woken = turn.wake(from, value);
            let moved = turn.scheduler().requeue(from, to, timeout);
            (woken + if compares { moved } else { 0 }) as isize
        }
        _ => error(libc::ENOSYS),
    }
}

/// Calls that would go round the schedule: programs have to fall back to the ordinary ones.
const REFUSED: [i64; 6] = [
    libc::SYS_io_uring_setup,
    libc::SYS_io_setup,
    libc::SYS_clone3,
    libc::SYS_clone,
    libc::SYS_userfaultfd,
    libc::SYS_rseq,
];

unsafe fn dispatch(number: i64, a: [usize; 6]) -> isize {
    // SAFETY: in all arms the caller of `syscall` promises arguments that fit the call.
    unsafe {
        match number {
            sys::SYS_futex => match Turn::take(op::FUTEX) {
                Some(turn) => futex(turn, a),
                None => sys::syscall6(number, a),
            },
            libc::SYS_getrandom => random::getrandom_(
                core::ptr::with_exposed_provenance_mut(a[0]),
                a[1],
                a[2] as u32,
            ),
            sys::SYS_gettid => thread::gettid() as isize,
            sys::SYS_getpid => super::process::getpid() as isize,
            sys::SYS_kill => super::signal::kill(a[0] as i32, a[1] as i32) as isize,
            sys::SYS_tgkill => {
                super::signal::send_by_id(Some(a[0] as i32), a[1] as i32, a[2] as i32)
            }
            libc::SYS_tkill => super::signal::send_by_id(None, a[0] as i32, a[1] as i32),
            sys::SYS_close => descriptor::close_(a[0] as i32),
            libc::SYS_clock_gettime => {
                let to = core::ptr::with_exposed_provenance_mut(a[1]);
                match super::time::clock_gettime(a[0] as i32, to) {
                    0 => 0,
                    _ => error(libc::EINVAL),
                }
            }
            libc::SYS_fsync | libc::SYS_fdatasync => super::file::sync(number, a[0] as i32),
            number if REFUSED.contains(&number) && Turn::have().is_some() => error(libc::ENOSYS),
            number => {
                if uses_virtual(number, a[0] as i32) {
                    let number = sys::Decimal::new(number.cast_unsigned());
                    crate::turn::fault(&[
                        b"system call ",
                        number.bytes(),
                        b" on a virtual socket through syscall() is not supported",
                    ]);
                }
                sys::syscall6(number, a)
            }
        }
    }
}

/// Socket calls by number with one of our sockets as first argument.
fn uses_virtual(number: i64, fd: i32) -> bool {
    const CALLS: [i64; 24] = [
        sys::SYS_read,
        sys::SYS_write,
        sys::SYS_readv,
        sys::SYS_writev,
        sys::SYS_recvfrom,
        sys::SYS_sendto,
        sys::SYS_recvmsg,
        sys::SYS_sendmsg,
        libc::SYS_recvmmsg,
        libc::SYS_sendmmsg,
        sys::SYS_bind,
        sys::SYS_listen,
        sys::SYS_connect,
        sys::SYS_accept4,
        libc::SYS_accept,
        sys::SYS_shutdown,
        sys::SYS_dup,
        sys::SYS_dup2,
        sys::SYS_dup3,
        sys::SYS_epoll_ctl,
        sys::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_splice,
    ];
    if !CALLS.contains(&number) {
        return false;
    }
    let Some(mut turn) = Turn::have() else {
        return false;
    };
    let process = turn.process();
    turn.shared().net.object(process, fd).is_some()
}

/// Variadic in C; words are the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: i64,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    // SAFETY: the caller's promise.
    finish(unsafe { dispatch(number, [a, b, c, d, e, f]) })
}
