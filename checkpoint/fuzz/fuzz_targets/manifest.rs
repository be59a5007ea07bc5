//! The manifest of a checkpoint: as it is, and with a first line that fits, so that the JSON is
//! reached.
#![no_main]

use brolga_checkpoint::Manifest;
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_128;

fn check(bytes: &[u8]) {
    let path = Path::new("manifest");
    let Ok(manifest) = Manifest::decode(bytes, path) else {
        return;
    };
    let _ = manifest.bytes();
    let encoded = manifest.encode().expect("what was decoded can be encoded");
    assert_eq!(Manifest::decode(&encoded, path).expect("it is whole"), manifest);
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut whole = format!("brolga-checkpoint 1 {:032x}\n", xxh3_128(bytes)).into_bytes();
    whole.extend_from_slice(bytes);
    check(&whole);
});
