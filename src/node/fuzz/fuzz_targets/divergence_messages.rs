//! Messages with which nodes compare their servers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| brolga_node::fuzzing::divergence_messages(bytes));
