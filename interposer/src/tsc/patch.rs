//! Rewrites a reading of the time stamp counter into a jump to code that computes the virtual one.
//!
//! [`brolga_rewrite`] decides whether and how; this module finds room for the new code and writes
//! both. Code is changed by the thread that has the turn while all others sleep in the scheduler,
//! and only in mapped files: code that a program has generated it may also move.

use super::READ;
use super::counter::{Counter, READING_NS};
use super::maps::Loaded;
use crate::sys::{self, sys};
use brolga_dmt::NS_PER_TICK;
use brolga_rewrite::{CODE_BYTES, Code, Refusal, jump, plan};
use core::sync::atomic::{AtomicUsize, Ordering};

/// New code is made in blocks, each near the code that it serves.
const BLOCK_BYTES: usize = 64 * 1024;
const BLOCKS: usize = 16;
/// The most distance between code and block: less than a jump reaches.
const REACH: usize = 0x7000_0000;
const PAGE: usize = 4096;

/// Addresses of the blocks, and how many bytes of each are used. Changed with the turn.
static BLOCK_AT: [AtomicUsize; BLOCKS] = [const { AtomicUsize::new(0) }; BLOCKS];
static BLOCK_USED: [AtomicUsize; BLOCKS] = [const { AtomicUsize::new(0) }; BLOCKS];

/// Places that stay as they are; finding that out takes longer than a fault.
static REFUSED: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];

/// Rewrites the reading at `at` if that is safe; says whether it has.
pub fn rewrite(at: usize, counter: *mut Counter, clock: *const u64) -> bool {
    let is = |place: usize| move |known: &&AtomicUsize| known.load(Ordering::Relaxed) == place;
    if REFUSED.iter().any(|known| is(at)(&known)) {
        return false;
    }
    let rewritten = try_rewrite(at, counter, clock).is_some();
    if !rewritten && let Some(free) = REFUSED.iter().find(is(0)) {
        free.store(at, Ordering::Relaxed);
    }
    rewritten
}

fn try_rewrite(at: usize, counter: *mut Counter, clock: *const u64) -> Option<()> {
    let loaded = Loaded::around(at)?;
    let (block, room) = room_near(at)?;
    let code = reading(room as u64, counter, clock).ok()?;
    let code = plan(code, &loaded.text()?, at as u64, READ.len()).ok()?;
    let jump = jump(at as u64, room as u64).ok()?;
    // SAFETY: room of ours that nobody executes yet, then a place that nobody executes now (see the
    // module's description) and into the middle of which nothing jumps.
    unsafe {
        write(room, code.bytes())?;
        write(at, jump.bytes())?;
    }
    let used = code.bytes().len().next_multiple_of(16);
    BLOCK_USED[block].fetch_add(used, Ordering::Relaxed);
    Some(())
}

/// Leaves the halves of the virtual counter in `%eax` and `%edx`, as `rdtsc` does, and changes
/// neither flags nor other registers nor the stack.
fn reading(at: u64, counter: *mut Counter, clock: *const u64) -> Result<Code, Refusal> {
    const { assert!(NS_PER_TICK == 10 && READING_NS == 32) };
    let clock = clock.addr().wrapping_sub(counter.addr()).cast_signed();
    let clock = i32::try_from(clock).map_err(|_| Refusal::OutOfReach)?;
    let mut code = Code::at(at);
    code.push(&[0x48, 0xBA])?; // mov $counter, %rdx
    code.push(&counter.addr().to_le_bytes())?;
    code.push(&[0x48, 0x89, 0x4A, 0x10])?; // mov %rcx, saved(%rdx)
    code.push(&[0x48, 0x8B, 0x0A])?; // mov readings(%rdx), %rcx
    code.push(&[0x48, 0x8D, 0x49, READING_NS as u8])?; // lea 32(%rcx), %rcx
    code.push(&[0x48, 0x89, 0x0A])?; // mov %rcx, readings(%rdx)
    code.push(&[0x48, 0x8B, 0x82])?; // mov clock(%rdx), %rax
    code.push(&clock.to_le_bytes())?;
    code.push(&[0x48, 0x8D, 0x04, 0x80])?; // lea (%rax,%rax,4), %rax
    code.push(&[0x48, 0x8D, 0x04, 0x41])?; // lea (%rcx,%rax,2), %rax
    code.push(&[0x48, 0x8B, 0x4A, 0x08])?; // mov base(%rdx), %rcx
    code.push(&[0x48, 0x8D, 0x04, 0x08])?; // lea (%rax,%rcx), %rax
    code.push(&[0x48, 0x8B, 0x4A, 0x10])?; // mov saved(%rdx), %rcx
    code.push(&[0x48, 0x89, 0x42, 0x18])?; // mov %rax, value(%rdx)
    code.push(&[0x8B, 0x52, 0x1C])?; // mov value+4(%rdx), %edx
    code.push(&[0x89, 0xC0])?; // mov %eax, %eax
    Ok(code)
}

/// A block with room, near enough, and where in it.
fn room_near(at: usize) -> Option<(usize, usize)> {
    for (index, (block, used)) in BLOCK_AT.iter().zip(&BLOCK_USED).enumerate() {
        let used = used.load(Ordering::Relaxed);
        let mut start = block.load(Ordering::Relaxed);
        if start == 0 {
            start = map_near(at)?;
            block.store(start, Ordering::Relaxed);
        }
        if start.abs_diff(at) < REACH && used + CODE_BYTES <= BLOCK_BYTES {
            return Some((index, start + used));
        }
    }
    None
}

/// Maps a block at the first free address below the code, which is the same on all replicas.
fn map_near(at: usize) -> Option<usize> {
    const STEP: usize = 1 << 20;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let below = at & !(STEP - 1);
    (1..REACH / STEP).find_map(|steps| {
        let wanted = below.checked_sub(steps * STEP)?;
        // SAFETY: a new mapping where nothing is.
        let got = unsafe {
            sys!(
                sys::SYS_mmap,
                wanted,
                BLOCK_BYTES,
                libc::PROT_READ | libc::PROT_EXEC,
                flags,
                usize::MAX,
                0
            )
        };
        (got == wanted as isize).then_some(wanted)
    })
}

/// Changes code.
///
/// # Safety
/// Nobody executes these bytes, and they are mapped from a file or a block of ours.
unsafe fn write(at: usize, bytes: &[u8]) -> Option<()> {
    let first = at & !(PAGE - 1);
    let length = (at + bytes.len()).next_multiple_of(PAGE) - first;
    let executable = libc::PROT_READ | libc::PROT_EXEC;
    let writable = executable | libc::PROT_WRITE;
    // SAFETY: whole pages that stay executable, since other threads may be about to go to sleep in
    // them; then bytes that are writable.
    unsafe {
        if sys!(libc::SYS_mprotect, first, length, writable) < 0 {
            return None;
        }
        (at as *mut u8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        sys!(libc::SYS_mprotect, first, length, executable);
    }
    Some(())
}
