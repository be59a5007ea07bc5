//! `brolga replay`: replays a recorded log, from the start or from a checkpoint, in a scratch directory.

use super::recorded_log::{
    contain_if_possible, known_chosen, open_log, progress, report, start_point, verdict,
};
use super::{Outcome, runtime};
use crate::cluster::restore::Wanted;
use crate::cluster::{self, node_dir};
use anyhow::{Context, anyhow, bail};
use brolga_checkpoint::{Checkpoint, Directory, Hold};
use brolga_config::{Containment, NodeConfig};
use brolga_consensus::journal::LogReader;
use brolga_node::{Recording, SlotHashes, WrappedServer, recorded_hashes, replay};
use brolga_server_image::identity;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// The command line of gdb. The interposer handles some signals itself, so gdb must pass them on.
const GDB: [&str; 10] = [
    "gdb",
    "-q",
    "-ex",
    "set pagination off",
    "-ex",
    "handle SIGSEGV nostop noprint pass",
    "-ex",
    "handle SIGSYS nostop noprint pass",
    "-ex",
    "echo The server waits before main: set breakpoints, then continue.\\n",
];

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
    /// The replica whose log is replayed.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "config")]
    node: u64,
    /// A replica's configuration (TOML), instead of a cluster's directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Stop after this slot; by default after the last one.
    #[arg(long, value_name = "SLOT", value_parser = clap::value_parser!(u64).range(1..))]
    until: Option<u64>,
    /// Start from the newest checkpoint before that slot, even if the log goes back to its start.
    #[arg(long)]
    from_checkpoint: bool,
    /// Take checkpoints from this directory instead of the replica's own; implies --from-checkpoint.
    #[arg(long, value_name = "DIR")]
    checkpoints: Option<PathBuf>,
    /// Run the server in this directory, which is wiped first and kept afterwards.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Inject random delays of up to N microseconds, to test determinism.
    #[arg(long, value_name = "N", default_value_t = 0)]
    perturb_us: u32,
    /// Run the server under gdb.
    #[arg(long)]
    gdb: bool,
    /// A debugger with its arguments; `-p PID` is appended, or `{pid}` replaced. The server waits before
    /// main until it is traced, and gets SIGTRAP after the last slot.
    #[arg(last = true, value_name = "DEBUGGER", conflicts_with = "gdb")]
    debugger: Vec<String>,
}

pub fn main(options: &Options) -> Outcome {
    let path = match &options.config {
        Some(path) => path.clone(),
        None => {
            cluster::read(&options.data)?;
            node_dir(&options.data, options.node).join("config.toml")
        }
    };
    let mut config = NodeConfig::load(&path)?;
    warn_of_changes(&config)?;
    let hashes = recorded_hashes(&config.data_dir)
        .with_context(|| format!("cannot read the hashes in {}", config.data_dir.display()))?;
    let (log, upto) = log_to_replay(&config, options.until, &hashes)?;
    let debugger = debugger(options);
    let (scratch, _temporary) = scratch(options.into.as_deref())?;
    let (from, _hold) = begin(options, &config, &scratch, log.first(), upto)?.unzip();
    if let Some(from) = &from {
        println!("from the checkpoint of slot {}", from.slot());
    }
    config.data_dir = scratch;
    config.perturb_us = options.perturb_us;
    if from.is_none() {
        contain_if_possible(&mut config);
    }
    if debugger.is_some() {
        if config.root.is_some() {
            let what = "a server with a root of its own cannot be debugged from outside of it";
            return Err(anyhow!(what).into());
        }
        // A debugger outside would see other paths and numbers.
        config.container = Containment::None;
    }
    let recording = Recording {
        config: config.clone(),
        from,
        log: Some(log),
        upto,
        hashes,
        keep: None,
    };
    let mut host = WrappedServer::new(&config).traceable(debugger.is_some());
    // Ctrl-C is for the debugger; without one it ends everything, as usual.
    let runtime = runtime()?;
    let _inside = runtime.enter();
    let _interrupts = match &debugger {
        Some(_) => Some(signal(SignalKind::interrupt())?),
        None => None,
    };
    let attach = debugger.map(|words| move |pid| attach(&words, pid));
    // A debugger has the terminal for itself.
    let mut bar = attach
        .is_none()
        .then(|| progress(recording.from.as_ref(), upto));
    let mut told = |slot| {
        if let Some(bar) = &mut bar {
            bar(slot);
        }
    };
    let replayed = replay(recording, &mut host, attach, &mut told)?;
    drop(bar);
    println!("{}", report(&replayed));
    verdict(&replayed, options.until.is_some(), upto).map_err(Into::into)
}

/// Opens the log, and determines the last slot to replay.
fn log_to_replay(
    config: &NodeConfig,
    until: Option<u64>,
    done: &[SlotHashes],
) -> anyhow::Result<(LogReader, u64)> {
    let log = open_log(config)?;
    let last = known_chosen(&log, done);
    match until {
        _ if last == 0 => bail!("the log in {} is empty", config.log_dir().display()),
        Some(until) if until > last => bail!("--until {until}: the log ends at slot {last}"),
        Some(until) => Ok((log, until)),
        None => Ok((log, last)),
    }
}

/// The checkpoint to start from; `None`: the genesis.
fn begin(
    options: &Options,
    config: &NodeConfig,
    scratch: &Path,
    log_begins: u64,
    upto: u64,
) -> anyhow::Result<Option<(Checkpoint, Hold)>> {
    let wished = options.from_checkpoint || options.checkpoints.is_some();
    if log_begins == 1 && !wished {
        return Ok(None);
    }
    if options.gdb || !options.debugger.is_empty() {
        bail!("under a debugger a server starts from its genesis: the log has to begin at slot 1");
    }
    let wanted = Wanted {
        cluster: config.cluster.0,
        identity: identity::checkpoint_identity(config)?,
        upto,
        log_begins: Some(log_begins),
    };
    let own = config.checkpoint_dir();
    let path = options.checkpoints.as_ref().unwrap_or(&own);
    let directories: Vec<Directory> = Directory::existing(path).into_iter().collect();
    start_point(scratch, &directories, &wanted)
}

fn warn_of_changes(config: &NodeConfig) -> anyhow::Result<()> {
    if let Some(what) = identity::change(config)? {
        eprintln!("brolga: {what} changed since the log began; differences may come from that");
    }
    Ok(())
}

/// The server's directory: the user's, which is kept, or a temporary one, which is removed with the guard.
fn scratch(wanted: Option<&Path>) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    match wanted {
        Some(path) => {
            std::fs::create_dir_all(path)
                .with_context(|| format!("cannot create {}", path.display()))?;
            Ok((std::path::absolute(path)?, None))
        }
        None => {
            let dir = tempfile::Builder::new().prefix("brolga-replay-").tempdir();
            let dir = dir.context("cannot create a scratch directory")?;
            Ok((dir.path().to_owned(), Some(dir)))
        }
    }
}

fn debugger(options: &Options) -> Option<Vec<String>> {
    match (options.gdb, options.debugger.is_empty()) {
        (true, _) => Some(GDB.map(str::to_owned).to_vec()),
        (false, false) => Some(options.debugger.clone()),
        (false, true) => None,
    }
}

fn attach(words: &[String], pid: i32) -> io::Result<Child> {
    let pid = pid.to_string();
    let mut words: Vec<String> = words.to_vec();
    if words.iter().any(|word| word.contains("{pid}")) {
        for word in &mut words {
            *word = word.replace("{pid}", &pid);
        }
    } else {
        words.extend(["-p".into(), pid]);
    }
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    Command::new(program)
        .args(arguments)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))
}
