//! `execl`, `execlp` and `execle`, whose arguments are a list. (Stable Rust can't define functions
//! with `...`: each is a few instructions that lay out the arguments and call a function with a
//! fixed list.)

use super::exec::{Scratch, Words, execv, execve, execvp};
use crate::hooks::result::{error, finish};
use core::ffi::{c_char, c_int};

/// A function whose arguments are all words: calls `$function` with where they are, those that came
/// in registers and those that came on the stack.
macro_rules! listed {
    ($function:path) => {
        core::arch::naked_asm!(
            "push r9",
            "push r8",
            "push rcx",
            "push rdx",
            "push rsi",
            "push rdi",
            "mov rdi, rsp",
            "lea rsi, [rsp + 56]",
            "sub rsp, 8",
            "call {function}",
            "add rsp, 56",
            "ret",
            function = sym $function,
        )
    };
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn execl(path: *const c_char, first: *const c_char) -> c_int {
    listed!(execl_)
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn execlp(file: *const c_char, first: *const c_char) -> c_int {
    listed!(execlp_)
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn execle(path: *const c_char, first: *const c_char) -> c_int {
    listed!(execle_)
}

/// The arguments of a call with `...`: six in registers, the others on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Listed {
    registers: Words,
    stack: Words,
}

impl Listed {
    /// # Safety
    /// The call has more than `at` arguments.
    unsafe fn get(self, at: usize) -> *const c_char {
        // SAFETY: the caller promises that the call has more than `at` arguments.
        unsafe {
            match at {
                0..6 => *self.registers.add(at),
                _ => *self.stack.add(at - 6),
            }
        }
    }
}

/// The way in which a call with `...` finds its program and its environment.
#[derive(Clone, Copy)]
enum By {
    Path,
    File,
    /// The environment follows the arguments.
    PathAndEnvironment,
}

/// # Safety
/// A call `execl(path, first, ..., NULL)` or one of its family.
unsafe fn execute_list(listed: Listed, by: By) -> c_int {
    // SAFETY: the caller's promise: a path, and arguments up to a null.
    let given = (0..)
        .find(|at| unsafe { listed.get(at + 1).is_null() })
        .unwrap_or(0);
    let Some(scratch) = Scratch::new((given + 1) * size_of::<*const c_char>()) else {
        return finish(error(libc::ENOMEM)) as c_int;
    };
    let words = scratch.at.cast::<*const c_char>();
    // SAFETY: as above; the arguments and a null fit.
    unsafe {
        for at in 0..given {
            words.add(at).write(listed.get(at + 1));
        }
        let path = listed.get(0);
        match by {
            By::Path => execv(path, words),
            By::File => execvp(path, words),
            By::PathAndEnvironment => execve(path, words, listed.get(given + 2).cast()),
        }
    }
}

pub(crate) unsafe extern "C" fn execl_(registers: Words, stack: Words) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { execute_list(Listed { registers, stack }, By::Path) }
}

pub(crate) unsafe extern "C" fn execlp_(registers: Words, stack: Words) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { execute_list(Listed { registers, stack }, By::File) }
}

pub(crate) unsafe extern "C" fn execle_(registers: Words, stack: Words) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { execute_list(Listed { registers, stack }, By::PathAndEnvironment) }
}
