//! Emulation of the time stamp counter.
//!
//! `rdtsc` is an instruction, so no symbol and no seccomp filter sees it. The kernel can make it
//! fault (`PR_SET_TSC`), and the handler here answers with virtual time. A fault costs two
//! microseconds, and some programs read the counter for every row of a table (InnoDB's statistics
//! do), so an instruction that has faulted is rewritten where that is safe, see [`patch`], and
//! costs a nanosecond from then on.
//!
//! The counter runs at 1 GHz: it shows virtual time, plus a little for each reading, so that loops
//! which wait for it terminate.
//!
//! The kernel's setting is inherited by threads, by `fork` and by `exec`; but a new program reads
//! the counter before the interposer can answer, so [`control::pause`] comes before each `exec`. A
//! checkpoint does not include the setting: [`crate::restore`] makes it again.

pub mod control;
pub mod counter;
mod maps;
mod patch;

use crate::turn::{self, Turn};
use core::ffi::c_int;
pub use maps::Mapping;
/// `rdtsc` and `rdtscp`.
const READ: [u8; 2] = [0x0F, 0x31];
const READ_WITH_PROCESSOR: [u8; 3] = [0x0F, 0x01, 0xF9];

/// Returns whether a fault was a reading of the counter, which has been answered then.
///
/// # Safety
/// The arguments are those of a handler of SIGSEGV.
pub unsafe fn answer(info: *const libc::siginfo_t, context: *mut libc::ucontext_t) -> bool {
    const SI_KERNEL: c_int = 0x80;
    // SAFETY: the caller's promise; nobody else has this frame.
    let (info, registers) = unsafe { (&*info, &mut (*context).uc_mcontext.gregs) };
    if info.si_code != SI_KERNEL {
        return false; // A fault of memory.
    }
    let at = registers[libc::REG_RIP as usize] as usize;
    // SAFETY: the processor has just executed what is there, and every instruction that can fault
    // so has two bytes at least; the third is read only if they are not the last ones of the
    // instruction.
    let (first, length) = unsafe {
        let code = at as *const u8;
        let first = [code.read(), code.add(1).read()];
        if first == READ {
            (true, READ.len())
        } else if first == READ_WITH_PROCESSOR[..2] && code.add(2).read() == READ_WITH_PROCESSOR[2]
        {
            (false, READ_WITH_PROCESSOR.len())
        } else {
            return false;
        }
    };
    // Taken where threads run beside each other; a thread outside the schedule does without.
    let _turn = Turn::have();
    // SAFETY: the tree's memory is mapped as long as the program runs, and the thread has the turn.
    let shared = unsafe { &mut *turn::memory() };
    let clock = shared.scheduler.clock_address();
    // Code that reads the clock without the turn will do only where a running thread has it, and is
    // changed safely only where others sleep.
    let may_rewrite = first && !Turn::is_parallel();
    if may_rewrite && patch::rewrite(at, &raw mut shared.tsc, clock) {
        return true; // It is done again, by the code that is there now.
    }
    let value = shared.tsc.read(&shared.scheduler);
    registers[libc::REG_RAX as usize] = (value & 0xFFFF_FFFF) as i64;
    registers[libc::REG_RDX as usize] = (value >> 32) as i64;
    registers[libc::REG_RIP as usize] = (at + length) as i64;
    if !first {
        registers[libc::REG_RCX as usize] = 0; // the processor's number
    }
    true
}
