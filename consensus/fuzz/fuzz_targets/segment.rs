//! A segment of the log, as it is and with its checksums made right.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| brolga_consensus::fuzzing::segment(data));
