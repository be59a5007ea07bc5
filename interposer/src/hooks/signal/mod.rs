//! Signals: actions, masks, sending, waiting; faults of the program itself.
//!
//! All of it is logical state, see [`crate::turn::signals`]. The kernel keeps only the actions of
//! those signals that the program's own instructions raise ([`set::KERNEL`]), which come at the
//! same instruction everywhere, and a copy of the mask, because `sigsetjmp` asks it. A real signal
//! from outside the tree meets the default action and so ends the replica, which is then started
//! anew: operators' signals go through the log (`brolga signal`).

pub(crate) mod action;
pub(crate) mod crash;
pub(crate) mod jump;
pub(crate) mod kernel;
pub(crate) mod mask;
pub(crate) mod send;
pub(crate) mod set;
pub(crate) mod sigwait;
