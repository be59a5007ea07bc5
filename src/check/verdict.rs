//! The verdict of a check: compares the traces of all replicas and reports the first divergence.

use super::{Summary, Verdict};
use crate::cluster::status::ClusterStatus;
use crate::cluster::{Cluster, node_dir};
use anyhow::Context;
use brolga_consensus::journal::{JournalConfig, LogReader};
use brolga_node::{Compared, Fork, compare_traces, traces};
use std::fmt;
use std::path::PathBuf;

/// A start of one replica's server.
#[derive(Clone, Debug)]
struct Trace {
    node: u64,
    start: usize,
    path: PathBuf,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.start {
            1 => write!(f, "replica {}", self.node),
            start => write!(f, "replica {} (start {start})", self.node),
        }
    }
}

/// The first difference of a run.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// The slot.
    pub slot: u64,
    /// The run, from 1.
    pub run: u32,
    text: String,
}

impl Divergence {
    /// The divergence that the nodes have found by themselves.
    #[must_use]
    pub fn told_by_nodes(cluster_status: &ClusterStatus, run: u32) -> Self {
        let slot = cluster_status.difference.as_ref().map(|it| it.slot);
        let text = match &cluster_status.difference {
            Some(difference) => difference.to_string(),
            None => cluster_status.warning.clone().unwrap_or_default(),
        };
        Self {
            slot: slot.or(cluster_status.compared_slot).unwrap_or_default(),
            run,
            text,
        }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, run, text } = self;
        write!(f, "run {run}: divergence at slot {slot}\n{text}")
    }
}

/// Compares everything that the servers of a run have done.
pub fn of(cluster: &Cluster, run: u32) -> anyhow::Result<Verdict> {
    let all = all_traces(cluster);
    let mut camps: Vec<Vec<usize>> = Vec::new();
    let mut first: Option<(usize, usize, Box<Fork>)> = None;
    let mut summary = Summary::default();
    for (at, trace) in all.iter().enumerate() {
        let mut home = None;
        for (number, camp) in camps.iter().enumerate() {
            let other = &all[camp[0]];
            let mut log = log_of(cluster, other.node)?;
            let compared = compare_traces(&other.path, &trace.path, Some(&mut log));
            let compared = compared.with_context(|| {
                let (one, other) = (other.path.display(), trace.path.display());
                format!("cannot compare {one} with {other}")
            })?;
            match compared {
                Compared::Alike { records, .. } => {
                    summary.records += records;
                    home = Some(number);
                    break;
                }
                Compared::Forked(fork) => {
                    let equal = fork.equal_records;
                    if first.as_ref().is_none_or(|it| equal < it.2.equal_records) {
                        first = Some((camp[0], at, fork));
                    }
                }
            }
        }
        match home {
            Some(number) => camps[number].push(at),
            None => camps.push(vec![at]),
        }
    }
    Ok(match first {
        None => Verdict::Alike(summary),
        Some((one, other, fork)) => Verdict::Diverged(Box::new(Divergence {
            slot: fork.slot,
            run,
            text: describe(&all, &camps, one, other, &fork),
        })),
    })
}

/// The longest first, since short ones are alike to anything that begins like them.
fn all_traces(cluster: &Cluster) -> Vec<Trace> {
    let mut all = Vec::new();
    for member in &cluster.file().members {
        let paths = traces(&node_dir(cluster.data(), member.id));
        all.extend(paths.into_iter().zip(1..).map(|(path, start)| Trace {
            node: member.id,
            start,
            path,
        }));
    }
    let length = |trace: &Trace| std::fs::metadata(&trace.path).map_or(0, |it| it.len());
    all.sort_by_key(|trace| std::cmp::Reverse(length(trace)));
    all
}

fn log_of(cluster: &Cluster, node: u64) -> anyhow::Result<LogReader> {
    Ok(LogReader::open(JournalConfig {
        dir: node_dir(cluster.data(), node).join("log"),
        cluster: cluster.file().cluster.0,
        node,
        segment_bytes: brolga_config::defaults::log_segment_bytes(),
    })?)
}

fn describe(all: &[Trace], camps: &[Vec<usize>], one: usize, other: usize, fork: &Fork) -> String {
    let mut text = String::new();
    if let Some(place) = &fork.place {
        if let Some(connection) = &place.connection {
            text += &format!("  {connection}");
            if let Some(offset) = place.offset {
                text += &format!(", output byte {offset}");
            }
            text += "\n";
        }
        let sides = [
            (one, place.thread, &place.ours),
            (other, place.their_thread, &place.theirs),
        ];
        for (trace, thread, deed) in sides {
            text += &format!("  {}, thread {thread}: {deed}\n", all[trace]);
        }
    }
    text += &format!("  {fork}\n");
    let list = |camp: &Vec<usize>| {
        let names: Vec<String> = camp.iter().map(|at| all[*at].to_string()).collect();
        names.join(", ")
    };
    let mut camps: Vec<&Vec<usize>> = camps.iter().collect();
    camps.sort_by_key(|camp| std::cmp::Reverse(camp.len()));
    let camps: Vec<String> = camps.into_iter().map(list).collect();
    text + &format!("  alike as far as they go: {}", camps.join(" | "))
}
