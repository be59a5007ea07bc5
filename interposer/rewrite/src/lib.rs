//! Replacing a short instruction in a program's code by a jump to longer code elsewhere.
//!
//! `rdtsc` has two bytes and a jump has five, so the instructions after it must move along. That is
//! right only if they mean the same elsewhere and if nothing jumps between them. Both are
//! determined here, from bytes: the function that a place lies in (`frame`) is decoded from its
//! start (`instruction`), so that it is known where instructions begin; what can't be decoded or
//! moved is left alone (`plan`).
//!
//! Deliberately absent: memory, mappings, changing anything.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod frame;
mod instruction;
mod plan;

pub use frame::{Frames, Function};
pub use instruction::{Instruction, decode};
pub use plan::{CODE_BYTES, Code, JUMP_BYTES, Refusal, Text, jump, plan};

#[cfg(test)]
mod tests;
