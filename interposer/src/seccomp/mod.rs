//! System calls that bypass our symbols (libc's internal ones, inline ones) are trapped by a
//! seccomp filter and treated like the symbols.
//!
//! The filter ([`brolga_filter`]) is installed once, by the first process of the tree, and
//! inherited by all. Its signal, SIGSYS, is handled by [`trap`] in every process: each constructor
//! installs the handler again, since a program that was executed has only the filter. Calls that
//! the constructor makes before that go through the trampoline or are allowed.
//!
//! If the kernel has no seccomp, the server runs without the filter: the node is told and shows it.
//!
//! Calls are counted by call site ([`sites`]), which shows the symbols that are missing.

pub mod call_sites;
mod report;
mod sites;
mod trap;
mod vdso;

pub use trap::arm;
pub use vdso::take_away;

use crate::sys::{self, sys};
use crate::trampoline;
use crate::turn::Turn;
use crate::{elf, local};
use brolga_filter::{Program, TrustedCallers};
use core::ops::Range;

unsafe extern "C" {
    fn getauxval(kind: u64) -> u64;
}

/// Puts the filter in, if it is wanted, and tells the node.
pub fn begin(turn: &mut Turn) {
    if local::wants_syscall_filter() {
        let errno = put_in().err().unwrap_or(0);
        turn.shared().sites.answered(errno);
    }
}

/// `Err` is an errno.
fn put_in() -> Result<(), i32> {
    const MODE_FILTER: u32 = 1;
    // Without it the kernel slows down all of the server's memory accesses, against attacks that a
    // program which trusts itself need not fear.
    const SPEC_ALLOW: u32 = 4;
    if !trampoline::is_made() {
        return Err(libc::ENOMEM);
    }
    let program = Program::new(&TrustedCallers {
        trampoline: trampoline::PLACE,
        loader: loader(),
    });
    let instructions = program.instructions();
    let given = libc::sock_fprog {
        len: instructions.len() as u16,
        filter: instructions.as_ptr().cast_mut(),
    };
    let set = |flags: u32| {
        // SAFETY: a whole program that the kernel copies.
        unsafe { sys!(libc::SYS_seccomp, MODE_FILTER, flags, &raw const given) }
    };
    let mut result = set(SPEC_ALLOW);
    if result == -(libc::EACCES as isize) {
        // Who is not root must promise to gain no rights by executing programs.
        // SAFETY: plain integers.
        unsafe { sys!(sys::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        result = set(SPEC_ALLOW);
    }
    if result == -(libc::EINVAL as isize) {
        result = set(0);
    }
    if result < 0 {
        Err(-result as i32)
    } else {
        Ok(())
    }
}

/// The addresses of the loader's code.
fn loader() -> Range<u64> {
    // SAFETY: any kind may be asked for.
    let base = unsafe { getauxval(libc::AT_BASE) } as usize;
    if base == 0 {
        return 0..0;
    }
    // SAFETY: the loader is mapped there as long as the program runs.
    let code = unsafe { elf::segments(base) }.find(elf::Segment::is_code);
    code.map_or(0..0, |code| {
        let range = code.range_at(base);
        range.start as u64..range.end as u64
    })
}
