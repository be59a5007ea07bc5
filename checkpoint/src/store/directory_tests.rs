//! Checkpoints on real disks: damage, interruption, lack of space, two writers.

use super::*;
use crate::store::manifest::{self, PartKind};
use crate::store::testing::{dump, provenance, take};
use std::os::unix::fs::symlink;

fn slots(directory: &Directory) -> Vec<u64> {
    let listing = directory.list().unwrap();
    listing.whole.iter().map(Checkpoint::slot).collect()
}

fn names(directory: &Directory) -> usize {
    fs::read_dir(directory.path()).unwrap().count()
}

#[test]
fn checkpoints_are_listed_newest_first_and_pruned_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path().join("checkpoints")).unwrap();
    for slot in [9, 100, 30] {
        let taken = take(&directory, slot);
        taken.verify(&mut |_| ()).unwrap();
        assert_eq!(taken.manifest.bytes(), 300_008);
    }
    assert_eq!(slots(&directory), [100, 30, 9]);
    assert!(matches!(
        directory.stage(30),
        Err(CheckpointError::Exists(30))
    ));
    assert_eq!(directory.prune(2).unwrap().len(), 1);
    assert_eq!(slots(&directory), [100, 30]);
    assert_eq!(names(&directory), 2);
}

#[test]
fn one_that_is_held_stays_until_it_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let old = take(&directory, 1);
    take(&directory, 2);
    let (first, second) = (old.hold().unwrap(), old.hold().unwrap());
    assert!(first.is_some() && second.is_some());
    assert_eq!(directory.prune(1).unwrap().len(), 0);
    drop(first);
    assert_eq!(directory.prune(1).unwrap().len(), 0);
    old.verify(&mut |_| ()).unwrap();
    drop(second);
    assert_eq!(directory.prune(1).unwrap(), std::slice::from_ref(&old.path));
    assert!(old.hold().unwrap().is_none());
    assert_eq!(slots(&directory), [2]);
}

#[test]
fn a_directory_that_is_only_read_is_not_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("new-00000000000000000007-1-1");
    fs::create_dir(&left).unwrap();
    let directory = Directory::existing(dir.path()).unwrap();
    assert_eq!(slots(&directory), [0; 0]);
    assert!(left.exists());
    assert!(Directory::existing(dir.path().join("none")).is_none());
    assert!(!dir.path().join("none").exists());
}

#[test]
fn every_part_that_is_changed_cut_or_gone_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let good = take(&directory, 1);
    let complaint = |spoil: &dyn Fn(&Path)| {
        let copy = take(&directory, 2);
        spoil(&copy.path);
        let error = copy.verify(&mut |_| ()).unwrap_err().to_string();
        directory.remove(&copy.path).unwrap();
        error
    };
    let flipped = complaint(&|path| {
        let mut bytes = fs::read(path.join("images/pages")).unwrap();
        bytes[299_999] ^= 1;
        fs::write(path.join("images/pages"), bytes).unwrap();
    });
    assert!(
        flipped.ends_with("images/pages: its checksum is wrong"),
        "{flipped}"
    );
    let cut = complaint(&|path| {
        let file = File::options().write(true).open(path.join("node"));
        file.unwrap().set_len(7).unwrap();
    });
    assert!(cut.ends_with("node: it has 7 bytes instead of 8"), "{cut}");
    let gone = complaint(&|path| fs::remove_file(path.join("images/nothing")).unwrap());
    assert!(gone.ends_with("images/nothing: it is missing"), "{gone}");
    let elsewhere = complaint(&|path| {
        fs::remove_file(path.join("images/link")).unwrap();
        symlink("nothing", path.join("images/link")).unwrap();
    });
    assert!(elsewhere.ends_with("images/link: it points elsewhere"));
    good.verify(&mut |_| ()).unwrap();
}

