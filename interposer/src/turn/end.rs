//! The end of the tree.

use super::reaping::wait_for_end;
use crate::local::local;
use crate::output::{emit, ring_doorbell};
use crate::{sys, tls};
use brolga_tape::record::Record;
use core::sync::atomic::{AtomicBool, Ordering};

static ENDING: AtomicBool = AtomicBool::new(false);

/// Says that the first process of the tree is about to end.
pub fn announce_exit(status: i32) {
    if !ENDING.swap(true, Ordering::Relaxed) {
        emit(tls::thread_ix(), &Record::Exit { status });
        ring_doorbell();
    }
}

/// Lets a root that keeps its place end: the last process is about to.
pub fn end_tree(real_pid: i32, status: i32) {
    // SAFETY: the mapping stays; the caller has the turn, and only atomics are looked at by others.
    let shared = unsafe { &mut *local().shared };
    shared.first_status = status;
    shared
        .last_pid
        .store(real_pid.cast_unsigned(), Ordering::Release);
    sys::futex_wake(&shared.last_pid);
}

/// Keeps the place of the tree's root, which has ended for the tree, until all others have. The
/// kernel makes it the parent of whatever loses its own.
pub fn await_end_of_tree() -> ! {
    sys::reap_all_children();
    // SAFETY: the mapping stays; an atomic word.
    let last = unsafe { &(*local().shared).last_pid };
    while last.load(Ordering::Acquire) == 0 {
        sys::futex_wait(last, 0);
    }
    wait_for_end(last.load(Ordering::Acquire).cast_signed());
    // SAFETY: written before the word that was just seen, and not any more.
    let status = unsafe { (*local().shared).first_status };
    match status & 0x7F {
        0 => sys::die(status >> 8),
        signal => sys::die(128 + signal),
    }
}
