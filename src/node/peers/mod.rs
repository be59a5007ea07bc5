//! The other nodes.
//!
//! * `compatibility`: whether their servers are made of the same files; `frames`: what nodes send
//!   each other
//!   beside consensus; `learners`: nodes that follow and do not vote.

pub(crate) mod compatibility;
pub(crate) mod frames;
pub(crate) mod learners;
