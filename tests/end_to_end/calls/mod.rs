//! System calls and what programs see of the machine: natively and wrapped the same answers, and the
//! same on every replica.

mod datagrams;
mod environment;
mod files;
mod inline;
mod ipc;
mod processes;
mod signals;
mod sockets;
mod tsc;
