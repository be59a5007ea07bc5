//! The store as its users meet it: a process of its own, and real sockets.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests, too")]

mod durability;
mod harness;
mod protocol;
mod redis_tools;
mod running;
