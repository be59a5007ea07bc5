//! `brolga restore`: what a node starts from, and a server as it was after a slot, beside
//! everything.

use crate::checkpoints::faults::is_possible;
use crate::clients::resp::Client;
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::fixture::settings::random;
use crate::harness::{Finished, finish, finish_with, refused};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

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
fn restore_repeats_history_elsewhere_and_chooses_where_a_node_starts() {
    let name = "restore_repeats_history_elsewhere_and_chooses_where_a_node_starts";
    if !is_possible(name) {
        return;
    }
    let mut history = History::make(name);
    let past = history.between_the_checkpoints();
    history.replay_from_a_kept_checkpoint(&past);
    history.without_criu(&past);
    let (archive, third) = history.export();
    history.cluster.kill_everything();
    history.skip_a_damaged_checkpoint();
    history.bring_back_an_empty_node(&archive, third);
    history.all_start_again(name, third);
}

/// A store with two checkpoints of each replica, and entries before, between and after them.
struct History {
    cluster: Cluster,
    data: PathBuf,
    scratch: TempDir,
    compression: &'static str,
    /// Slots of the checkpoints of the first replica.
    first: u64,
    second: u64,
    /// The last slot with an entry.
    last: u64,
    /// A slot between the checkpoints, as an argument.
    at: String,
}

impl History {
    fn make(name: &str) -> Self {
        let mut rng = random(name);
        // Either way it is the same.
        let compression = ["none", "zstd"][rng.usize(..2)];
        let setup = Setup::store().option("--container", "required");
        let cluster = Cluster::start(setup.option("--checkpoint-compression", compression));
        let data = cluster.data();
        let [first, second] = [(); 2].map(|()| {
            write(&cluster, &mut rng);
            let now = finish(&["checkpoint", "now", "--data", data.to_str().unwrap()]);
            assert_eq!(now.code, Some(0), "{now:?}");
            newest(&cluster, 1)
        });
        let last = write(&cluster, &mut rng);
        Self {
            data,
            scratch: tempfile::tempdir().unwrap(),
            compression,
            first,
            second,
            last,
            at: (first + 1 + rng.u64(..second - first - 1)).to_string(),
            cluster,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// From the first checkpoint and from the genesis: the same files, hashes as recorded. Returns
    /// where the files are.
    fn between_the_checkpoints(&self) -> PathBuf {
        let (first, at) = (self.first, &self.at);
        let (past, replayed) = (self.path("past"), self.path("replayed"));
        let into = ["--into", past.to_str().unwrap(), "--at", at, "--checkpoint"];
        let restored = done("restore", &self.data, 1, &into);
        let from = format!("from the checkpoint of slot {first} to slot {at}");
        says(&restored, &[&from, "as recorded", "a checkpoint of slot"]);
        let until = ["--until", at, "--into", replayed.to_str().unwrap()];
        done("replay", &self.data, 1, &until);
        assert_same_files(&past, &replayed);
        past
    }

    /// The checkpoint that was kept beside the files is as good as any.
    fn replay_from_a_kept_checkpoint(&self, past: &Path) {
        let kept = past.join("checkpoints");
        let on = ["--checkpoints", kept.to_str().unwrap()];
        let replayed = done("replay", &self.data, 1, &on);
        let last = format!("slot {}: output hash", self.last);
        let start = "from the checkpoint of slot";
        says(&replayed, &[start, &last, "all hashes are as recorded"]);
        let own = done("replay", &self.data, 2, &["--from-checkpoint"]);
        says(&own, &[start, "all hashes are as recorded"]);
    }

    /// There is still the log, from its beginning.
    fn without_criu(&self, past: &Path) {
        let slow = self.path("slow");
        let data = self.data.to_str().unwrap();
        let words = ["restore", "--data", data, "--node", "1", "--into"];
        let words = [&words[..], &[slow.to_str().unwrap(), "--at", &self.at]].concat();
        let without = finish_with(&words, &[("BROLGA_CRIU", "/bin/false")]);
        assert_eq!(without.code, Some(0), "{without:?}");
        let from = format!("from the genesis to slot {}", self.at);
        says(&without, &["is skipped", &from]);
        assert_same_files(&slow, past);
    }

    /// Writes the newest checkpoint of the third replica to a file; returns that and the slot.
    fn export(&self) -> (PathBuf, u64) {
        let archive = self.path("archive.tar.zst");
        let third = newest(&self.cluster, 3);
        let slot = third.to_string();
        let data = self.data.to_str().unwrap();
        let words = ["checkpoint", "export", "--node", "3", "--data", data];
        let of = [archive.to_str().unwrap(), "--slot", &slot];
        let exported = finish(&[&words[..], &of].concat());
        assert_eq!(exported.code, Some(0), "{exported:?}");
        (archive, third)
    }

    /// A checkpoint that is damaged is named, and the older one used.
    fn skip_a_damaged_checkpoint(&self) {
        let (first, second) = (self.first, self.second);
        damage(&self.cluster.node_dir(1), second);
        let here = done("restore", &self.data, 1, &[]);
        let skipped = format!("slot {second} is skipped");
        let start = format!("replica 1 starts from the checkpoint of slot {first}");
        says(&here, &[&skipped, "its checksum is wrong", &start]);
    }

    /// A machine that has nothing takes all of it from the file.
    fn bring_back_an_empty_node(&self, archive: &Path, third: u64) {
        let bare = self.cluster.node_dir(3);
        let config = fs::read(bare.join("config.toml")).unwrap();
        fs::remove_dir_all(&bare).unwrap();
        fs::create_dir(&bare).unwrap();
        fs::write(bare.join("config.toml"), config).unwrap();
        let beside = self.path("beside");
        let from = ["--from", archive.to_str().unwrap()];
        let into = ["--into", beside.to_str().unwrap()];
        let elsewhere = done("restore", &self.data, 3, &[from, into].concat());
        let all = format!("from the checkpoint of slot {third} to slot {third}");
        says(&elsewhere, &[&all]);
        let here = done("restore", &self.data, 3, &from);
        let start = format!("starts from the checkpoint of slot {third}");
        says(&here, &[&start]);
    }

    /// The nodes do as they were told.
    fn all_start_again(mut self, name: &str, third: u64) {
        let (first, second) = (self.first, self.second);
        self.cluster.start_again();
        let view = self.cluster.settle();
        assert_eq!(view.node(1).unwrap().restored_from, Some(first));
        assert_eq!(view.node(3).unwrap().restored_from, Some(third));
        say(&format!(
            "{name}: compression {}, slots {first}, {second}, {third}; {}",
            self.compression,
            view.hashes()
        ));
        self.cluster.stop();
    }
}

#[track_caller]
fn assert_same_files(one: &Path, other: &Path) {
    let same = tree(&one.join("work")) == tree(&other.join("work"));
    assert!(same, "the files differ");
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
