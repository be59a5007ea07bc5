//! Checkpoints, containers and restores, also when something goes wrong in the middle.

pub mod contained;
pub mod faults;
pub mod restore;
pub mod root;
