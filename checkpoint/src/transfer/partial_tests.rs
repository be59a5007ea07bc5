//! Checkpoints that come in pieces, with writers that die in between.

use super::*;
use crate::store::testing::take;

/// Copies the first `most` bytes of each file.
fn copy(from: &Checkpoint, to: &Partial, most: usize) {
    for part in &from.manifest.parts {
        if let PartKind::File { .. } = part.kind {
            let bytes = fs::read(from.path.join(&part.path)).unwrap();
            let upto = most.min(bytes.len());
            fs::write(to.path().join(&part.path), &bytes[..upto]).unwrap();
        }
    }
}

#[test]
fn what_is_there_outlives_its_writer_and_becomes_a_checkpoint_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let from = Directory::open(dir.path().join("from")).unwrap();
    let to = Directory::open(dir.path().join("to")).unwrap();
    let taken = take(&from, 7);
    let partial = to.partial(taken.manifest.clone()).unwrap();
    let in_use = to.partial(taken.manifest.clone()).unwrap_err().to_string();
    assert!(in_use.contains("another process"), "{in_use}");
    to.drop_partials().unwrap();
    copy(&taken, &partial, 1000);
    drop(partial);
    let to = Directory::open(to.path()).unwrap();
    assert!(to.list().unwrap().whole.is_empty());
    let partials = to.partials().unwrap();
    assert_eq!(partials, std::slice::from_ref(&taken.manifest));
    let partial = to.partial(taken.manifest.clone()).unwrap();
    let half = fs::metadata(partial.path().join("images/pages")).unwrap();
    assert_eq!(half.len(), 1000);
    copy(&taken, &partial, usize::MAX);
    let whole = partial.commit(false, &mut |_| ()).unwrap();
    whole.verify(&mut |_| ()).unwrap();
    assert_eq!(to.list().unwrap().whole[0].manifest, taken.manifest);
}

#[test]
fn one_that_is_not_whole_or_wrong_is_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let from = Directory::open(dir.path().join("from")).unwrap();
    let to = Directory::open(dir.path().join("to")).unwrap();
    let taken = take(&from, 7);
    let partial = to.partial(taken.manifest.clone()).unwrap();
    copy(&taken, &partial, usize::MAX);
    fs::write(partial.path().join("node"), [0; 8]).unwrap();
    let error = partial.commit(false, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("node: its checksum is wrong"), "{error}");
    assert!(to.names().unwrap().is_empty());
    let partial = to.partial(taken.manifest.clone()).unwrap();
    copy(&taken, &partial, 1000);
    drop(partial);
    to.drop_partials().unwrap();
    assert!(to.names().unwrap().is_empty());
}

#[test]
fn a_damaged_one_of_the_same_slot_is_replaced_and_a_good_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let from = Directory::open(dir.path().join("from")).unwrap();
    let to = Directory::open(dir.path().join("to")).unwrap();
    let taken = take(&from, 7);
    let own = take(&to, 7);
    fs::write(own.path.join("node"), [0; 8]).unwrap();
    let again = |replaces| {
        let partial = to.partial(taken.manifest.clone()).unwrap();
        copy(&taken, &partial, usize::MAX);
        partial.commit(replaces, &mut |_| ())
    };
    again(true).unwrap().verify(&mut |_| ()).unwrap();
    assert!(matches!(again(false), Err(CheckpointError::Exists(7))));
}
