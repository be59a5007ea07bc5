//! Processes: `fork`, `exec`, `wait`, `exit`, ids, groups and credentials.
//!
//! The whole tree is under one scheduler. A child of `fork` is a thread of the schedule like any
//! other; it ends logically in its last hook, and whoever takes the turn next waits until the
//! kernel agrees, so that its descriptors are closed (end of file on its pipes) and it can be
//! reaped.

pub(crate) mod capability;
pub(crate) mod credentials;
pub(crate) mod daemon;
pub(crate) mod exec;
pub(crate) mod execl;
pub(crate) mod exit;
pub(crate) mod fork;
pub(crate) mod pgrp;
pub(crate) mod pid;
pub(crate) mod pidfd;
pub(crate) mod pipe_children;
pub(crate) mod popen;
pub(crate) mod spawn;
pub(crate) mod system;
pub(crate) mod wait;
