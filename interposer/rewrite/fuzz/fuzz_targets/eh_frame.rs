//! No bytes break the table of functions, and a function that is found is around its addresses.
#![no_main]

use brolga_rewrite::Frames;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u64, &[u8])| {
    let (address, place, rest) = input;
    // The form that linkers produce, so that the rest is reached.
    let bytes = [&[1, 0x1B, 0x03, 0x3B], rest].concat();
    let Some(frames) = Frames::new(&bytes, address) else {
        return;
    };
    for index in 0..8 {
        let _ = frames.function(index);
    }
    if let Some(function) = frames.around(place) {
        assert!(function.start <= place && place < function.end);
    }
});
