//! Compressed files of an image, decompressed with their holes.
#![no_main]

use brolga_checkpoint::image::decompress_all;
use libfuzzer_sys::fuzz_target;
use std::fs;

fuzz_target!(|bytes: &[u8]| {
    // Four bytes of a frame may stand for 128 KiB.
    if bytes.len() > 1024 {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (image, plain) = (dir.path().join("image"), dir.path().join("plain"));
    fs::create_dir(&image).expect("a directory");
    fs::write(image.join("pages.zst"), bytes).expect("a file");
    fs::write(image.join("small"), bytes).expect("a file");
    if let Ok(any) = decompress_all(&image, &plain) {
        assert!(any, "one was compressed");
        assert_eq!(fs::read(plain.join("small")).expect("it is there"), bytes);
        let content = fs::read(plain.join("pages")).expect("it is there");
        let told = zstd::decode_all(bytes).expect("it was read before");
        assert_eq!(content, told);
    }
});
