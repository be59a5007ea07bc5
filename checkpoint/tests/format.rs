//! The checkpoint format, byte for byte: files that version 1 has written are read, and written
//! again alike. `tests/golden/1/` holds them; they never change. A new format needs a new version
//! and a new folder beside it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use brolga_checkpoint::{CheckpointError, Directory, Manifest, archive, hash_file, manifest};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

const MANIFEST: &[u8] = include_bytes!("golden/1/manifest");
/// The manifest of a server with a given root directory, and no parts.
const MANIFEST_WITH_ROOT: &[u8] = include_bytes!("golden/1/manifest-root");
const ARCHIVE: &[u8] = include_bytes!("golden/1/checkpoint.tar.zst");
/// The magic number of a zstd frame.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

fn imported(bytes: &[u8], to: &Directory) -> Result<PathBuf, CheckpointError> {
    archive::import(to, bytes, Path::new("stream"), &mut |_| ()).map(|checkpoint| checkpoint.path)
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    let mut decoder = zstd::Decoder::new(bytes).unwrap();
    decoder.read_to_end(&mut tar).unwrap();
    tar
}

#[test]
fn a_manifest_is_read_and_written_as_version_1() {
    for golden in [MANIFEST, MANIFEST_WITH_ROOT] {
        let read = Manifest::decode(golden, Path::new("manifest")).unwrap();
        assert_eq!(read.encode().unwrap(), golden);
    }
    let read = Manifest::decode(MANIFEST, Path::new("manifest")).unwrap();
    assert_eq!(
        (read.cluster, read.node, read.taken_at),
        (0x00c0_ffee, 2, 1_700_000_000)
    );
    assert_eq!(
        (read.position.slot, read.position.output_hash),
        (77, u64::MAX)
    );
    assert_eq!(read.fingerprint.files[0].path, Path::new("/usr/bin/server"));
    assert_eq!(read.parts.len(), 4);
    let rooted = Manifest::decode(MANIFEST_WITH_ROOT, Path::new("manifest")).unwrap();
    assert_eq!(rooted.fingerprint.root, "ffeeddccbbaa99887766554433221100");
}

#[test]
fn an_archive_begins_with_a_zstd_frame_and_the_manifest() {
    assert_eq!(ARCHIVE[..4], ZSTD);
    let tar = unpacked(ARCHIVE);
    // The first header of a GNU tar archive: name, mode, length in octal, type, magic number.
    let length = format!("{:011o}\0", MANIFEST.len());
    for (at, field) in [
        (0, &b"manifest\0"[..]),
        (100, b"0000600\0"),
        (124, length.as_bytes()),
        (156, b"0"),
        (257, b"ustar  \0"),
    ] {
        assert_eq!(&tar[at..at + field.len()], field, "header at {at}");
    }
    assert_eq!(&tar[512..512 + MANIFEST.len()], MANIFEST);
}

#[test]
fn an_archive_of_version_1_is_imported_and_exported_alike() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let path = imported(ARCHIVE, &directory).unwrap();
    assert_eq!(fs::read(path.join(manifest::FILE_NAME)).unwrap(), MANIFEST);
    assert_eq!(
        hash_file(&path.join("image/pages"), &mut |_| ()).unwrap().0,
        3000
    );
    assert_eq!(
        fs::read_link(path.join("pages")).unwrap(),
        Path::new("image/pages")
    );
    let checkpoint = &directory.list().unwrap().whole[0];
    let mut exported = Vec::new();
    let level = archive::LEVEL_DEFAULT;
    archive::export(checkpoint, &mut exported, level, &mut |_| ()).unwrap();
    assert_eq!(exported[..4], ZSTD);
    // What zstd makes of it may change with its version.
    assert_eq!(unpacked(&exported), unpacked(ARCHIVE));
}

/// The golden manifest, with another version in its first line.
fn of_version(version: &str) -> Vec<u8> {
    let text = std::str::from_utf8(MANIFEST).unwrap();
    let changed = text.replacen(
        "brolga-checkpoint 1 ",
        &format!("brolga-checkpoint {version} "),
        1,
    );
    changed.into_bytes()
}

#[test]
fn another_version_is_refused_and_the_message_says_what_to_do() {
    for version in ["0", "2", "4294967295"] {
        let path = Path::new("/data/checkpoints/77/manifest");
        let error = Manifest::decode(&of_version(version), path).unwrap_err();
        assert!(matches!(error, CheckpointError::Version { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            format!(
                "/data/checkpoints/77/manifest is in checkpoint format {version}, and this build reads \
                 format 1: use the build of brolga that wrote it, or another checkpoint"
            )
        );
    }
    // That is no version.
    for version in ["x", "-1", "4294967296", ""] {
        let error = Manifest::decode(&of_version(version), Path::new("manifest")).unwrap_err();
        assert!(matches!(error, CheckpointError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_checkpoint_of_another_version_is_listed_apart_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let path = imported(ARCHIVE, &directory).unwrap();
    let newer = of_version("2");
    fs::write(path.join(manifest::FILE_NAME), &newer).unwrap();
    let listing = Directory::open(dir.path()).unwrap().list().unwrap();
    assert!(listing.whole.is_empty());
    let [(listed, error)] = &listing.damaged[..] else {
        panic!("{listing:?}");
    };
    assert_eq!(listed, &path);
    assert!(
        matches!(error, CheckpointError::Version { found: 2, .. }),
        "{error}"
    );
    assert_eq!(fs::read(path.join(manifest::FILE_NAME)).unwrap(), newer);
}

#[test]
fn an_archive_of_another_version_is_refused() {
    let mut tar = unpacked(ARCHIVE);
    tar[512..512 + MANIFEST.len()].copy_from_slice(&of_version("2"));
    let stream = zstd::encode_all(&tar[..], 3).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let error = imported(&stream, &directory).unwrap_err();
    assert!(
        matches!(error, CheckpointError::Version { found: 2, .. }),
        "{error}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
