//! The atomics of the hand-off of the turn. The model checks put loom's in their place.

pub use core::sync::atomic::{AtomicU32, Ordering};
