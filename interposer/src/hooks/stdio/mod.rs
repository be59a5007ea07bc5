//! Streams of stdio.

pub(crate) mod stream;
