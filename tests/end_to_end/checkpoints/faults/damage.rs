//! Disks that rot or are full.

use super::{LogFrom, checkpoint, checkpoint_well, checkpoints, contained_redis, fill, names};
use crate::clients::resp::Client;
use crate::fixture::cluster::{Cluster, say};
use crate::fixture::settings::random;
use crate::fixture::view::View;
use crate::harness::eventually;
use fastrand::Rng;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Damages, one after the other.
const DAMAGES: usize = 3;
const MEGABYTES: usize = 4;

#[test]
fn a_damaged_checkpoint_is_named_and_an_older_one_used() {
    let name = "a_damaged_checkpoint_is_named_and_an_older_one_used";
    let Some(setup) = contained_redis(name) else {
        return;
    };
    let mut rng = random(name);
    let setup = setup.option("--checkpoint-log-mib", "0").never_restarting();
    let mut cluster = Cluster::start(setup);
    let view = cluster.settle();
    let node = view.followers()[0];
    let mut client = Client::connect(cluster.address(view.leader()));
    fill(&cluster, view.leader(), MEGABYTES);
    checkpoint_well(&cluster, "now", node);
    let mut counted = 0;
    for damage in 0..DAMAGES {
        let mut count = || {
            counted += 1;
            client.exchange(&["INCR", "counted"], &format!(":{counted}\r\n"));
        };
        count();
        let older = newest(&checkpoints(&cluster, node));
        checkpoint_well(&cluster, "now", node);
        count();
        let path = newest(&checkpoints(&cluster, node));
        let (file, what) = spoil(&path, &mut rng);
        let found = checkpoint(&cluster.data(), "verify", node);
        assert_ne!(found.code, Some(0), "{found:?}");
        let file_shown = file.to_str().unwrap();
        assert!(found.stdout.contains(file_shown), "{found:?}");
        cluster.kill(&cluster.view(), node);
        let log = LogFrom::now(&cluster.node_dir(node).join("node.log"));
        cluster.start_node(node);
        cluster.wait_for("the dead node", View::whole);
        count();
        cluster.settle();
        let named = file.strip_prefix(cluster.node_dir(node)).unwrap();
        let named = named.to_str().unwrap();
        assert!(log.says(named), "{named}:\n{}", log.text());
        let slot = slot_of(&older);
        let restored = cluster.view().node(node).and_then(|it| it.restored_from);
        assert_eq!(restored, Some(slot), "{}", log.text());
        say(&format!(
            "{name}: {damage}: {what}: slot {slot} is used instead"
        ));
        // An administrator would.
        fs::remove_dir_all(path).unwrap();
    }
    let hashes = cluster.settle().hashes();
    say(&format!("{name}: {hashes}"));
    cluster.stop();
}

#[track_caller]
fn newest(directory: &Path) -> PathBuf {
    let name = names(directory).pop().expect("there is one");
    directory.join(name)
}

fn slot_of(checkpoint: &Path) -> u64 {
    let name = checkpoint.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok()).expect("a slot")
}

/// Flips a bit of a file or cuts its end off. Which, and what was done.
fn spoil(checkpoint: &Path, rng: &mut Rng) -> (PathBuf, String) {
    let mut files = Vec::new();
    collect(checkpoint, &mut files);
    files.sort();
    let file = files[rng.usize(..files.len())].clone();
    let mut bytes = fs::read(&file).unwrap();
    let at = rng.usize(..bytes.len());
    let how = match rng.u64(..2) {
        0 => {
            bytes.truncate(at);
            "cut"
        }
        _ => {
            bytes[at] ^= 1 << rng.u64(..8);
            "changed"
        }
    };
    fs::write(&file, bytes).unwrap();
    let shown = file.strip_prefix(checkpoint).unwrap().display();
    let what = format!("{shown} {how} at {at}");
    (file, what)
}

/// Files that are not empty and have one name: of others the next checkpoint knows as well.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    use std::os::unix::fs::MetadataExt;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            collect(&path, files);
        } else if metadata.is_file() && metadata.len() > 0 && metadata.nlink() == 1 {
            files.push(path);
        }
    }
}

/// A small file system on a directory, while it lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, megabytes: u64) -> Self {
        let size = format!("size={megabytes}m");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at));
        Self(at.to_owned())
    }

    fn resize(&self, bytes: u64) {
        let size = format!("remount,size={bytes}");
        run(Command::new("mount").args(["-o", &size]).arg(&self.0));
    }

    fn used(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.0).unwrap();
        (stat.blocks() - stat.blocks_free()) * stat.fragment_size()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A node may be at it still.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let status = command.status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "{command:?}: {status:?}"
    );
}

#[test]
fn a_full_disk_is_told_and_the_server_goes_on() {
    let name = "a_full_disk_is_told_and_the_server_goes_on";
    let Some(setup) = contained_redis(name) else {
        return;
    };
    let cluster = Cluster::start(setup.option("--checkpoint-log-mib", "0"));
    let view = cluster.settle();
    let node = view.followers()[0];
    let directory = checkpoints(&cluster, node);
    let disk = SmallDisk::mount(&directory, 256);
    fill(&cluster, node, MEGABYTES);
    checkpoint_well(&cluster, "now", node);
    let first = slot_of(&newest(&directory));
    let mut client = Client::connect(cluster.address(node));
    let one = disk.used();
    // Room for nothing, for half of the processes' image, for nearly all.
    for (turn, room) in [1 << 16, one / 2, one - (1 << 16)].into_iter().enumerate() {
        client.exchange(&["INCR", "counted"], &format!(":{}\r\n", turn + 1));
        disk.resize(one + room);
        let failed = checkpoint(&cluster.data(), "now", node);
        assert_eq!(failed.code, Some(1), "{failed:?}");
        say(&format!(
            "{name}: {room} bytes free: {}",
            failed.stderr.trim()
        ));
        assert!(failed.stderr.contains("No space left"), "{failed:?}");
        let view = cluster.settle();
        let trouble = view.node(node).and_then(|it| it.checkpoint_trouble.clone());
        assert!(trouble.is_some_and(|it| it.contains("No space left")));
        assert_eq!(names(&directory).len(), 1, "{:?}", names(&directory));
        checkpoint_well(&cluster, "verify", node);
    }
    disk.resize(one * 3);
    client.exchange(&["INCR", "counted"], ":4\r\n");
    checkpoint_well(&cluster, "now", node);
    let view = cluster.settle();
    let status = view.node(node).expect("it is up");
    assert!(status.checkpoint > Some(first) && status.checkpoint_trouble.is_none());
    assert_eq!(status.server_starts, 1, "its server went on all the time");
    checkpoint_well(&cluster, "verify", node);
    cluster.kill(&view, node);
    cluster.wait_for("the dead node", View::whole);
    let back = eventually(|| {
        cluster
            .view()
            .node(node)
            .is_some_and(|it| it.restored_from > Some(first))
    });
    assert!(back, "{:#?}", cluster.view());
    let hashes = cluster.settle().hashes();
    say(&format!("{name}: {hashes}"));
    cluster.stop();
    drop(disk);
}
