//! What nodes send each other beside consensus.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| brolga_node::fuzzing::peer_frames(bytes));
