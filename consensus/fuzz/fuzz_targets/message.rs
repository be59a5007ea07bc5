//! The body of a consensus message, without a frame and its checksum around it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| brolga_consensus::fuzzing::message(data));
