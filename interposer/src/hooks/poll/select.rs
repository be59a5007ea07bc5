//! `select` and `pselect`.

use super::timeout::Patience;
use super::{ready_now, watch};
use crate::hooks::result::{error, finish};
use crate::hooks::signal::mask::with_mask;
use crate::nanoseconds;
use crate::sys::{self, sys};
use crate::turn::{Turn, key_of};
use brolga_tape::operation as op;
use brolga_vnet::WaitOn;
use core::ffi::{c_int, c_short, c_void};
use libc::{fd_set, sigset_t, timespec, timeval};

const SELECT_MAX: usize = 1024;

/// The bits of the three sets of a select.
type Results = [[u64; SELECT_MAX / 64]; 3];
const NOTHING: Results = [[0; SELECT_MAX / 64]; 3];

/// A set of descriptors of a select.
#[derive(Clone, Copy)]
struct Set(*mut u64);

impl Set {
    /// Returns whether a descriptor is in the set.
    ///
    /// # Safety
    /// The set is null or has [`SELECT_MAX`] bits, and `fd` is less.
    unsafe fn has(self, fd: usize) -> bool {
        // SAFETY: null, or a set of SELECT_MAX bits.
        !self.0.is_null() && unsafe { *self.0.add(fd / 64) } & (1 << (fd % 64)) != 0
    }

    /// Replaces the words that `count` descriptors take.
    ///
    /// # Safety
    /// The set is null or has [`SELECT_MAX`] bits, and `count` is no more.
    unsafe fn store(self, bits: &[u64; SELECT_MAX / 64], count: usize) {
        if self.0.is_null() {
            return;
        }
        for (at, word) in bits.iter().enumerate().take(count.div_ceil(64)) {
            // SAFETY: a set of SELECT_MAX bits.
            unsafe { *self.0.add(at) = *word };
        }
    }
}

/// Waits until a descriptor of the sets is ready.
///
/// # Safety
/// Each set is null or has [`SELECT_MAX`] bits.
unsafe fn select_(turn: &mut Turn, count: c_int, sets: [Set; 3], patience: Patience) -> isize {
    const EVENTS: [c_short; 3] = [libc::POLLIN, libc::POLLOUT, libc::POLLPRI];
    const FIRES: [c_short; 3] = [
        libc::POLLIN | libc::POLLHUP | libc::POLLERR,
        libc::POLLOUT | libc::POLLERR,
        libc::POLLPRI,
    ];
    let Some(count) = usize::try_from(count)
        .ok()
        .filter(|count| *count <= SELECT_MAX)
    else {
        return error(libc::EINVAL);
    };
    // SAFETY: the caller promises sets of SELECT_MAX bits.
    let wants = |at: usize, fd: usize| unsafe { sets[at].has(fd) };
    let look = |turn: &mut Turn, results: &mut Results| {
        *results = NOTHING;
        let mut total = 0;
        for fd in 0..count {
            for at in (0..3).filter(|at| wants(*at, fd)) {
                let got = ready_now(turn, fd as c_int, EVENTS[at]);
                if got & libc::POLLNVAL != 0 {
                    return error(libc::EBADF);
                }
                if got & FIRES[at] != 0 {
                    results[at][fd / 64] |= 1 << (fd % 64);
                    total += 1;
                }
            }
        }
        total
    };
    let key = |turn: &mut Turn, _: &Results| {
        for fd in (0..count).filter(|fd| (0..3).any(|at| wants(at, *fd))) {
            watch(turn, fd as c_int);
        }
        key_of(WaitOn::AnySocket)
    };
    let mut results = NOTHING;
    let total = patience.until(turn, &mut results, look, key);
    if total >= 0 {
        for at in 0..3 {
            // SAFETY: the caller promises sets of SELECT_MAX bits.
            unsafe { sets[at].store(&results[at], count) };
        }
        turn.scheduler().note(total as u64);
    }
    total
}

fn sets(reads: *mut fd_set, writes: *mut fd_set, excepts: *mut fd_set) -> [Set; 3] {
    [Set(reads.cast()), Set(writes.cast()), Set(excepts.cast())]
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn select(
    count: c_int,
    reads: *mut fd_set,
    writes: *mut fd_set,
    excepts: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    let Some(mut turn) = Turn::take(op::POLL) else {
        // SAFETY: the caller's pointers, passed on.
        return finish(unsafe { sys!(libc::SYS_select, count, reads, writes, excepts, timeout) })
            as c_int;
    };
    // SAFETY: the caller's promise.
    unsafe {
        let ns = timeout.as_ref().map(|time| {
            time.tv_sec.max(0) as u64 * 1_000_000_000 + time.tv_usec.max(0) as u64 * 1000
        });
        let patience = Patience::of_ns(&mut turn, ns);
        finish(select_(
            &mut turn,
            count,
            sets(reads, writes, excepts),
            patience,
        )) as c_int
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pselect(
    count: c_int,
    reads: *mut fd_set,
    writes: *mut fd_set,
    excepts: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let Some(mut turn) = Turn::take(op::POLL) else {
        let mask: [*const c_void; 2] = [mask.cast(), core::ptr::without_provenance(8)];
        // SAFETY: the caller's pointers, passed on.
        let result = unsafe {
            sys!(
                sys::SYS_pselect6,
                count,
                reads,
                writes,
                excepts,
                timeout,
                mask.as_ptr()
            )
        };
        return finish(result) as c_int;
    };
    // SAFETY: the caller's promise.
    unsafe {
        let patience = Patience::of_ns(&mut turn, timeout.as_ref().map(nanoseconds::ns_of));
        finish(with_mask(&mut turn, mask, |turn| {
            select_(turn, count, sets(reads, writes, excepts), patience)
        })) as c_int
    }
}
