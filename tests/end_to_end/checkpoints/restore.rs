//! `brolga restore`: what a node starts from, and a server as it was after a slot, beside everything.

use crate::checkpoints::faults::is_possible;
use crate::clients::resp::Client;
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::random;
use crate::harness::{Finished, finish, finish_with, refused};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const WRITES: usize = 100;

fn write(cluster: &Cluster, rng: &mut Rng) -> u64 {
    let mut client = Client::connect(cluster.address(2));
    for number in 0..WRITES {
        let value = rng.u64(..1_000_000).to_string();
        client.exchange(&["SET", &format!("key{number}"), &value], "+OK\r\n");
    }
    drop(client);
    cluster.settle().last_entry()
}

/// Everything below a directory, with contents.
fn tree(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.is_file() {
                let inner = path.strip_prefix(top).unwrap().to_owned();
                found.insert(inner, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// `brolga WORD --data DATA --node N …`, which must end well.
#[track_caller]
fn done(word: &str, data: &Path, node: u64, more: &[&str]) -> Finished {
    let (data, node) = (data.to_str().unwrap(), node.to_string());
    let fixed = [word, "--data", data, "--node", &node];
    let finished = finish(&[&fixed, more].concat());
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished
}

#[track_caller]
fn says(finished: &Finished, words: &[&str]) {
    for word in words {
        let said = finished.stdout.contains(word) || finished.stderr.contains(word);
        assert!(said, "`{word}` is not in {finished:?}");
    }
}

#[test]
fn without_checkpoints_a_server_is_restored_from_its_log() {
    let name = "without_checkpoints_a_server_is_restored_from_its_log";
    let mut rng = random(name);
    let cluster = Cluster::start(Setup::store());
    let last = write(&cluster, &mut rng);
    let data = cluster.data();
    let text = data.to_str().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (then, now) = (scratch.path().join("then"), scratch.path().join("now"));
    let (then_text, now_text) = (then.to_str().unwrap(), now.to_str().unwrap());
    let at = (last / 2).to_string();
    // The cluster runs meanwhile.
    let early = done("restore", &data, 1, &["--into", then_text, "--at", &at]);
    says(
        &early,
        &[&format!("from the genesis to slot {at}"), "as recorded"],
    );
    done("restore", &data, 2, &["--into", now_text]);
    let files = tree(&now.join("work"));
    assert!(!files.is_empty());
    assert!(
        files == tree(&cluster.node_dir(2).join("work")),
        "other files"
    );
    assert!(
        files != tree(&then.join("work")),
        "the same files at slot {at}"
    );
    assert!(!now.join("unfinished").exists());
    refused(
        &["restore", "--data", text, "--node", "1", "--into", now_text],
        &["is not empty"],
    );
    refused(
        &["restore", "--data", text, "--node", "1"],
        &["in use by a node that is running"],
    );
    let far = (last + 1000).to_string();
    let nowhere = scratch.path().join("nowhere");
    let nowhere_text = nowhere.to_str().unwrap();
    let into_nowhere = [
        "restore",
        "--data",
        text,
        "--node",
        "1",
        "--into",
        nowhere_text,
        "--at",
    ];
    refused(
        &[&into_nowhere[..], &[&far]].concat(),
        &["the log ends at slot"],
    );
    assert!(!nowhere.exists());
    let dir = cluster.stop_and_keep();
    let here = done("restore", &dir.path().join("data"), 1, &[]);
    says(&here, &["replica 1 starts from the genesis"]);
}

#[test]
fn a_node_starts_from_what_restore_says_and_the_past_is_looked_at_elsewhere() {
    let name = "a_node_starts_from_what_restore_says_and_the_past_is_looked_at_elsewhere";
    let scratch = tempfile::tempdir().unwrap();
    if !is_possible(name) {
        return;
    }
    let mut rng = random(name);
    let setup = Setup::store().option("--container", "required");
    // Either way it is the same.
    let how = ["none", "zstd"][rng.usize(..2)];
    let mut cluster = Cluster::start(setup.option("--checkpoint-compression", how));
    let data = cluster.data();
    let mut taken = Vec::new();
    for _ in 0..2 {
        write(&cluster, &mut rng);
        let now = finish(&["checkpoint", "now", "--data", data.to_str().unwrap()]);
        assert_eq!(now.code, Some(0), "{now:?}");
        taken.push(newest(&cluster, 1));
    }
    let last = write(&cluster, &mut rng);
    let (first, second) = (taken[0], taken[1]);

    // Between the two, from the first and from the genesis: the same files, hashes as recorded.
    let at = (first + 1 + rng.u64(..second - first - 1)).to_string();
    let path = |name: &str| scratch.path().join(name);
    let (past, replayed) = (path("past"), path("replayed"));
    let past_text = past.to_str().unwrap();
    let into = ["--into", past_text, "--at", &at, "--checkpoint"];
    let restored = done("restore", &data, 1, &into);
    says(
        &restored,
        &[&format!("from the checkpoint of slot {first} to slot {at}")],
    );
    says(&restored, &["as recorded", "a checkpoint of slot"]);
    done(
        "replay",
        &data,
        1,
        &["--until", &at, "--into", replayed.to_str().unwrap()],
    );
    assert!(
        tree(&past.join("work")) == tree(&replayed.join("work")),
        "other files"
    );

    // The checkpoint that was kept there is as good as any.
    let kept = past.join("checkpoints");
    let on = done(
        "replay",
        &data,
        1,
        &["--checkpoints", kept.to_str().unwrap()],
    );
    says(
        &on,
        &[
            "from the checkpoint of slot",
            &format!("slot {last}: output hash"),
        ],
    );
    says(&on, &["all hashes are as recorded"]);
    let own = done("replay", &data, 2, &["--from-checkpoint"]);
    says(
        &own,
        &["from the checkpoint of slot", "all hashes are as recorded"],
    );

    // Without CRIU there is the log, from its beginning.
    let slow = path("slow");
    let words = [
        "restore",
        "--data",
        data.to_str().unwrap(),
        "--node",
        "1",
        "--into",
    ];
    let words = [&words[..], &[slow.to_str().unwrap(), "--at", &at]].concat();
    let without = finish_with(&words, &[("BROLGA_CRIU", "/bin/false")]);
    assert_eq!(without.code, Some(0), "{without:?}");
    says(
        &without,
        &["is skipped", &format!("from the genesis to slot {at}")],
    );
    assert!(
        tree(&slow.join("work")) == tree(&past.join("work")),
        "other files"
    );

    // One that is damaged is named, and the older one used; also by the node.
    let archive = path("archive.tar.zst");
    let archive_text = archive.to_str().unwrap();
    let of_second = [archive_text, "--slot", &newest(&cluster, 3).to_string()].map(str::to_owned);
    let exported = finish(
        &[
            &[
                "checkpoint",
                "export",
                "--node",
                "3",
                "--data",
                data.to_str().unwrap(),
            ],
            &of_second.each_ref().map(String::as_str)[..],
        ]
        .concat(),
    );
    assert_eq!(exported.code, Some(0), "{exported:?}");
    let third = newest(&cluster, 3);
    cluster.kill_everything();
    damage(&cluster.node_dir(1), second);
    let here = done("restore", &data, 1, &[]);
    says(
        &here,
        &[
            &format!("slot {second} is skipped"),
            "its checksum is wrong",
        ],
    );
    says(
        &here,
        &[&format!(
            "replica 1 starts from the checkpoint of slot {first}"
        )],
    );

    // A machine that has nothing takes all of it from the file.
    let bare = cluster.node_dir(3);
    let config = fs::read(bare.join("config.toml")).unwrap();
    fs::remove_dir_all(&bare).unwrap();
    fs::create_dir(&bare).unwrap();
    fs::write(bare.join("config.toml"), config).unwrap();
    let beside = path("beside");
    let beside_text = beside.to_str().unwrap();
    let elsewhere = done(
        "restore",
        &data,
        3,
        &["--from", archive_text, "--into", beside_text],
    );
    says(
        &elsewhere,
        &[&format!(
            "from the checkpoint of slot {third} to slot {third}"
        )],
    );
    let here = done("restore", &data, 3, &["--from", archive_text]);
    says(
        &here,
        &[&format!("starts from the checkpoint of slot {third}")],
    );
    cluster.start_again();
    let view = cluster.settle();
    assert_eq!(view.node(1).unwrap().restored_from, Some(first));
    assert_eq!(view.node(3).unwrap().restored_from, Some(third));
    say(&format!(
        "{name}: compression {how}, slots {first}, {second}, {third}; {}",
        view.hashes()
    ));
    cluster.stop();
}

fn newest(cluster: &Cluster, node: u64) -> u64 {
    let view = cluster.view();
    let status = view.node(node).expect("it is up");
    status.checkpoint.expect("it has taken one")
}

/// Flips a bit in the largest file of a checkpoint.
fn damage(node_dir: &Path, slot: u64) {
    let top = node_dir.join(format!("checkpoints/{slot:020}"));
    let files = tree(&top);
    let (name, bytes) = files.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let mut bytes = bytes.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(top.join(name), bytes).unwrap();
}
