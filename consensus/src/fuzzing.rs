//! The decoders as functions of arbitrary bytes, for the targets in `fuzz/`. A function panics if a
//! decoder does, or if what was decoded does not survive another round.
//!
//! Only with the feature `fuzzing`.

use crate::{journal, transport};

/// Takes frames off the input, and decodes the greetings and messages in them.
pub fn frames(data: &[u8]) {
    transport::fuzzing::frames(data);
}

/// Decodes the input as the body of a consensus message.
pub fn message(data: &[u8]) {
    transport::fuzzing::message(data);
}

/// Scans the input as a segment of the log: once as it is, once with its checksums made right.
pub fn segment(data: &[u8]) {
    journal::fuzzing::segment(data);
}

/// Decodes the input as the file that says where a truncated log begins.
pub fn base(data: &[u8]) {
    journal::fuzzing::base(data);
}

/// The first inputs of each target.
pub fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    vec![
        ("frames", transport::fuzzing::frame_seeds()),
        ("message", transport::fuzzing::message_seeds()),
        ("segment", journal::fuzzing::segment_seeds()),
        ("base", journal::fuzzing::base_seeds()),
    ]
}
