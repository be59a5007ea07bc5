//! Checkpoints in which something goes wrong. As root, with CRIU; skipped elsewhere.

mod damage;
mod fetches;
mod growth;
mod kills;
mod moment;
mod races;
mod rejoin;
mod tree;

pub use fetches::{drop_the_log, eventually_soon};

use crate::clients::resp::Client;
use crate::fixture::cluster::{Cluster, Setup, say};
use crate::harness::{Finished, finish};
use std::fs;
use std::path::{Path, PathBuf};

/// Rounds of a campaign.
fn rounds() -> usize {
    crate::fixture::settings::setting("BROLGA_CHECKPOINT_FAULTS", 8)
}

/// True if servers can be dumped here; prints the reason if not.
pub fn is_possible(test: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    match brolga_checkpoint::probe(dir.path()) {
        Ok(_) => true,
        Err(error) => {
            say(&format!("{test}: SKIPPED, {error}"));
            false
        }
    }
}

/// Redis in containers, whose checkpoints are the test's business; `None`, and said so, where that is not
/// possible.
fn contained_redis(test: &str) -> Option<Setup> {
    if !is_possible(test) {
        return None;
    }
    Some(Setup::redis(test, &[])?.option("--container", "required"))
}

fn checkpoints(cluster: &Cluster, node: u64) -> PathBuf {
    cluster.node_dir(node).join("checkpoints")
}

/// `brolga checkpoint ACTION`, of one replica.
fn checkpoint(data: &Path, action: &str, node: u64) -> Finished {
    let node = node.to_string();
    let data = data.to_str().unwrap();
    finish(&["checkpoint", action, "--data", data, "--node", &node])
}

/// The same, which has to go well.
#[track_caller]
fn checkpoint_well(cluster: &Cluster, action: &str, node: u64) -> String {
    let done = checkpoint(&cluster.data(), action, node);
    assert_eq!(done.code, Some(0), "{action} of {node}: {done:?}");
    done.stdout
}

/// Names in a replica's directory of checkpoints, the oldest first.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Some megabytes, so that a dump takes its time.
pub fn fill(cluster: &Cluster, node: u64, megabytes: usize) {
    let mut client = Client::connect(cluster.address(node));
    for number in 0..megabytes {
        let (key, byte) = (format!("large{number}"), format!("{}", number % 10));
        client.exchange(&["SET", &key, &byte.repeat(1 << 20)], "+OK\r\n");
    }
}

/// The part that is added to a log from now on.
struct LogFrom {
    path: PathBuf,
    skipped: usize,
}

impl LogFrom {
    fn now(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            skipped: fs::read(path).unwrap_or_default().len(),
        }
    }

    fn text(&self) -> String {
        let bytes = fs::read(&self.path).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.skipped..).unwrap_or_default()).into_owned()
    }

    fn says(&self, words: &str) -> bool {
        self.text().contains(words)
    }
}
