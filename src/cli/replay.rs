//! `brolga replay`: a recorded log once more, from the start or from a checkpoint, in a directory of its
//! own.

use super::restore::{beginning, contain_if_possible, repeating};
use super::{Outcome, runtime};
use crate::cluster::restore::Wanted;
use crate::cluster::{self, node_dir};
use anyhow::{Context, anyhow, bail};
use brolga_checkpoint::directory::{Checkpoint, Directory, Hold};
use brolga_config::{Containment, NodeConfig};
use brolga_consensus::journal::{JournalConfig, LogReader};
use brolga_node::{Recording, Replayed, SlotHashes, WrappedServer, recorded_hashes, replay};
use brolga_server_image::identity;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// What gdb is told first: the interposer answers some signals itself, and has no file.
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
    /// Which of its replicas.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "config")]
    node: u64,
    /// A replica's configuration (TOML), instead of a cluster's directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Stop after this slot; otherwise after the last one.
    #[arg(long, value_name = "SLOT", value_parser = clap::value_parser!(u64).range(1..))]
    until: Option<u64>,
    /// Begin at the newest checkpoint before that slot, also if the log goes back to its start.
    #[arg(long)]
    from_checkpoint: bool,
    /// Look for checkpoints in this directory instead of the replica's own; implies --from-checkpoint.
    #[arg(long, value_name = "DIR")]
    checkpoints: Option<PathBuf>,
    /// Let the server work in this directory, which is wiped first and left as it is then.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Random delays of up to this many microseconds, to test determinism.
    #[arg(long, value_name = "N", default_value_t = 0)]
    perturb_us: u32,
    /// Run the server under gdb.
    #[arg(long)]
    gdb: bool,
    /// A debugger with its arguments; `-p PID` follows, or `{pid}` is replaced. The server waits before
    /// its main function until it is traced, and gets a SIGTRAP when the last slot is done.
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
    let (log, upto) = open_log(&config, options.until, &hashes)?;
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
        .then(|| repeating(recording.from.as_ref(), upto));
    let mut told = |slot| {
        if let Some(bar) = &mut bar {
            bar(slot);
        }
    };
    let replayed = replay(recording, &mut host, attach, &mut told)?;
    drop(bar);
    println!("{}", account(&replayed));
    judge(&replayed, options.until.is_some(), upto).map_err(Into::into)
}

/// The log of a node.
pub(super) fn log_of(config: &NodeConfig) -> anyhow::Result<LogReader> {
    Ok(LogReader::open(JournalConfig {
        dir: config.log_dir(),
        cluster: config.cluster.0,
        node: config.node,
        segment_bytes: config.log_segment_bytes,
    })?)
}

/// The last slot that is known to be chosen: what was voted for may never have been done by anyone. The
/// log notes that a little late, so that its last slots may only be known from what the server has
/// done with them.
pub(super) fn known_chosen(log: &LogReader, done: &[SlotHashes]) -> u64 {
    let done = done.last().map_or(0, |hashes| hashes.slot);
    log.commit().max(done.min(log.accepted()))
}

/// The log, and the last slot of it that is to be replayed.
fn open_log(
    config: &NodeConfig,
    until: Option<u64>,
    done: &[SlotHashes],
) -> anyhow::Result<(LogReader, u64)> {
    let log = log_of(config)?;
    let last = known_chosen(&log, done);
    match until {
        _ if last == 0 => bail!("the log in {} is empty", config.log_dir().display()),
        Some(until) if until > last => bail!("--until {until}: the log ends at slot {last}"),
        Some(until) => Ok((log, until)),
        None => Ok((log, last)),
    }
}

/// Where the server begins; `None`: at its genesis.
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
        bail!("under a debugger a server begins at its genesis: the log has to begin at slot 1");
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
    beginning(scratch, &directories, &wanted)
}

fn warn_of_changes(config: &NodeConfig) -> anyhow::Result<()> {
    if let Some(what) = identity::change(config)? {
        eprintln!("brolga: {what} changed since the log began; differences may come from that");
    }
    Ok(())
}

/// Where the server works. A directory of the user's stays, one of our own goes with what is returned.
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

pub(super) fn account(replayed: &Replayed) -> String {
    let Replayed {
        slots,
        last,
        began,
        took,
        bytes,
        ..
    } = replayed;
    let seconds = took.max(&Duration::from_micros(1)).as_secs_f64();
    format!(
        "the server was there after {:.3} s\n\
         replayed {slots} slots in {:.3} s: {:.0} slots per second, {:.1} MiB per second\n\
         slot {}: output hash {:016x}, schedule hash {:016x}",
        began.as_secs_f64(),
        took.as_secs_f64(),
        *slots as f64 / seconds,
        *bytes as f64 / seconds / f64::from(1 << 20),
        last.slot,
        last.output_hash,
        last.schedule_hash
    )
}

pub(super) fn judge(replayed: &Replayed, bounded: bool, upto: u64) -> anyhow::Result<()> {
    let Replayed {
        slots,
        equal,
        ended,
        debugger,
        ..
    } = replayed;
    if let Some((recorded, now)) = replayed.difference {
        let what = difference(&recorded, &now);
        return Err(anyhow!(
            "slot {} is the first that is not as it was recorded: {what}; {equal} before it are equal",
            now.slot
        ));
    }
    match equal {
        0 => println!("no hashes were recorded for these slots: nothing to compare with"),
        all if all == slots => println!("all hashes are as they were recorded"),
        some => println!(
            "the hashes of {some} slots are as they were recorded; {} were not recorded",
            slots - some
        ),
    }
    match ended {
        Some(how) if debugger.is_none() => {
            let last = replayed.last.slot;
            println!("after slot {last} of {upto} the server ended: {how}");
        }
        _ if bounded && debugger.is_none() => println!("stopped after slot {upto}, as wanted"),
        _ => {}
    }
    Ok(())
}

fn difference(recorded: &SlotHashes, now: &SlotHashes) -> String {
    let mut parts = Vec::new();
    let pairs = [
        ("output", recorded.output_hash, now.output_hash),
        ("schedule", recorded.schedule_hash, now.schedule_hash),
    ];
    for (what, recorded, now) in pairs {
        if recorded != now {
            parts.push(format!("{what} hash {now:016x}, recorded {recorded:016x}"));
        }
    }
    parts.join("; ")
}
