//! Futexes, which programs use by the `syscall` function (Rust's `std`, InnoDB and others wait that
//! way).

use crate::hooks::result::error;
use crate::hooks::time::clock;
use crate::nanoseconds;
use crate::turn::{Turn, space};
use brolga_dmt::{ANY, Key, Wakeup};
use core::sync::atomic::{AtomicU32, Ordering};
use libc::timespec;

fn key(turn: &Turn, word: usize, operation: i32) -> Key {
    if operation & libc::FUTEX_PRIVATE_FLAG != 0 {
        return turn.private_key(space::FUTEX, word);
    }
    turn.shared_key(space::FUTEX, word)
}

/// FUTEX_WAIT takes a relative timeout, FUTEX_WAIT_BITSET an absolute one.
///
/// # Safety
/// `timeout` is null or points to a timespec.
unsafe fn deadline(
    turn: &mut Turn,
    operation: i32,
    timeout: *const timespec,
) -> Result<Option<u64>, isize> {
    // SAFETY: the caller promises that `timeout` is null or points to a timespec.
    let Some(timeout) = (unsafe { timeout.as_ref() }) else {
        return Ok(None);
    };
    if timeout.tv_sec < 0 || !(0..1_000_000_000).contains(&timeout.tv_nsec) {
        return Err(error(libc::EINVAL));
    }
    let ns = nanoseconds::ns_of(timeout);
    if operation & libc::FUTEX_CMD_MASK == libc::FUTEX_WAIT {
        return Ok(Some(turn.now_ns().saturating_add(ns)));
    }
    let real = operation & libc::FUTEX_CLOCK_REALTIME != 0;
    let clock = if real {
        libc::CLOCK_REALTIME
    } else {
        libc::CLOCK_MONOTONIC
    };
    Ok(Some(clock::deadline_of(turn, clock, ns)))
}

/// # Safety
/// There is a futex word at `word`, for as long as the value is used.
unsafe fn word_at<'a>(word: usize) -> &'a AtomicU32 {
    // SAFETY: the caller's promise; the alignment was checked.
    unsafe { AtomicU32::from_ptr(core::ptr::with_exposed_provenance_mut(word)) }
}

fn wait(turn: &mut Turn, on: Key, bits: u32, deadline_ns: Option<u64>) -> isize {
    match turn.block_bits(on, bits, deadline_ns) {
        Wakeup::TimedOut => error(libc::ETIMEDOUT),
        Wakeup::Interrupted | Wakeup::Restart => error(libc::EINTR),
        _ => 0,
    }
}

/// FUTEX_WAKE_OP's calculation on the second word; whether its waiters are to be woken too. `None`:
/// the kernel knows no such calculation.
fn calculate(word: &AtomicU32, encoded: u32) -> Option<bool> {
    const SHIFT: u32 = 8;
    let signed = |bits: u32| bits.cast_signed() << 20 >> 20;
    let (operation, comparison) = (encoded >> 28, encoded >> 24 & 0xF);
    let (argument, with) = (signed(encoded >> 12 & 0xFFF), signed(encoded & 0xFFF));
    let argument = if operation & SHIFT != 0 {
        1 << (argument & 31)
    } else {
        argument.cast_unsigned()
    };
    // Only one thread of the schedule runs, so loading and storing is as good as one step.
    let before = word.load(Ordering::SeqCst);
    let after = match operation & !SHIFT {
        0 => argument,
        1 => before.wrapping_add(argument),
        2 => before | argument,
        3 => before & !argument,
        4 => before ^ argument,
        _ => return None,
    };
    word.store(after, Ordering::SeqCst);
    let before = before.cast_signed();
    Some(match comparison {
        0 => before == with,
        1 => before != with,
        2 => before < with,
        3 => before <= with,
        4 => before > with,
        5 => before >= with,
        _ => return None,
    })
}

/// As many as the kernel wakes for a count: at least one.
fn count(value: usize) -> usize {
    usize::try_from(value as i32).unwrap_or(1).max(1)
}

/// Wakes some and moves some of the others.
fn requeue(turn: &mut Turn, from: Key, to: Key, counts: [i32; 2]) -> isize {
    let [Ok(wakes), Ok(moves)] = counts.map(usize::try_from) else {
        return error(libc::EINVAL);
    };
    let woken = turn.wake(from, wakes);
    let moved = turn.scheduler().requeue(from, to, moves);
    (woken + moved) as isize
}

/// The futex call with the turn. Those with priority inheritance don't exist: the library's own
/// mutexes are hooked, and other programs fall back.
///
/// # Safety
/// The arguments are those of `futex`.
pub(crate) unsafe fn futex(mut turn: Turn, arguments: [usize; 6]) -> isize {
    let [word, operation, value, timeout, word2, value3] = arguments;
    let operation = operation as i32;
    let turn = &mut turn;
    if word % 4 != 0 {
        return error(libc::EINVAL);
    }
    let from = key(turn, word, operation);
    let command = operation & libc::FUTEX_CMD_MASK;
    let bits = match command {
        libc::FUTEX_WAIT_BITSET | libc::FUTEX_WAKE_BITSET => value3 as u32,
        _ => ANY,
    };
    if bits == 0 {
        return error(libc::EINVAL);
    }
    // SAFETY: the caller promises a futex word.
    let word = unsafe { word_at(word) };
    match command {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => {
            let timeout = core::ptr::with_exposed_provenance(timeout);
            // SAFETY: the caller promises that the arguments are those of `futex`.
            let deadline = match unsafe { deadline(turn, operation, timeout) } {
                Ok(deadline) => deadline,
                Err(invalid) => return invalid,
            };
            if word.load(Ordering::SeqCst) != value as u32 {
                return error(libc::EAGAIN);
            }
            wait(turn, from, bits, deadline)
        }
        libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET => {
            turn.scheduler().wake_bits(from, bits, count(value)) as isize
        }
        libc::FUTEX_CMP_REQUEUE if word.load(Ordering::SeqCst) != value3 as u32 => {
            error(libc::EAGAIN)
        }
        libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE => {
            let to = key(turn, word2, operation);
            requeue(turn, from, to, [value as i32, timeout as i32])
        }
        libc::FUTEX_WAKE_OP if word2 % 4 != 0 => error(libc::EINVAL),
        libc::FUTEX_WAKE_OP => {
            // SAFETY: the caller promises a second futex word.
            let Some(both) = calculate(unsafe { word_at(word2) }, value3 as u32) else {
                return error(libc::ENOSYS);
            };
            let other = key(turn, word2, operation);
            let woken = turn.wake(from, count(value));
            (woken
                + if both {
                    turn.wake(other, count(timeout))
                } else {
                    0
                }) as isize
        }
        _ => error(libc::ENOSYS),
    }
}
