//! `brolga restore`: the checkpoint that a node will start from; and a server's files as of a slot.
//!
//! A node restores from a checkpoint by itself when it starts. This command says beforehand from which one
//! and why, imports one from a file, and does nothing that the start would undo. With `--into` it works
//! in a directory of its own and only reads the node's data.

use super::Outcome;
use super::checkpoint::take_in;
use super::recorded_log::{
    contain_if_possible, known_chosen, open_log, progress, report, start_point, verdict,
};
use crate::cluster::restore::Wanted;
use crate::cluster::{self, node_dir};
use anyhow::{Context, anyhow, bail};
use brolga_checkpoint::{Checkpoint, Directory};
use brolga_config::NodeConfig;
use brolga_consensus::journal::LogReader;
use brolga_node::{Keep, Recording, Replayed, WrappedServer, recorded_hashes, replay};
use brolga_server_image::identity;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The mark in a directory that is being filled.
const UNFINISHED: &str = "unfinished";

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory of the cluster.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "brolga-data",
        conflicts_with = "config"
    )]
    data: PathBuf,
    /// Only this replica; by default all that have a directory here.
    #[arg(long, value_name = "N", conflicts_with = "config")]
    node: Option<u64>,
    /// A replica's configuration (TOML), instead of a cluster's directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An exported checkpoint (.tar.zst), possibly from another machine.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Write the server's files to this directory, which must be empty or missing. The node may run.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// The files as of this slot; by default the last one.
    #[arg(long, value_name = "SLOT", requires = "into",
          value_parser = clap::value_parser!(u64).range(1..))]
    at: Option<u64>,
    /// Also keep the server itself, as a checkpoint in DIR/checkpoints.
    #[arg(long, requires = "into")]
    checkpoint: bool,
}

pub fn main(options: &Options) -> Outcome {
    let nodes = options.nodes()?;
    match (&options.into, &nodes[..]) {
        (Some(into), [node, ..]) => restore_into(into, node, options)?,
        (_, [node]) => restore_here(node, options.from.as_deref())?,
        (_, many) if options.from.is_none() => {
            for node in many {
                restore_here(node, None)?;
            }
        }
        _ => return Err(anyhow!("--from: say for which replica with --node").into()),
    }
    Ok(())
}

impl Options {
    /// The configurations of the selected replicas; at least one.
    fn nodes(&self) -> anyhow::Result<Vec<NodeConfig>> {
        if let Some(path) = &self.config {
            return Ok(vec![NodeConfig::load(path)?]);
        }
        let members = cluster::read(&self.data)?.members.into_iter();
        let path = |node| node_dir(&self.data, node).join("config.toml");
        let meant = members
            .map(|member| member.id)
            .filter(|id| match self.node {
                Some(node) => node == *id,
                None => path(*id).exists(),
            });
        let configs = meant.map(|id| Ok(NodeConfig::load(&path(id))?));
        let configs: Vec<NodeConfig> = configs.collect::<anyhow::Result<_>>()?;
        match (configs.is_empty(), self.node) {
            (false, _) => Ok(configs),
            (true, Some(node)) => bail!("there is no replica {node}"),
            (true, None) => bail!("no replica has a directory in {}", self.data.display()),
        }
    }
}

// ---- in place ----

/// Prints, and prepares, the start point of a stopped node.
fn restore_here(config: &NodeConfig, archive: Option<&Path>) -> anyhow::Result<()> {
    let node = config.node;
    let lock = identity::claim(config)?;
    let directory = Directory::open(config.checkpoint_dir())?;
    if let Some(archive) = archive {
        take_in(archive, &directory)?;
    }
    let log = existing_log(config)?;
    let begins = log.as_ref().map_or(1, LogReader::first);
    let wanted = Wanted {
        cluster: config.cluster.0,
        identity: lock.checkpoint_identity(),
        upto: u64::MAX,
        log_begins: Some(begins),
    };
    let Some((checkpoint, _hold)) = start_point(&config.data_dir, &[directory], &wanted)? else {
        println!("replica {node} starts from the genesis and replays its whole log");
        return Ok(());
    };
    // The mark would say that the cluster has never run.
    forget_new_mark(config)?;
    let (slot, end) = (
        checkpoint.slot(),
        log.as_ref().map_or(0, LogReader::accepted),
    );
    let then = match end > slot {
        true => format!("replays slots {} to {end} of its log", slot + 1),
        false => "fetches what follows from the other replicas".to_owned(),
    };
    println!("replica {node} starts from the checkpoint of slot {slot}, and {then}");
    Ok(())
}

fn forget_new_mark(config: &NodeConfig) -> anyhow::Result<()> {
    let mark = config.new_mark();
    match fs::remove_file(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", mark.display()))
        }
        _ => Ok(()),
    }
}

/// The log of a node, if it has one.
fn existing_log(config: &NodeConfig) -> anyhow::Result<Option<LogReader>> {
    match config.log_dir().exists() {
        true => Ok(Some(open_log(config)?)),
        false => Ok(None),
    }
}

