//! The syscall trampoline: the one `syscall` instruction that the interposer uses, at the same
//! address in every program of the tree, so that a seccomp filter made for one program fits all
//! (see [`crate::seccomp`]).
//!
//! It is made by the first call, which may come long before the constructor (allocators call us
//! while programs are being loaded), in a page of its own. Everything here is assembly because it
//! replaces a `syscall` instruction: it changes only the registers that such an instruction
//! changes.

use core::arch::global_asm;
use core::ptr::addr_of;

/// The page's address, far from where the kernel puts programs, libraries, heaps and stacks.
pub const PAGE: u64 = 0x5000_0000_0000;
/// The caller's instruction pointer as the kernel sees it: the address after the instruction.
pub const PLACE: u64 = PAGE + 2;

global_asm!(
    ".pushsection .data.brolga_trampoline,\"aw\",@progbits",
    ".balign 8",
    ".hidden brolga_trampoline",
    ".globl brolga_trampoline",
    ".type brolga_trampoline, @object",
    ".size brolga_trampoline, 8",
    "brolga_trampoline:",
    ".quad brolga_trampoline_make",
    ".popsection",
    ".pushsection .text.brolga_trampoline,\"ax\",@progbits",
    "brolga_trampoline_make:",
    "push rax",
    "push rdi",
    "push rsi",
    "push rdx",
    "push r10",
    "push r8",
    "push r9",
    "mov eax, 9", // mmap
    "movabs rdi, {page}",
    "mov esi, 4096",
    "mov edx, 3",          // read, write
    "mov r10d, 0x100022",  // private, anonymous, nothing is replaced
    "mov r8, -1",
    "xor r9d, r9d",
    "syscall",
    "movabs rdi, {page}",
    "cmp rax, rdi",
    "jne 2f",
    "mov dword ptr [rdi], 0x00C3050F", // syscall; ret
    "mov eax, 10",                     // mprotect
    "mov esi, 4096",
    "mov edx, 5", // read, execute
    "syscall",
    "movabs rdi, {page}",
    "test eax, eax",
    "je 3f",
    "2:",
    "lea rdi, [rip + brolga_trampoline_plain]",
    "3:",
    "mov [rip + brolga_trampoline], rdi",
    "pop r9",
    "pop r8",
    "pop r10",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "pop rax",
    "jmp qword ptr [rip + brolga_trampoline]",
    "brolga_trampoline_plain:",
    "syscall",
    "ret",
    ".popsection",
    page = const PAGE,
);

unsafe extern "C" {
    /// The code to call instead of executing `syscall`.
    pub safe static brolga_trampoline: usize;
}

/// Returns whether system calls go through the page; not before the first one.
pub fn is_made() -> bool {
    // SAFETY: our own word, written at most once and before there is a second thread.
    unsafe { addr_of!(brolga_trampoline).read_volatile() == PAGE as usize }
}