/// A generator whose seed is printed, or given in `BROLGA_SEED`.
fn random() -> fastrand::Rng {
    let given = std::env::var("BROLGA_SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("BROLGA_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Flips a bit, truncates the file, appends to it, or removes it. Returns what was done.
fn spoil(path: &Path, random: &mut fastrand::Rng) -> String {
    let mut bytes = fs::read(path).unwrap();
    let at = random.usize(..bytes.len().max(1));
    match random.u8(..if bytes.is_empty() { 2 } else { 4 }) {
        0 => {
            fs::remove_file(path).unwrap();
            return "removed".into();
        }
        1 => bytes.push(random.u8(..)),
        2 => bytes.truncate(at),
        _ => bytes[at] ^= 1 << random.u8(..8),
    }
    fs::write(path, &bytes).unwrap();
    format!("spoilt at {at}, {} bytes now", bytes.len())
}

#[test]
fn damage_anywhere_is_noticed_and_named_and_the_next_older_one_is_whole() {
    let mut random = random();
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    take(&directory, 1);
    for _round in 0..100 {
        let newest = take(&directory, 2);
        let files = newest.manifest.parts.iter();
        let files = files.filter(|part| matches!(part.kind, PartKind::File { .. }));
        let mut files: Vec<PathBuf> = files.map(|part| part.path.clone()).collect();
        files.push(manifest::FILE_NAME.into());
        let victim = newest.path.join(&files[random.usize(..files.len())]);
        let how = spoil(&victim, &mut random);
        let listing = directory.list().unwrap();
        let listed = listing.whole.into_iter().find(|it| it.slot() == 2);
        let error = match listed {
            Some(checkpoint) => checkpoint.verify(&mut |_| ()).unwrap_err(),
            None => listing.damaged.into_iter().next().unwrap().1,
        };
        let named = error.to_string();
        assert!(named.contains(victim.to_str().unwrap()), "{how}: {named}");
        let older = &directory.list().unwrap().whole;
        let older = older.last().unwrap();
        assert_eq!(older.slot(), 1);
        older.verify(&mut |_| ()).unwrap();
        directory.remove(&newest.path).unwrap();
    }
}

#[test]
fn what_is_obviously_damaged_is_not_listed_as_whole() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    for slot in 1..=4 {
        take(&directory, slot);
    }
    fs::remove_file(directory.path_of(4).join(manifest::FILE_NAME)).unwrap();
    fs::write(directory.path_of(3).join("node"), b"short").unwrap();
    fs::rename(directory.path_of(2), directory.path_of(5)).unwrap();
    let listing = directory.list().unwrap();
    assert_eq!(slots(&directory), [1]);
    let complaints: Vec<String> = listing.damaged.iter().map(|it| it.1.to_string()).collect();
    assert!(complaints[0].contains("it is of slot 2"), "{complaints:?}");
    assert!(complaints[1].ends_with("manifest: it is missing"));
    assert!(complaints[2].ends_with("node: it has 5 bytes instead of 8"));
    // They are kept as long as they may be all there is.
    assert_eq!(directory.prune(2).unwrap().len(), 0);
    assert_eq!(directory.prune(1).unwrap().len(), 3);
    assert_eq!(slots(&directory), [1]);
}

#[test]
fn what_a_dead_writer_left_goes_and_what_a_living_one_holds_stays() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    take(&directory, 1);
    // A writer that dies runs no destructor, and its lock goes with it.
    let dead = dir.path().join(format!("{STAGED}00000000000000000002-1-1"));
    dump(&dead, 2);
    fs::create_dir(dir.path().join(format!("{REMOVED}1-1"))).unwrap();
    let living = directory.stage(3).unwrap();
    dump(living.path(), 3);
    let again = Directory::open(dir.path()).unwrap();
    assert_eq!((slots(&again), names(&again)), (vec![1], 2));
    living.commit(provenance(3), &mut |_| ()).unwrap();
    assert_eq!(slots(&again), [3, 1]);
    // One that gives up leaves nothing.
    let given_up = again.stage(4).unwrap();
    dump(given_up.path(), 4);
    drop(given_up);
    assert_eq!(names(&again), 2);
}

#[test]
fn of_two_writers_one_has_the_slot_and_nothing_else_is_left() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let write = || {
            let directory = Directory::open(dir.path()).unwrap();
            let staged = match directory.stage(5) {
                Err(CheckpointError::Exists(5)) => return false,
                other => other.unwrap(),
            };
            dump(staged.path(), 5);
            match staged.commit(provenance(5), &mut |_| ()) {
                Ok(_) => true,
                Err(CheckpointError::Exists(5)) => false,
                Err(error) => panic!("{error}"),
            }
        };
        let won = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3).map(|_| scope.spawn(write)).collect();
            let won = writers.into_iter().map(|one| one.join().unwrap());
            won.filter(|won| *won).count()
        });
        assert_eq!(won, 1);
        let directory = Directory::open(dir.path()).unwrap();
        assert_eq!((slots(&directory), names(&directory)), (vec![5], 1));
        directory.list().unwrap().whole[0]
            .verify(&mut |_| ())
            .unwrap();
    }
}

#[test]
fn a_part_of_another_kind_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let staged = directory.stage(1).unwrap();
    dump(staged.path(), 1);
    let _socket = std::os::unix::net::UnixListener::bind(staged.path().join("socket")).unwrap();
    let error = staged.commit(provenance(1), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("socket: it is neither"));
    assert_eq!(names(&directory), 0);
}

/// A file system with room for little, if the machine lets us mount one.
fn small_disk(path: &Path) -> bool {
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(path)
        .output();
    mount.is_ok_and(|output| output.status.success())
}

#[test]
fn a_full_disk_leaves_the_last_one_intact() {
    let dir = tempfile::tempdir().unwrap();
    if !small_disk(dir.path()) {
        println!("SKIPPED: no small file system can be mounted here (needs privilege)");
        return;
    }
    let directory = Directory::open(dir.path().join("here")).unwrap();
    take(&directory, 1);
    take(&directory, 2);
    let staged = directory.stage(3).unwrap();
    let filled = (0..).find_map(|number| {
        let path = staged.path().join(number.to_string());
        fs::write(path, vec![1; 100_000]).err()
    });
    assert_eq!(filled.unwrap().kind(), io::ErrorKind::StorageFull);
    // Not even the manifest fits any more.
    let error = staged.commit(provenance(3), &mut |_| ()).unwrap_err();
    assert!(matches!(error, CheckpointError::File { .. }), "{error}");
    assert_eq!((slots(&directory), names(&directory)), (vec![2, 1], 2));
    directory.list().unwrap().whole[0]
        .verify(&mut |_| ())
        .unwrap();
    let unmounted = std::process::Command::new("umount")
        .arg(dir.path())
        .status();
    assert!(unmounted.unwrap().success());
}

#[test]
fn damage_of_a_file_that_two_share_is_not_vouched_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let first = take(&directory, 1).path.join("images/pages");
    let stage = |slot| {
        let staged = directory.stage(slot).unwrap();
        fs::hard_link(&first, staged.path().join("pages")).unwrap();
        staged
    };
    let second = stage(2).commit(provenance(2), &mut |_| ()).unwrap();
    second.verify(&mut |_| ()).unwrap();
    let mut bytes = fs::read(&first).unwrap();
    bytes[1000] ^= 1;
    fs::write(&first, bytes).unwrap();
    let error = stage(3).commit(provenance(3), &mut |_| ()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("pages") && error.contains("damaged since"),
        "{error}"
    );
    assert_eq!(slots(&directory), [2, 1]);
}
