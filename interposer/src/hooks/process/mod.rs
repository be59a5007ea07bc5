//! Processes: `fork`, `exec`, `wait`, `exit`, ids, groups and credentials.

pub(crate) mod credentials;
pub(crate) mod exec;
pub(crate) mod fork;
pub(crate) mod pgrp;
pub(crate) mod spawn;
pub(crate) mod tid;
pub(crate) mod wait;
