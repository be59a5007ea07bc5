//! The seccomp filter of a wrapped server: which system calls reach the kernel, and which end up in
//! the interposer's handler of `SIGSYS`.
//!
//! The interposer makes all its system calls through one instruction at a fixed address, the
//! *syscall trampoline*, so that the filter recognises them in every program of the tree.
//! Everything else is judged by number ([`rule`]): calls that are free come first, because the
//! kernel remembers which numbers a filter always allows and does not run it for those.
//!
//! The filter survives `exec`, its handler does not. Until the interposer is loaded again only the
//! dynamic loader and a few of libc's first steps make calls: those of the loader are allowed by
//! its address (the same in every program, since addresses are not random), libc's by number. So
//! the filter must be the same for all programs, and one is enough: it is installed once.
//!
//! Deliberately absent: system calls, what the handler does.
#![no_std]
#![forbid(unsafe_code)]

mod rules;
#[cfg(test)]
mod tests;

use core::mem::offset_of;
use core::ops::Range;
use libc::{seccomp_data, sock_filter};
pub use rules::{NUMBERS, Rule, rule};

/// Code that may make any call that is not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedCallers {
    /// The address after the trampoline's `syscall` instruction.
    pub trampoline: u64,
    /// The dynamic loader's code, within one block of 4 GiB; empty: not known.
    pub loader: Range<u64>,
}

const INSTRUCTIONS_MAX: usize = 512;

/// A filter.
#[derive(Debug)]
pub struct Program {
    code: [sock_filter; INSTRUCTIONS_MAX],
    len: usize,
}

// Instructions of classic BPF, by the kernel's names.
const BPF_LD_W_ABS: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const BPF_JMP_JA: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const BPF_JMP_JEQ_K: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const BPF_JMP_JGE_K: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const BPF_RET_K: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

// Fields of `struct seccomp_data`, by their offsets.
const NR: u32 = offset_of!(seccomp_data, nr) as u32;
const ARCH: u32 = offset_of!(seccomp_data, arch) as u32;
const INSTRUCTION_POINTER_LOW: u32 = offset_of!(seccomp_data, instruction_pointer) as u32;
const INSTRUCTION_POINTER_HIGH: u32 = INSTRUCTION_POINTER_LOW + 4;
const ARGS_0_LOW: u32 = offset_of!(seccomp_data, args) as u32;

const SECCOMP_RET_ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// `AUDIT_ARCH_X86_64` of `<linux/audit.h>`: the machine's ELF number, 64 bits, little-endian.
const AUDIT_ARCH_X86_64: u32 = 0x8000_0000 | 0x4000_0000 | libc::EM_X86_64 as u32;
/// The flags with which libc's `pthread_create` and `fork` call `clone`. The handler cannot make
/// these calls for them: a new thread returns onto another stack.
const CLONE_FLAGS: [u32; 2] = [
    (libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID) as u32,
    (libc::CLONE_CHILD_CLEARTID | libc::CLONE_CHILD_SETTID | libc::SIGCHLD) as u32,
];

/// Marks a jump to the checks of the caller's address, until their place is known.
const TO_CALLER_CHECKS: u32 = u32::MAX;

/// Numbers in a row that have the same rule, up to where the next range begins.
#[derive(Clone, Copy)]
struct SyscallRange {
    first: u32,
    rule: Rule,
}

impl Program {
    /// Makes the filter.
    ///
    /// # Panics
    /// When the rules have outgrown the room for it, which the tests would show.
    #[must_use]
    pub fn new(trusted: &TrustedCallers) -> Self {
        let none = sock_filter {
            code: 0,
            jt: 0,
            jf: 0,
            k: 0,
        };
        let mut program = Self {
            code: [none; INSTRUCTIONS_MAX],
            len: 0,
        };
        program.load(ARCH);
        program.jump_if(BPF_JMP_JEQ_K, AUDIT_ARCH_X86_64, 1, 0);
        program.ret(libc::SECCOMP_RET_TRAP);
        program.load(NR);
        program.check_number();
        program.check_caller(trusted);
        program
    }

