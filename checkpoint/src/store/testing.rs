//! Small checkpoints for tests.

use crate::store::directory::{Checkpoint, Directory};
use crate::store::fingerprint::ServerFingerprint;
use crate::store::manifest::Position;
use crate::store::staged::Provenance;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Where a checkpoint of `slot` comes from.
pub(crate) fn provenance(slot: u64) -> Provenance {
    Provenance {
        cluster: 7,
        node: 1,
        position: Position {
            slot,
            output_hash: slot * 3,
            schedule_hash: slot * 5,
        },
        fingerprint: ServerFingerprint::default(),
    }
}

/// Writes files as a dump might.
pub(crate) fn dump(path: &Path, slot: u64) {
    fs::create_dir_all(path.join("images/empty")).unwrap();
    fs::write(path.join("images/pages"), vec![slot as u8; 300_000]).unwrap();
    fs::write(path.join("images/nothing"), b"").unwrap();
    fs::write(path.join("node"), slot.to_le_bytes()).unwrap();
    symlink("pages", path.join("images/link")).unwrap();
}

/// Publishes a checkpoint of `slot`.
pub(crate) fn take(directory: &Directory, slot: u64) -> Checkpoint {
    let staged = directory.stage(slot).unwrap();
    dump(staged.path(), slot);
    staged.commit(provenance(slot), &mut |_| ()).unwrap()
}
