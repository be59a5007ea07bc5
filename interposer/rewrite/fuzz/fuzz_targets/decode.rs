//! The decoder says what `iced-x86` says, or nothing.
#![no_main]

use brolga_rewrite::decode;
use iced_x86::{Code, Decoder, DecoderOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(ours) = decode(bytes) else { return };
    assert!(ours.len > 0 && ours.len <= bytes.len());
    let read = Decoder::with_ip(64, bytes, 0, DecoderOptions::NO_INVALID_CHECK).decode();
    if read.code() != Code::INVALID {
        assert_eq!(ours.len, read.len(), "{read:?}");
        if let Some(target) = ours.branch_target {
            let end = read.len() as u64;
            assert_eq!(
                end.wrapping_add_signed(target.into()),
                read.near_branch_target()
            );
        }
    }
});
