//! Frames of a link, with hello, upgrade and join requests, as they come from another node.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| brolga_consensus::fuzzing::frames(data));
