//! Disks do not fill up while the server works.
//!
//! The bound is the one in docs/operations.md, of settings and of the size of a checkpoint:
//!
//! ```text
//! log          (kept + 1) × checkpoint_log_mib + 3 × segment_bytes
//! checkpoints  (kept + 1) × the largest of them
//! ```

use super::{checkpoint_well, checkpoints, contained_redis, names};
use crate::clients::resp::Client;
use crate::fixture::cluster::{Cluster, say};
use crate::fixture::settings::scaled;
use crate::fixture::view::View;
use crate::harness::eventually;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const MEGABYTE: u64 = 1 << 20;
const LOG_MB: u64 = 16;
/// The defaults.
const KEPT: u64 = 2;
const SEGMENT_BYTES: u64 = 32 << 20;
/// Checkpoints of each replica.
const ROUNDS: usize = 10;
/// Values that are written again and again.
const KEYS: u64 = 4;

#[test]
fn log_and_checkpoints_stay_below_their_bound() {
    let name = "log_and_checkpoints_stay_below_their_bound";
    let Some(setup) = contained_redis(name) else {
        return;
    };
    let cluster = Cluster::start(setup.option("--checkpoint-log-mib", &LOG_MB.to_string()));
    let view = cluster.settle();
    let mut client = Client::connect(cluster.address(view.leader()));
    let (mut written, mut most) = (0, Use::default());
    for _round in 0..scaled(ROUNDS) {
        let before = [1, 2, 3].map(|node| newest(&cluster.view(), node));
        // A little more than what makes one due.
        for _value in 0..=LOG_MB {
            let (key, byte) = (
                format!("key{}", written % KEYS),
                format!("{}", written % 10),
            );
            client.exchange(&["SET", &key, &byte.repeat(MEGABYTE as usize)], "+OK\r\n");
            written += 1;
        }
        for node in [1, 2, 3] {
            let newer = |view: &View| newest(view, node) > before[node as usize - 1];
            cluster.wait_for("a checkpoint", newer);
            most = most.or(&Use::of(&cluster, node));
        }
    }
    let log_bound = (KEPT + 1) * LOG_MB * MEGABYTE + 3 * SEGMENT_BYTES;
    let bound = log_bound + (KEPT + 1) * most.largest;
    say(&format!(
        "{name}: {written} MiB written; at most {} MiB of log (bound {}) and {} of checkpoints (bound {}; \
         the largest has {})",
        most.log / MEGABYTE,
        log_bound / MEGABYTE,
        most.checkpoints / MEGABYTE,
        (KEPT + 1) * most.largest / MEGABYTE,
        most.largest / MEGABYTE
    ));
    assert!(most.log <= log_bound, "{most:?}");
    assert!(most.log + most.checkpoints <= bound, "{most:?}");
    assert!(
        written * MEGABYTE > log_bound,
        "too little to show anything"
    );
    for node in [1, 2, 3] {
        let begins = || {
            cluster
                .view()
                .node(node)
                .is_some_and(|it| it.log_begins > 1)
        };
        assert!(eventually(begins), "{node} drops nothing");
        checkpoint_well(&cluster, "verify", node);
    }
    say(&format!("{name}: {}", cluster.settle().hashes()));
    cluster.stop();
}

fn newest(view: &View, node: u64) -> Option<u64> {
    view.node(node).and_then(|status| status.checkpoint)
}

/// Bytes on a replica's disk.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    log: u64,
    checkpoints: u64,
    /// The largest one alone.
    largest: u64,
}

impl Use {
    fn of(cluster: &Cluster, node: u64) -> Self {
        let directory = checkpoints(cluster, node);
        let each = names(&directory).into_iter();
        let each = each.map(|name| bytes_below(&directory.join(name)));
        Self {
            log: bytes_below(&cluster.node_dir(node).join("log")),
            checkpoints: bytes_below(&directory),
            largest: each.max().unwrap_or_default(),
        }
    }

    fn or(&self, other: &Self) -> Self {
        Self {
            log: self.log.max(other.log),
            checkpoints: self.checkpoints.max(other.checkpoints),
            largest: self.largest.max(other.largest),
        }
    }
}

/// Files that have several names take their room once.
fn bytes_below(top: &Path) -> u64 {
    let (mut bytes, mut seen, mut left) = (0, BTreeSet::new(), vec![top.to_owned()]);
    while let Some(path) = left.pop() {
        // It may go meanwhile.
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| entry.path()));
        } else if seen.insert(metadata.ino()) {
            bytes += metadata.blocks() * 512;
        }
    }
    bytes
}
