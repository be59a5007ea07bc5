//! Functions with `...`: stable Rust can't define them, so each is a few instructions that lay out
//! the arguments and call a function with a fixed list.

use crate::hooks::process::exec;
use crate::hooks::stdio::stream;

use core::ffi::{c_char, c_int};

/// A `printf`-like function: keeps its `$fixed` bytes of fixed arguments (8 for each) where they are and
/// passes a `va_list` of the others in register `$list`. (System V ABI: the register save area has six
/// words and eight vectors; `al` says whether vectors are used.)
macro_rules! formatted {
    ($function:path, $fixed:literal, $list:literal) => {
        core::arch::naked_asm!(
            "sub rsp, 216",
            "mov [rsp], rdi",
            "mov [rsp + 8], rsi",
            "mov [rsp + 16], rdx",
            "mov [rsp + 24], rcx",
            "mov [rsp + 32], r8",
            "mov [rsp + 40], r9",
            "test al, al",
            "je 2f",
            "movaps [rsp + 48], xmm0",
            "movaps [rsp + 64], xmm1",
            "movaps [rsp + 80], xmm2",
            "movaps [rsp + 96], xmm3",
            "movaps [rsp + 112], xmm4",
            "movaps [rsp + 128], xmm5",
            "movaps [rsp + 144], xmm6",
            "movaps [rsp + 160], xmm7",
            "2:",
            concat!("mov dword ptr [rsp + 176], ", $fixed),
            "mov dword ptr [rsp + 180], 48",
            "lea rax, [rsp + 224]",
            "mov [rsp + 184], rax",
            "mov [rsp + 192], rsp",
            concat!("lea ", $list, ", [rsp + 176]"),
            "call {function}",
            "add rsp, 216",
            "ret",
            function = sym $function,
        )
    };
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn dprintf(fd: c_int, format: *const c_char) -> c_int {
    formatted!(stream::print_to, "16", "rdx")
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn __dprintf_chk(fd: c_int, flag: c_int, format: *const c_char) -> c_int {
    formatted!(stream::__vdprintf_chk, "24", "rcx")
}

/// A function whose arguments are all words: calls `$function` with where they are, those that came in
/// registers and those that came on the stack.
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
    listed!(exec::execl_)
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn execlp(file: *const c_char, first: *const c_char) -> c_int {
    listed!(exec::execlp_)
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn execle(path: *const c_char, first: *const c_char) -> c_int {
    listed!(exec::execle_)
}
