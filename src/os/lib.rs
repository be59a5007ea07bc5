//! The operating system, as the node and the command line need it: the calls that the standard library
//! does not have, timers, whole files, ports.

pub mod files;
pub mod ports;
pub mod sys;
pub mod timer;
