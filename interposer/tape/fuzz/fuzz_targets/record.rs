//! No bytes break the decoder of records, and what it accepts is encoded to the same record.
#![no_main]

use brolga_tape::record::{decode, encode_by, thread_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok((record, used)) = decode(rest) {
        assert!(used > 0 && used <= rest.len());
        let mut again = Vec::new();
        encode_by(thread_of(rest), &record, |piece| {
            again.extend_from_slice(piece)
        });
        assert!(again.len() <= record.room());
        assert_eq!(decode(&again), Ok((record, again.len())));
        rest = &rest[used..];
    }
});
