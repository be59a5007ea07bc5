//! Checkpoints on their way between directories and machines.
//!
//! * [`archive`]: a checkpoint as a single compressed stream;
//! * [`partial`]: a checkpoint that is received piece by piece, and continued after a crash.

pub mod archive;
pub(crate) mod partial;
