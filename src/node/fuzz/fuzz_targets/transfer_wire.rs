//! What is sent while a checkpoint is fetched.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| brolga_node::fuzzing::transfer_wire(bytes));
