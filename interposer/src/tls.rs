//! Thread-local state: two words of initial-exec thread-local storage. The first has the thread's
//! index in the schedule, whether it has the turn, and whether its system calls are real at the
//! moment; the second the generation of the tape for which its kernel settings were made.
//!
//! Stable Rust has no thread-local static without `std`, and `std`'s would cost a call of
//! `__tls_get_addr` in a preloaded library, so the variable is defined in assembly. A preloaded
//! library is loaded at start and so may use the initial-exec model: two instructions.

use core::arch::{asm, global_asm};

global_asm!(
    ".pushsection .tbss.brolga,\"awT\",@nobits",
    ".balign 8",
    ".hidden brolga_thread_ix",
    ".globl brolga_thread_ix",
    ".type brolga_thread_ix, @object",
    ".size brolga_thread_ix, 16",
    "brolga_thread_ix:",
    ".zero 16",
    ".popsection",
);

#[inline(always)]
fn word() -> *mut u64 {
    let address: *mut u64;
    // SAFETY: reads the thread pointer and our variable's offset from the GOT; no other effect.
    unsafe {
        asm!(
            "mov {0}, qword ptr fs:[0]",
            "add {0}, qword ptr [rip + brolga_thread_ix@GOTTPOFF]",
            out(reg) address,
            options(nostack, pure, readonly)
        );
    }
    address
}

/// Bits of the word above the index.
mod bit {
    /// The policy is `parallel`: the thread has the turn only inside hooks.
    pub const PARALLEL: u64 = 1 << 16;
    /// The thread has the turn.
    pub const HOLDS: u64 = 1 << 17;
}

/// The calling thread's index; 0 for a thread outside the schedule, whose calls pass through.
#[inline(always)]
pub fn thread_ix() -> u16 {
    // SAFETY: our own thread-local word, zeroed at the thread's start.
    unsafe { *word() as u16 }
}

/// The calling thread's index if it is in a schedule of policy `serial`, where it has the turn: one
/// comparison, since every ordered operation begins so.
#[inline(always)]
pub fn running() -> Option<u16> {
    // SAFETY: as above.
    let word = unsafe { *word() };
    (1..=0xFFFF).contains(&word).then_some(word as u16)
}

/// Puts the calling thread into the schedule, or with 0 out of it.
pub fn set_thread_ix(ix: u16) {
    // SAFETY: as above; nobody else has a pointer to it.
    unsafe { *word() = u64::from(ix) }
}

/// The last value of [`set_generation`]; 0 in a new thread.
#[inline(always)]
pub fn generation() -> u64 {
    // SAFETY: the second of our own two thread-local words, zeroed at the thread's start.
    unsafe { *word().add(1) }
}

/// Remembers the generation that this thread has attended to.
pub fn set_generation(generation: u64) {
    // SAFETY: as above; nobody else has a pointer to it.
    unsafe { *word().add(1) = generation }
}

/// Puts the calling thread, which has the turn, into a schedule of policy `parallel`.
pub fn set_parallel_thread_ix(ix: u16) {
    // SAFETY: as above.
    unsafe { *word() = u64::from(ix) | bit::PARALLEL | bit::HOLDS }
}

/// Returns whether the calling thread has to take the turn before it touches what is shared.
#[inline(always)]
pub fn lacks_turn() -> bool {
    // SAFETY: as above.
    unsafe { *word() & (bit::PARALLEL | bit::HOLDS) == bit::PARALLEL }
}

/// Returns whether the calling thread has a turn to give back.
pub fn holds_turn() -> bool {
    // SAFETY: as above.
    unsafe { *word() & bit::HOLDS != 0 }
}

/// Notes that the calling thread has the turn, or has it no more.
pub fn set_holds_turn(holds: bool) {
    // SAFETY: as above.
    unsafe {
        *word() = match holds {
            true => *word() | bit::HOLDS,
            false => *word() & !bit::HOLDS,
        }
    }
}

const PATIENCE_AT: u32 = 32;
const PATIENCE: u64 = 0xFFFF << PATIENCE_AT;

/// The number of looks for which the calling thread spins for its turn.
pub fn patience() -> u32 {
    // SAFETY: as above.
    unsafe { ((*word() & PATIENCE) >> PATIENCE_AT) as u32 }
}

/// Sets the number of looks; at most 65535.
pub fn set_patience(patience: u32) {
    // SAFETY: as above.
    unsafe { *word() = *word() & !PATIENCE | u64::from(patience) << PATIENCE_AT & PATIENCE }
}

const SECTION_AT: u32 = 24;
const SECTION: u64 = 0xFF << SECTION_AT;
const HELD_AT: u32 = 48;
const HELD: u64 = 0xFFFF << HELD_AT;

/// Adds to a number in the word; false: it has no room.
fn count(mask: u64, at: u32) -> bool {
    // SAFETY: as above.
    unsafe {
        let room = *word() & mask != mask;
        *word() += u64::from(room) << at;
        room
    }
}

/// Takes one off, if there is one.
fn discount(mask: u64, at: u32) {
    // SAFETY: as above.
    unsafe { *word() -= u64::from(*word() & mask != 0) << at }
}

/// The calling thread enters a performance-critical section; false: it is in too many.
pub fn enter_section() -> bool {
    count(SECTION, SECTION_AT)
}

/// The calling thread leaves a performance-critical section.
pub fn leave_section() {
    discount(SECTION, SECTION_AT);
}

/// Returns whether the calling thread is in a performance-critical section. In policy `serial` the
/// comparison of [`running`] answers that.
#[inline(always)]
pub fn is_in_section() -> bool {
    // SAFETY: as above.
    running().is_none() && unsafe { *word() & SECTION != 0 }
}

/// The calling thread has locked a mutex without a turn; false: it has too many.
pub fn note_lock() -> bool {
    count(HELD, HELD_AT)
}

/// The calling thread has unlocked such a mutex.
pub fn note_unlock() {
    discount(HELD, HELD_AT);
}

/// Returns whether the calling thread has such a mutex.
pub fn has_locks() -> bool {
    // SAFETY: as above.
    unsafe { *word() & HELD != 0 }
}

const REAL: u64 = 1 << 22;

/// Returns whether the filter's handler is to leave this thread's system calls to the kernel, see
/// [`really`].
pub fn calls_are_real() -> bool {
    // SAFETY: as above.
    unsafe { *word() & REAL != 0 }
}

/// Runs something whose system calls are meant for the kernel although libc makes them: what only
/// the kernel knows (that a thread has really ended), or what is about the kernel's own state. Also
/// while the thread does not have the turn: libc's own signals find it then.
#[inline]
pub fn really<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: as above.
    let before = unsafe { *word() & REAL };
    // SAFETY: as above.
    unsafe { *word() |= REAL };
    let result = work();
    // SAFETY: as above. The work may have changed the index.
    unsafe { *word() = *word() & !REAL | before };
    result
}
