//! File metadata as the server sees it: inode numbers and times, the same on every replica.
//!
//! The kernel's inode numbers and clocks differ between replicas. [`inodes`] numbers files in the
//! order in which the server first sees them; [`times`] replaces times that the kernel has set.
//!
//! Everything here is plain data in memory that the server's process tree shares, touched only by
//! the thread that has the turn. Zeroed memory is valid.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod inodes;
pub mod times;
