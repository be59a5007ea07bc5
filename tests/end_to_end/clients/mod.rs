//! Clients of wrapped servers get the right replies from every node, also while a leader dies.
//!
//! `resp` and `counting` are clients that other tests use as well.

pub mod benchmark;
pub mod counting;
pub mod echo;
pub mod redis;
pub mod relay;
pub mod resp;
pub mod snapshots;
pub mod store;
pub mod unix;
pub mod web;
