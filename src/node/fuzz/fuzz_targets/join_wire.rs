//! What a joiner and a member send each other.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| brolga_node::fuzzing::join_wire(bytes));
