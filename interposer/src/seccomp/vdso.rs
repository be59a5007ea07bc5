//! Removes the vDSO and the random bytes from programs that the tree executes, as the launcher does
//! for the first program: through the vDSO libc would read clocks without any system call.
//!
//! The loader has looked up the vDSO's functions before. Their addresses are in its data that is
//! read-only by then, and are replaced by null, which is what libc finds on a machine without a
//! vDSO.

use crate::elf::{self, Segment};
use crate::hooks;
use crate::sys::sys;
use crate::turn::Turn;
use core::ffi::{c_char, c_void};
use core::ops::Range;

const PAGE: usize = 4096;
const RANDOM_BYTES: usize = 16;

/// An entry of the auxiliary vector.
#[repr(C)]
struct Entry {
    kind: u64,
    value: usize,
}

/// The auxiliary vector, which follows the environment.
///
/// # Safety
/// The environment is the one that the kernel has made.
unsafe fn auxiliary(environment: *const *const c_char) -> *mut Entry {
    // SAFETY: the kernel has put the strings' addresses, a null and the vector there.
    unsafe {
        let mut at = environment;
        while !(*at).is_null() {
            at = at.add(1);
        }
        at.add(1).cast_mut().cast()
    }
}

/// For the constructor of a program that the tree has executed.
///
/// # Safety
/// The environment is the one that the kernel has made.
pub unsafe fn take_away(turn: &mut Turn, environment: *const *const c_char) {
    const IGNORE: u64 = 1;
    let (mut vdso, mut loader) = (0, 0);
    // SAFETY: the caller's promise; the vector ends with a null, and the random bytes are on the
    // stack, which may be changed.
    unsafe {
        let mut entry = auxiliary(environment);
        while (*entry).kind != libc::AT_NULL {
            match (*entry).kind {
                libc::AT_BASE => loader = (*entry).value,
                libc::AT_RANDOM => {
                    let bytes = (*entry).value as *mut c_void;
                    hooks::fill_random(turn, bytes, RANDOM_BYTES);
                }
                libc::AT_SYSINFO_EHDR => {
                    vdso = (*entry).value;
                    (*entry).kind = IGNORE;
                }
                _ => {}
            }
            entry = entry.add(1);
        }
    }
    if vdso == 0 || loader == 0 {
        return;
    }
    // SAFETY: both are mapped as long as the program runs.
    let (code, data) = unsafe {
        (
            elf::segments(vdso).find(Segment::is_code),
            elf::segments(loader).find(Segment::is_read_only_later),
        )
    };
    if let (Some(code), Some(data)) = (code, data) {
        forget(&code.range_at(vdso), &data.range_at(loader));
    }
}

/// Replaces addresses of functions in `code` by null. (The image's own address, which begins it, is
/// no function.)
fn forget(code: &Range<usize>, data: &Range<usize>) {
    // The loader protects whole pages only.
    let (first, end) = (data.start & !(PAGE - 1), data.end & !(PAGE - 1));
    let protect = |rights: i32| {
        // SAFETY: pages of the loader's data; nobody else runs.
        unsafe { sys!(libc::SYS_mprotect, first, end - first, rights) }
    };
    if protect(libc::PROT_READ | libc::PROT_WRITE) != 0 {
        return;
    }
    for at in (data.start.next_multiple_of(8)..data.end - 7).step_by(8) {
        let word = at as *mut usize;
        // SAFETY: within the loader's data, which was made writable.
        unsafe {
            if *word > code.start && *word < code.end {
                *word = 0;
            }
        }
    }
    protect(libc::PROT_READ);
}
