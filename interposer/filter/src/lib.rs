//! The seccomp filter of a wrapped server: which system calls reach the kernel, and which end up in the
//! interposer's handler of `SIGSYS`.
//!
//! The interposer makes all its system calls through one instruction at a fixed address, the *gate*, so
//! that the filter knows them in every program of the tree. Everything else is judged by number
//! ([`rule`]): calls that are free come first, because the kernel remembers which numbers a filter
//! always allows and does not run it for those.
//!
//! The filter survives `exec`, its handler does not. Until the interposer is there again only the loader
//! and a few of libc's first steps make calls: those of the loader are allowed by where it lies (the same
//! place in every program, since addresses are not random), libc's by number. So the filter must be the
//! same for all programs, and one is enough: it is put in once.
//!
//! Deliberately absent: system calls, what the handler does.
#![no_std]

mod rules;
#[cfg(test)]
mod tests;

use core::ops::Range;
pub use rules::{NUMBERS, Rule, rule};

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

/// Where trusted calls come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The address after the gate's instruction.
    pub gate: u64,
    /// The loader's code, within one block of 4 GiB; empty: not known.
    pub loader: Range<u64>,
}

const INSTRUCTIONS_MAX: usize = 512;

/// A filter.
#[derive(Debug)]
pub struct Program {
    code: [Instruction; INSTRUCTIONS_MAX],
    len: usize,
}

mod code {
    pub const LOAD: u16 = 0x20;
    pub const JUMP: u16 = 0x05;
    pub const IF_EQUAL: u16 = 0x15;
    pub const IF_AT_LEAST: u16 = 0x35;
    pub const RETURN: u16 = 0x06;
}

/// `struct seccomp_data`, by its places.
mod data {
    pub const NUMBER: u32 = 0;
    pub const ARCHITECTURE: u32 = 4;
    pub const PLACE_LOW: u32 = 8;
    pub const PLACE_HIGH: u32 = 12;
    pub const FIRST_ARGUMENT: u32 = 16;
}

/// Verdicts.
mod verdict {
    pub const ALLOW: u32 = 0x7FFF_0000;
    pub const TRAP: u32 = 0x0003_0000;
    const ENOSYS: u32 = 38;
    pub const REFUSE: u32 = 0x0005_0000 | ENOSYS;
}

const X86_64: u32 = 0xC000_003E;
const CLONE: u32 = 56;
/// What libc's `pthread_create` and `fork` ask of `clone`. The handler cannot do it for them: a new thread
/// returns onto another stack.
const CLONES: [u32; 2] = [0x003D_0F00, 0x0120_0011];

/// Marks a jump to where the caller's place is looked at, until that is known.
const TO_PLACES: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Stretch {
    from: u32,
    rule: Rule,
}

impl Program {
    /// Makes the filter.
    ///
    /// # Panics
    /// When the rules have outgrown the room for it, which the tests would show.
    #[must_use]
    pub fn new(places: &Places) -> Self {
        let none = Instruction {
            code: 0,
            if_true: 0,
            if_false: 0,
            value: 0,
        };
        let mut program = Self {
            code: [none; INSTRUCTIONS_MAX],
            len: 0,
        };
        program.load(data::ARCHITECTURE);
        program.compare(code::IF_EQUAL, X86_64, 1, 0);
        program.give(verdict::TRAP);
        program.load(data::NUMBER);
        program.by_number();
        program.by_place(places);
        program
    }

    /// As the kernel wants it.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.code[..self.len]
    }

    fn push(&mut self, code: u16, if_true: u8, if_false: u8, value: u32) {
        self.code[self.len] = Instruction {
            code,
            if_true,
            if_false,
            value,
        };
        self.len += 1;
    }

    fn load(&mut self, at: u32) {
        self.push(code::LOAD, 0, 0, at);
    }

    fn compare(&mut self, code: u16, value: u32, if_true: u8, if_false: u8) {
        self.push(code, if_true, if_false, value);
    }

    fn give(&mut self, verdict: u32) {
        self.push(code::RETURN, 0, 0, verdict);
    }

    /// A binary tree over the stretches of numbers with like rules.
    fn by_number(&mut self) {
        const STRETCHES_MAX: usize = 160;
        let mut stretches = [Stretch {
            from: 0,
            rule: Rule::Unknown,
        }; STRETCHES_MAX];
        let mut count = 0;
        // Those caught and those unknown are told apart by the handler.
        let coarse = |number| match rule(number) {
            Rule::Unknown => Rule::Caught,
            other => other,
        };
        for from in 0..=NUMBERS {
            let rule = coarse(from);
            if count == 0 || stretches[count - 1].rule != rule {
                stretches[count] = Stretch { from, rule };
                count += 1;
            }
        }
        self.tree(&stretches[..count]);
    }

    fn tree(&mut self, stretches: &[Stretch]) {
        let (lower, upper) = stretches.split_at(stretches.len() / 2);
        let Some(first) = upper.first() else { return };
        if lower.is_empty() {
            match first.rule {
                Rule::Free => self.give(verdict::ALLOW),
                Rule::Refused => self.give(verdict::REFUSE),
                Rule::Caught | Rule::Unknown => self.push(code::JUMP, 0, 0, TO_PLACES),
            }
            return;
        }
        let at = self.len;
        self.compare(code::IF_AT_LEAST, first.from, 0, 0);
        self.tree(lower);
        let distance = u8::try_from(self.len - at - 1);
        self.code[at].if_true = distance.expect("half of the tree is small");
        self.tree(upper);
    }

    /// Calls that are caught unless it is known who makes them.
    fn by_place(&mut self, places: &Places) {
        let here = self.len;
        for (at, instruction) in self.code[..here].iter_mut().enumerate() {
            if instruction.code == code::JUMP && instruction.value == TO_PLACES {
                instruction.value = (here - at - 1) as u32;
            }
        }
        let halves = |address: u64| ((address >> 32) as u32, address as u32);
        let (gate_high, gate_low) = halves(places.gate);
        self.load(data::PLACE_HIGH);
        self.compare(code::IF_EQUAL, gate_high, 0, 3);
        self.load(data::PLACE_LOW);
        self.compare(code::IF_EQUAL, gate_low, 0, 1);
        self.give(verdict::ALLOW);
        let (loader_high, loader_low) = halves(places.loader.start);
        let (_, loader_end) = halves(places.loader.end);
        self.load(data::PLACE_HIGH);
        self.compare(code::IF_EQUAL, loader_high, 0, 4);
        self.load(data::PLACE_LOW);
        self.compare(code::IF_AT_LEAST, loader_low, 0, 2);
        self.compare(code::IF_AT_LEAST, loader_end, 1, 0);
        self.give(verdict::ALLOW);
        self.load(data::NUMBER);
        self.compare(code::IF_EQUAL, CLONE, 0, 4);
        self.load(data::FIRST_ARGUMENT);
        self.compare(code::IF_EQUAL, CLONES[0], 1, 0);
        self.compare(code::IF_EQUAL, CLONES[1], 0, 1);
        self.give(verdict::ALLOW);
        self.give(verdict::TRAP);
    }
}