    /// Returns the instructions, as `struct sock_fprog` has them.
    #[must_use]
    pub fn instructions(&self) -> &[sock_filter] {
        &self.code[..self.len]
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.code[self.len] = sock_filter { code, jt, jf, k };
        self.len += 1;
    }

    fn load(&mut self, offset: u32) {
        self.push(BPF_LD_W_ABS, 0, 0, offset);
    }

    fn jump_if(&mut self, code: u16, value: u32, jt: u8, jf: u8) {
        self.push(code, jt, jf, value);
    }

    fn ret(&mut self, action: u32) {
        self.push(BPF_RET_K, 0, 0, action);
    }

    /// Appends a binary tree over the ranges of numbers.
    fn check_number(&mut self) {
        const RANGES_MAX: usize = 160;
        let mut ranges = [SyscallRange {
            first: 0,
            rule: Rule::Unknown,
        }; RANGES_MAX];
        let mut count = 0;
        // Those caught and those unknown are told apart by the handler.
        let coarse = |number| match rule(number) {
            Rule::Unknown => Rule::Caught,
            other => other,
        };
        for first in 0..=NUMBERS {
            let rule = coarse(first);
            if count == 0 || ranges[count - 1].rule != rule {
                ranges[count] = SyscallRange { first, rule };
                count += 1;
            }
        }
        self.tree(&ranges[..count]);
    }

    fn tree(&mut self, ranges: &[SyscallRange]) {
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        let Some(first) = upper.first() else { return };
        if lower.is_empty() {
            match first.rule {
                Rule::Free => self.ret(libc::SECCOMP_RET_ALLOW),
                Rule::Refused => self.ret(SECCOMP_RET_ENOSYS),
                Rule::Caught | Rule::Unknown => self.push(BPF_JMP_JA, 0, 0, TO_CALLER_CHECKS),
            }
            return;
        }
        let at = self.len;
        self.jump_if(BPF_JMP_JGE_K, first.first, 0, 0);
        self.tree(lower);
        let distance = u8::try_from(self.len - at - 1);
        self.code[at].jt = distance.expect("half of the tree is small");
        self.tree(upper);
    }

    /// Appends the checks of calls that are caught unless their caller is trusted.
    fn check_caller(&mut self, trusted: &TrustedCallers) {
        let here = self.len;
        for (at, instruction) in self.code[..here].iter_mut().enumerate() {
            if instruction.code == BPF_JMP_JA && instruction.k == TO_CALLER_CHECKS {
                instruction.k = (here - at - 1) as u32;
            }
        }
        let halves = |address: u64| ((address >> 32) as u32, address as u32);
        let (high, low) = halves(trusted.trampoline);
        self.load(INSTRUCTION_POINTER_HIGH);
        self.jump_if(BPF_JMP_JEQ_K, high, 0, 3);
        self.load(INSTRUCTION_POINTER_LOW);
        self.jump_if(BPF_JMP_JEQ_K, low, 0, 1);
        self.ret(libc::SECCOMP_RET_ALLOW);
        let (high, low) = halves(trusted.loader.start);
        let (_, end) = halves(trusted.loader.end);
        self.load(INSTRUCTION_POINTER_HIGH);
        self.jump_if(BPF_JMP_JEQ_K, high, 0, 4);
        self.load(INSTRUCTION_POINTER_LOW);
        self.jump_if(BPF_JMP_JGE_K, low, 0, 2);
        self.jump_if(BPF_JMP_JGE_K, end, 1, 0);
        self.ret(libc::SECCOMP_RET_ALLOW);
        self.load(NR);
        self.jump_if(BPF_JMP_JEQ_K, libc::SYS_clone as u32, 0, 4);
        self.load(ARGS_0_LOW);
        self.jump_if(BPF_JMP_JEQ_K, CLONE_FLAGS[0], 1, 0);
        self.jump_if(BPF_JMP_JEQ_K, CLONE_FLAGS[1], 0, 1);
        self.ret(libc::SECCOMP_RET_ALLOW);
        self.ret(libc::SECCOMP_RET_TRAP);
    }
}
