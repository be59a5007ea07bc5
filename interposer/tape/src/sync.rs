//! The atomics of the shared mapping. The model checks put loom's in their place.

pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
