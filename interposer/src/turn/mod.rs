//! Turns: how scheduling decisions put threads to sleep and wake them, and how entries are
//! admitted.
//!
//! Rules of this folder: it runs on the server's own threads, inside its calls; raw system calls
//! only, no allocation, no panic but on a broken contract.
//!
//! [`Turn`] is the proof that its thread has the turn, and the only way to the shared memory. In
//! policy `serial` a running thread of the schedule *has* it, so a hook only proves that its thread
//! is in the schedule; in policy `parallel` the first proof of a hook takes it and gives it back at
//! its end, see [`round`]. Within a hook a thread gives up the turn only where it blocks
//! ([`switch`]), and has it again when that returns.
//!
//! There is no helper thread: the last thread to block admits the next entry ([`admission`]).

mod admission;
mod alarms;
pub mod cancel;
mod end;
pub mod keys;
mod outside;
mod perturb;
mod proof;
mod reaping;
mod round;
pub mod signals;
mod stall;
mod switch;

pub use crate::local::{is_active, memory, set_process};
pub use crate::output::fault;
pub use end::{announce_exit, await_end_of_tree, end_tree};
pub use keys::{REAL, key_of, space};
pub use proof::Turn;
pub use reaping::wait_for_end;
pub use round::let_go;

use crate::local;
use crate::shared::Shared;
use brolga_tape::ring::{Parameters, Tape};
use core::ffi::c_int;

/// Sets up this process, once. `die_of` ends it of a signal.
///
/// # Safety
/// The process has one thread; `shared` and `tape` are mappings that stay.
pub unsafe fn install(
    shared: *mut Shared,
    tape: Tape,
    parameters: &Parameters,
    die_of: fn(c_int) -> !,
) {
    let patience = round::most_patience(parameters.parallel != 0);
    // SAFETY: the caller promises that the process has one thread; `shared` and `tape` are mappings
    // that stay.
    unsafe { local::install(shared, tape, parameters, patience, die_of) };
    if parameters.perturb_us != 0 {
        perturb::seed_chance();
    }
}
