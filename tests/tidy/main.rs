//! House rules that no compiler checks. Verifying never edits the tree.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod circles;
mod doors;
mod links;
mod ratchet;
mod size;
mod source;
mod text;
mod tree;
mod words;
