//! What a server sees of a file beyond its content: identity and times, the same on every replica.
//!
//! The kernel's inode numbers and clocks differ between replicas. [`numbers`] numbers files in the order
//! in which the server first sees them; [`times`] replaces times that the kernel has set.
//!
//! Everything here is plain data in memory that the server's process tree shares, touched only by the
//! thread that has the turn. Zeroed memory is valid.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod numbers;
pub mod times;
