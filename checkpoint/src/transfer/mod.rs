//! Checkpoints on their way between directories and machines.
//!
//! * [`archive`]: one as a single compressed stream;
//! * [`partial`]: one that arrives piece by piece and survives its writer.

pub mod archive;
pub mod partial;