// ---- elsewhere ----

fn restore_into(into: &Path, config: &NodeConfig, options: &Options) -> anyhow::Result<()> {
    let output = OutputDirectory::begin(into)?;
    let replayed = fill(&output.path, config, options)?;
    output.done()?;
    println!("{}", report(&replayed));
    match &replayed.kept {
        Some(Ok(slot)) => println!(
            "a checkpoint of slot {slot} is in {}/checkpoints",
            into.display()
        ),
        Some(Err(why)) => return Err(anyhow!("no checkpoint was kept: {why}")),
        None => {}
    }
    println!("the server's files are in {}/work", into.display());
    verdict(&replayed, options.at.is_some(), replayed.last.slot)
}

fn fill(into: &Path, config: &NodeConfig, options: &Options) -> anyhow::Result<Replayed> {
    let identity = identity::checkpoint_identity(config)?;
    let own = into.join("checkpoints");
    let mut directories: Vec<Directory> = Directory::existing(config.checkpoint_dir())
        .into_iter()
        .collect();
    if let Some(archive) = &options.from {
        let directory = Directory::open(&own)?;
        take_in(archive, &directory)?;
        directories.push(directory);
    }
    let log = existing_log(config)?;
    let hashes = recorded_hashes(&config.data_dir)
        .with_context(|| format!("cannot read the hashes in {}", config.data_dir.display()))?;
    let log_ends = log.as_ref().map_or(0, |log| known_chosen(log, &hashes));
    let upto = last_slot(log_ends, &directories, options.at)?;
    let wanted = Wanted {
        cluster: config.cluster.0,
        identity: identity.clone(),
        upto,
        log_begins: log.as_ref().map(LogReader::first),
    };
    let (from, _hold) = start_point(into, &directories, &wanted)?.unzip();
    let keep = match options.checkpoint {
        true => Some(Keep {
            directory: Directory::open(own)?,
            identity,
        }),
        false => None,
    };
    match &from {
        Some(from) => println!("from the checkpoint of slot {} to slot {upto}", from.slot()),
        None => println!("from the genesis to slot {upto}"),
    }
    let mut elsewhere = config.clone();
    elsewhere.data_dir = into.to_owned();
    elsewhere.perturb_us = 0;
    elsewhere.trace = false;
    if from.is_none() {
        contain_if_possible(&mut elsewhere);
    }
    let mut host = WrappedServer::new(&elsewhere);
    let recording = Recording {
        config: elsewhere,
        from,
        log,
        upto,
        hashes,
        keep,
    };
    let nobody = None::<fn(i32) -> io::Result<std::process::Child>>;
    let mut shown = progress(recording.from.as_ref(), upto);
    Ok(replay(recording, &mut host, nobody, &mut shown)?)
}

/// The requested slot, or the last one there is.
fn last_slot(log_ends: u64, directories: &[Directory], at: Option<u64>) -> anyhow::Result<u64> {
    let mut last = log_ends;
    for directory in directories {
        let newest = directory.list()?.whole.first().map(Checkpoint::slot);
        last = last.max(newest.unwrap_or(0));
    }
    match at {
        _ if last == 0 => bail!("there is neither a log nor a checkpoint"),
        Some(at) if at > last => bail!("--at {at}: the log ends at slot {last}"),
        Some(at) => Ok(at),
        None => Ok(last),
    }
}

/// A directory that is being filled, by this process alone.
#[derive(Debug)]
struct OutputDirectory {
    path: PathBuf,
    made: bool,
    mark: PathBuf,
}

impl OutputDirectory {
    fn begin(into: &Path) -> anyhow::Result<Self> {
        let shown = into.display();
        let path = std::path::absolute(into)?;
        let made = !path.exists();
        fs::create_dir_all(&path).with_context(|| format!("cannot create {shown}"))?;
        let filled = fs::read_dir(&path).with_context(|| format!("cannot read {shown}"))?;
        if filled.count() > 0 {
            bail!("{shown} is not empty");
        }
        let mark = path.join(UNFINISHED);
        match File::create_new(&mark) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{shown} is not empty")
            }
            other => other.with_context(|| format!("cannot write in {shown}"))?,
        };
        Ok(Self { path, made, mark })
    }

    fn done(self) -> anyhow::Result<()> {
        fs::remove_file(&self.mark)
            .with_context(|| format!("cannot remove {}", self.mark.display()))
    }
}

impl Drop for OutputDirectory {
    fn drop(&mut self) {
        // Only what is as empty as before goes; anything else stays, marked as unfinished.
        let mark_alone = fs::read_dir(&self.path).is_ok_and(|files| files.count() == 1);
        if mark_alone && self.mark.exists() && fs::remove_file(&self.mark).is_ok() && self.made {
            let _ = fs::remove_dir(&self.path);
        }
    }
}
