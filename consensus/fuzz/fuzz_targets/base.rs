//! The file that says where a truncated log begins.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| brolga_consensus::fuzzing::base(data));
