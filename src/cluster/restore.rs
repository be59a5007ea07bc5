//! The choice of a checkpoint to restore: the newest that is complete, of the same server, and continued
//! by the log. What is skipped is said with its reason.
//!
//! Nothing is changed. The chosen checkpoint is held, so that a running node does not remove it.

use brolga_checkpoint::{Checkpoint, CheckpointError, Directory, Hold, ServerFingerprint};
use std::fmt;

/// The requirements on a checkpoint to be restored.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The cluster.
    pub cluster: u128,
    /// The server.
    pub identity: ServerFingerprint,
    /// The last slot that it may contain.
    pub upto: u64,
    /// The first slot of the log that is replayed after it; `None`: there is no log.
    pub log_begins: Option<u64>,
}

/// A checkpoint that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The slot, if it is known.
    pub slot: Option<u64>,
    /// Why.
    pub why: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.slot {
            Some(slot) => write!(f, "the checkpoint of slot {slot} is skipped: {}", self.why),
            None => write!(f, "a checkpoint is skipped: {}", self.why),
        }
    }
}

/// The result of a choice.
#[derive(Debug, Default)]
pub struct Choice {
    /// The checkpoint, verified, and the hold that keeps it from being removed.
    pub checkpoint: Option<(Checkpoint, Hold)>,
    /// Newer checkpoints that cannot be used, and those that are obviously damaged.
    pub skipped: Vec<Skipped>,
    /// The slot of the oldest checkpoint.
    pub oldest: Option<u64>,
}

/// Chooses among the checkpoints in `directories`. `seen` is told of which one how many more bytes were
/// read.
///
/// # Errors
/// A directory cannot be read.
pub fn choose(
    directories: &[Directory],
    wanted: &Wanted,
    seen: &mut dyn FnMut(&Checkpoint, u64),
) -> Result<Choice, CheckpointError> {
    let mut choice = Choice::default();
    let mut all = Vec::new();
    for directory in directories {
        let listing = directory.list()?;
        all.extend(listing.whole);
        let damaged = listing.damaged.into_iter().map(|(_, error)| Skipped {
            slot: None,
            why: error.to_string(),
        });
        choice.skipped.extend(damaged);
    }
    all.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.slot()));
    choice.oldest = all.last().map(Checkpoint::slot);
    for checkpoint in all.into_iter().filter(|it| it.slot() <= wanted.upto) {
        // One that is being removed by the node is nobody's loss.
        let Some(hold) = checkpoint.hold()? else {
            continue;
        };
        match objection(&checkpoint, wanted, seen) {
            None => {
                choice.checkpoint = Some((checkpoint, hold));
                break;
            }
            Some(why) => choice.skipped.push(Skipped {
                slot: Some(checkpoint.slot()),
                why,
            }),
        }
    }
    Ok(choice)
}

fn objection(
    checkpoint: &Checkpoint,
    wanted: &Wanted,
    seen: &mut dyn FnMut(&Checkpoint, u64),
) -> Option<String> {
    let manifest = &checkpoint.manifest;
    if manifest.cluster != wanted.cluster {
        return Some("it is of another cluster".into());
    }
    if let Some(objection) = wanted.identity.objection(&manifest.fingerprint) {
        return Some(objection);
    }
    let slot = checkpoint.slot();
    let lacks = |begins: &u64| slot < wanted.upto && slot + 1 < *begins;
    if let Some(begins) = wanted.log_begins.filter(lacks) {
        return Some(format!("the log goes back only to slot {begins}"));
    }
    let verdict = checkpoint.verify(&mut |more| seen(checkpoint, more));
    verdict.err().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_checkpoint::{Position, Provenance};
    use std::fs;

    fn take(directory: &Directory, slot: u64, interposer: &str) {
        let staged = directory.stage(slot).unwrap();
        fs::write(staged.path().join("node"), "bytes").unwrap();
        let about = Provenance {
            cluster: 7,
            node: 1,
            position: Position {
                slot,
                output_hash: 1,
                schedule_hash: 2,
            },
            fingerprint: ServerFingerprint {
                interposer: interposer.into(),
                ..ServerFingerprint::default()
            },
        };
        staged.commit(about, &mut |_| ()).unwrap();
    }

    fn wanted(upto: u64, log_begins: Option<u64>) -> Wanted {
        Wanted {
            cluster: 7,
            identity: ServerFingerprint {
                interposer: "ours".into(),
                ..ServerFingerprint::default()
            },
            upto,
            log_begins,
        }
    }

    #[test]
    fn the_newest_that_is_whole_and_fits_is_chosen_and_the_others_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        for (slot, interposer) in [(10, "ours"), (20, "ours"), (30, "ours"), (40, "other")] {
            take(&directory, slot, interposer);
        }
        let path = dir.path().join("00000000000000000030/node");
        fs::write(&path, "BYTES").unwrap();
        let found = |upto, begins| {
            let directories = [directory.clone()];
            let mut read = 0;
            let wanted = wanted(upto, begins);
            let choice = choose(&directories, &wanted, &mut |_, more| read += more).unwrap();
            let slots: Vec<_> = choice.skipped.iter().map(|it| it.slot).collect();
            let chosen = choice.checkpoint.map(|(checkpoint, _)| checkpoint.slot());
            (chosen, slots, choice.oldest)
        };
        let passed = vec![Some(40), Some(30)];
        assert_eq!(found(u64::MAX, Some(1)), (Some(20), passed, Some(10)));
        assert_eq!(found(25, Some(21)), (Some(20), vec![], Some(10)));
        assert_eq!(
            found(25, Some(22)),
            (None, vec![Some(20), Some(10)], Some(10))
        );
        assert_eq!(found(20, Some(29)), (Some(20), vec![], Some(10)));
        assert_eq!(found(10, None), (Some(10), vec![], Some(10)));
        assert_eq!(found(9, Some(1)), (None, vec![], Some(10)));
        fs::remove_file(&path).unwrap();
        let all = choose(&[directory], &wanted(u64::MAX, None), &mut |_, _| ()).unwrap();
        let said = all.skipped[0].to_string();
        assert!(said.contains("it is missing"), "{said}");
    }
}
