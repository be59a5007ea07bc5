//! Seeded simulator of the core.
