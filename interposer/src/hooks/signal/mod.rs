//! Signals: actions, masks, sending, waiting; faults of the program itself.

pub(crate) mod action;
pub(crate) mod crash;
