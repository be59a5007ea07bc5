//! What stand-alone frontends and nodes send each other.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| brolga_node::fuzzing::proxy_wire(bytes));
