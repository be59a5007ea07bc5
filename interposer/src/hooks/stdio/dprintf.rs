//! `dprintf` and `vdprintf`. (Stable Rust can't define functions with `...`: each is a few
//! instructions that lay out the arguments and call a function with a fixed list.)

use super::stream::{Cookie, free, needs_us, vasprintf, write};
use crate::libc_symbols::libc_own;
use crate::turn::Turn;
use core::ffi::{c_char, c_int, c_void};

/// Formats and writes: what libc's own function does, which writes where no hook sees it.
///
/// # Safety
/// As `vdprintf`: a format and the arguments that fit it.
pub(crate) unsafe extern "C" fn print_to(
    fd: c_int,
    format: *const c_char,
    arguments: *mut c_void,
) -> c_int {
    let mut turn = Turn::have();
    if !turn.as_mut().is_some_and(|turn| needs_us(turn, fd)) {
        return libc_own!(
            vdprintf(fd: c_int, format: *const c_char, arguments: *mut c_void) -> c_int
        );
    }
    let mut text = core::ptr::null_mut();
    // SAFETY: the caller's promise; the text is ours to free.
    unsafe {
        let len = vasprintf(&raw mut text, format, arguments);
        if len < 0 {
            return len;
        }
        let cookie = Cookie::plain(fd).word();
        let put = write(cookie, text.cast(), len.cast_unsigned() as usize);
        free(text.cast());
        if put == len as isize { len } else { -1 }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vdprintf(
    fd: c_int,
    format: *const c_char,
    arguments: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { print_to(fd, format, arguments) }
}

/// With checks of the format that `flag` asks for, which find faults of the program only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vdprintf_chk(
    fd: c_int,
    _flag: c_int,
    format: *const c_char,
    arguments: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { print_to(fd, format, arguments) }
}

/// A `printf`-like function: keeps its `$fixed` bytes of fixed arguments (8 for each) where they
/// are and passes a `va_list` of the others in register `$list`. (System V ABI: the register save
/// area has six words and eight vectors; `al` says whether vectors are used.)
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
    formatted!(print_to, "16", "rdx")
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn __dprintf_chk(fd: c_int, flag: c_int, format: *const c_char) -> c_int {
    formatted!(__vdprintf_chk, "24", "rcx")
}
