//! Checkpoints there and back again as a stream, whole and damaged.

use super::*;
use crate::store::testing::take;

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
