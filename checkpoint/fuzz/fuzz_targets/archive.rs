//! The import of an archive: as a zstd stream, and as a tar archive with a manifest that fits.
//!
//! The second form splits the input at its first zero byte: the JSON of the manifest, and what
//! follows it in the archive.
#![no_main]

use brolga_checkpoint::{Directory, archive};
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_128;

/// Imports a stream into an empty directory; nothing may be written beside it.
fn import(stream: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory");
    let directory = Directory::open(dir.path().join("a/b/checkpoints")).expect("a directory");
    let imported = archive::import(&directory, stream, Path::new("stream"), &mut |_| ());
    match imported {
        Ok(checkpoint) => checkpoint.verify(&mut |_| ()).expect("it was verified"),
        Err(_) => {
            let left = fs::read_dir(directory.path()).expect("it is there");
            assert_eq!(left.count(), 0, "something is left of it");
        }
    }
    for above in ["", "a", "a/b"] {
        let names = fs::read_dir(dir.path().join(above)).expect("it is there");
        assert_eq!(names.count(), 1, "something was written outside");
    }
}

/// An archive that begins with a whole manifest of this JSON.
fn wrapped(json: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut manifest = format!("brolga-checkpoint 1 {:032x}\n", xxh3_128(json)).into_bytes();
    manifest.extend_from_slice(json);
    let mut header = tar::Header::new_gnu();
    header.set_size(manifest.len() as u64);
    header.set_mode(0o600);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, "manifest", &manifest[..])
        .expect("memory is written to");
    let mut tar = tar.into_inner().expect("memory is written to");
    // Without the two blocks of zeros at its end.
    tar.truncate(tar.len() - 1024);
    tar.extend_from_slice(rest);
    tar
}

fuzz_target!(|bytes: &[u8]| {
    // Four bytes of a frame may stand for 128 KiB.
    if bytes.len() <= 4096 {
        import(bytes);
    }
    let (json, rest) = match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    let tar = wrapped(json, rest);
    import(&zstd::encode_all(&tar[..], 1).expect("memory is read"));
});
