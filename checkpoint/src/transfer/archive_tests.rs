//! Checkpoints there and back again as a stream, whole and damaged.

use super::*;
use crate::store::fingerprint::ServerFingerprint;
use crate::store::manifest::{Part, Position};
use crate::store::testing::take;
use xxhash_rust::xxh3::xxh3_128;

const NAME: &str = "the stream";

fn exported(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut read = 0;
    export(checkpoint, &mut bytes, LEVEL_DEFAULT, &mut |more| {
        read += more;
    })
    .unwrap();
    assert!(read >= checkpoint.manifest.bytes());
    bytes
}

fn imported(directory: &Directory, bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    import(directory, bytes, Path::new(NAME), &mut |_| ())
}

#[test]
fn a_checkpoint_survives_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let here = Directory::open(dir.path().join("here")).unwrap();
    let there = Directory::open(dir.path().join("there")).unwrap();
    let taken = take(&here, 12);
    let bytes = exported(&taken);
    assert!(bytes.len() < 10_000, "it is compressed: {}", bytes.len());
    let arrived = imported(&there, &bytes).unwrap();
    assert_eq!(arrived.manifest, taken.manifest);
    arrived.verify(&mut |_| ()).unwrap();
    assert!(matches!(
        imported(&there, &bytes),
        Err(CheckpointError::Exists(12))
    ));
}

#[test]
fn no_cut_and_no_flipped_byte_gets_through() {
    let dir = tempfile::tempdir().unwrap();
    let here = Directory::open(dir.path().join("here")).unwrap();
    let there = Directory::open(dir.path().join("there")).unwrap();
    let bytes = exported(&take(&here, 12));
    let nothing = |what: &str| {
        let left = fs::read_dir(there.path()).unwrap().count();
        assert_eq!(left, 0, "{what}");
    };
    for at in (0..bytes.len()).step_by(7) {
        let cut = imported(&there, &bytes[..at]).unwrap_err();
        assert!(matches!(cut, CheckpointError::Corrupt { .. }), "{cut}");
        nothing("cut");
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        match imported(&there, &flipped) {
            Err(CheckpointError::Corrupt { .. }) => nothing("flipped"),
            Err(error) => panic!("flipped at {at}: {error}"),
            // Some bits of a frame's header mean nothing: then what arrived is right.
            Ok(arrived) => {
                arrived.verify(&mut |_| ()).unwrap();
                there.remove(&arrived.path).unwrap();
            }
        }
    }
}

fn part(path: &str, bytes: u64, kind: PartKind) -> Part {
    Part {
        path: path.into(),
        bytes,
        kind,
    }
}

fn file(content: &[u8]) -> PartKind {
    PartKind::File {
        hash: xxh3_128(content),
    }
}

fn manifest_of(parts: Vec<Part>) -> Vec<u8> {
    let manifest = Manifest {
        cluster: 1,
        node: 1,
        position: Position {
            slot: 5,
            output_hash: 0,
            schedule_hash: 0,
        },
        fingerprint: ServerFingerprint::default(),
        taken_at: 0,
        parts,
    };
    manifest.encode().unwrap()
}

/// A stream with the given manifest and whatever `fill` appends.
fn forged(
    manifest: &[u8],
    fill: impl FnOnce(&mut tar::Builder<zstd::Encoder<'_, Vec<u8>>>),
) -> Vec<u8> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    let mut first = header(tar::EntryType::Regular, manifest.len() as u64);
    tar.append_data(&mut first, "manifest", manifest).unwrap();
    fill(&mut tar);
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn nothing_is_written_through_a_link_in_the_place_of_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let there = Directory::open(dir.path().join("there")).unwrap();
    let parts = vec![
        part("image", 0, PartKind::Directory),
        part("image/file", 1, file(b"x")),
    ];
    let stream = forged(&manifest_of(parts), |tar| {
        let mut link = header(tar::EntryType::Symlink, 0);
        tar.append_link(&mut link, "image", &outside).unwrap();
        let mut inner = header(tar::EntryType::Regular, 1);
        tar.append_data(&mut inner, "image/file", &b"x"[..])
            .unwrap();
    });
    let error = imported(&there, &stream).unwrap_err();
    assert!(matches!(error, CheckpointError::Corrupt { .. }), "{error}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read_dir(there.path()).unwrap().count(), 0);
}

#[test]
fn the_manifest_is_not_written_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::write(&outside, "precious").unwrap();
    let there = Directory::open(dir.path().join("there")).unwrap();
    let target = outside.clone();
    let parts = vec![part("manifest", 0, PartKind::Link { target })];
    let stream = forged(&manifest_of(parts), |tar| {
        let mut link = header(tar::EntryType::Symlink, 0);
        tar.append_link(&mut link, "manifest", &outside).unwrap();
    });
    let error = imported(&there, &stream).unwrap_err();
    assert!(matches!(error, CheckpointError::Corrupt { .. }), "{error}");
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
}

#[test]
fn a_file_is_not_unpacked_beyond_its_length_in_the_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let there = Directory::open(dir.path()).unwrap();
    let stream = forged(&manifest_of(vec![part("file", 1, file(b"x"))]), |tar| {
        let mut large = header(tar::EntryType::Regular, 64 << 20);
        tar.append_data(&mut large, "file", io::repeat(b'x').take(64 << 20))
            .unwrap();
    });
    let mut arrived = 0;
    let error = import(&there, &stream[..], Path::new(NAME), &mut |more| {
        arrived += more;
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("longer than its manifest says"), "{error}");
    assert!(arrived < 1 << 20, "{arrived} bytes");
}

#[test]
fn a_manifest_that_is_too_large_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let there = Directory::open(dir.path()).unwrap();
    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    let mut first = header(tar::EntryType::Regular, 1 << 40);
    first.set_path("manifest").unwrap();
    first.set_cksum();
    tar.append(&first, io::empty()).unwrap();
    let stream = tar.into_inner().unwrap().finish().unwrap();
    let error = imported(&there, &stream).unwrap_err().to_string();
    assert!(error.contains("too large"), "{error}");
}

#[test]
fn a_name_that_is_longer_than_all_parts_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let there = Directory::open(dir.path()).unwrap();
    let stream = forged(&manifest_of(vec![part("file", 1, file(b"x"))]), |tar| {
        let mut name = header(tar::EntryType::GNULongName, 4 << 20);
        name.set_cksum();
        tar.append(&name, io::repeat(b'n').take(4 << 20)).unwrap();
        let mut inner = header(tar::EntryType::Regular, 1);
        tar.append_data(&mut inner, "file", &b"x"[..]).unwrap();
    });
    let error = imported(&there, &stream).unwrap_err().to_string();
    assert!(error.contains("longer than its parts"), "{error}");
}
