//! A partial checkpoint of any manifest, filled with any content, continued and committed.
//!
//! The input is split at its first zero byte: the JSON of the manifest, and the content of every
//! file.
#![no_main]

use brolga_checkpoint::{Directory, Manifest, PartKind};
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_128;

fuzz_target!(|bytes: &[u8]| {
    let (json, content) = match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    let mut whole = format!("brolga-checkpoint 1 {:032x}\n", xxh3_128(json)).into_bytes();
    whole.extend_from_slice(json);
    let Ok(manifest) = Manifest::decode(&whole, Path::new("manifest")) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let directory = Directory::open(dir.path().join("a/b/checkpoints")).expect("a directory");
    for _ in 0..2 {
        let Ok(partial) = directory.partial(manifest.clone()) else {
            break;
        };
        for part in &manifest.parts {
            if let PartKind::File { .. } = part.kind {
                // Names may be too long.
                let _ = fs::write(partial.path().join(&part.path), content);
            }
        }
        if let Ok(checkpoint) = partial.commit(false, &mut |_| ()) {
            checkpoint.verify(&mut |_| ()).expect("it was verified");
            assert_eq!(checkpoint.manifest, manifest);
        }
    }
    for above in ["", "a", "a/b"] {
        let names = fs::read_dir(dir.path().join(above)).expect("it is there");
        assert_eq!(names.count(), 1, "something was written outside");
    }
});
