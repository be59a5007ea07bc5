//! `brolga run`: a whole cluster on this machine, in the foreground.

use super::renamed::RenamedFlags;
use super::{Failure, Outcome, runtime};
use crate::cluster::status::ClusterStatus;
use crate::cluster::supervisor::{Event, Supervisor};
use crate::cluster::{Cluster, Plan};
use anyhow::{anyhow, bail};
use brolga_checkpoint::Compression;
use brolga_config::{Containment, Policy, defaults};
use brolga_node::NodeStatus;
use brolga_server_image::elf;
use brolga_server_image::launch::SERVER_PATH;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::ffi::OsString;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

/// The interval between status requests while the cluster starts.
const ASK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Number of replicas.
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// Directory of the cluster: created, or reused with the same command.
    #[arg(long, value_name = "DIR", default_value = "brolga-data")]
    data: PathBuf,
    /// Initial content of the server's working directory.
    #[arg(long, value_name = "DIR")]
    genesis: Option<PathBuf>,
    /// Use DIR as the servers' root file system (implies --container required).
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Add a variable to the server's environment, which is otherwise a small fixed one.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// One address per replica instead of 127.0.0.1, .2, .3 …
    #[arg(long, value_name = "IP,IP,…", value_delimiter = ',')]
    addresses: Vec<IpAddr>,
    /// Inject random delays of up to N microseconds into the servers, to test determinism.
    #[arg(long, value_name = "N", default_value_t = 0)]
    perturb_us: u32,
    /// Let the server connect to this machine's loopback addresses; by default it finds only itself there.
    #[arg(long)]
    host_loopback: bool,
    /// Do not filter system calls that bypass the interposer; replicas may then diverge.
    #[arg(long)]
    no_syscall_filter: bool,
    /// Publish a UNIX socket of the server (its path as the server names it) to clients, on each node as
    /// DATA/node-N/sockets/NAME. Can be given up to four times.
    #[arg(long, value_name = "PATH")]
    unix: Vec<String>,
    /// Scheduling policy. serial: the server's threads run one at a time. parallel: concurrently between
    /// ordered operations, for programs without data races.
    #[arg(long, value_enum, default_value_t)]
    policy: Policy,
    /// Hold output back until a majority of the replicas has computed the same.
    #[arg(long)]
    vote: bool,
    /// Run the servers in containers, which checkpoints need (as root, with CRIU).
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Containment::None)]
    container: Containment,
    /// Take a checkpoint every SECONDS, if the log has grown; 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    checkpoint_every: u64,
    /// Take a checkpoint when the log has grown by MIB; 0: never [default: 256 with containers].
    #[arg(long, value_name = "MIB")]
    checkpoint_log_mib: Option<u64>,
    /// Limit the transfer of checkpoints to other nodes, in MiB per second; 0: no limit.
    #[arg(long, value_name = "MIB", default_value_t = defaults::checkpoint_transfer_mib_s())]
    checkpoint_transfer_mib_s: u64,
    /// Compress checkpoints: none, zstd or zstd:LEVEL.
    #[arg(long, value_name = "HOW", default_value_t = Compression::None)]
    checkpoint_compression: Compression,
    /// Do not restart nodes that exit.
    #[arg(long)]
    no_restart: bool,
    #[command(flatten)]
    renamed: RenamedFlags,
    /// The server and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn main(options: Options) -> Outcome {
    let restart = !options.no_restart;
    let (every, log_mib) = (options.checkpoint_every, options.checkpoint_log_mib);
    let transfer = options.checkpoint_transfer_mib_s;
    let compression = options.checkpoint_compression;
    let plan = plan(options)?;
    if plan.root.is_none() {
        let argv: Vec<OsString> = plan.command.iter().map(Into::into).collect();
        elf::check_program(&argv, SERVER_PATH)?;
    }
    let cluster = Cluster::open_or_create(&plan)?;
    let unusual = every > 0
        || log_mib.is_some()
        || transfer != defaults::checkpoint_transfer_mib_s()
        || compression != Compression::None;
    for member in cluster.file().members.iter().filter(|_| unusual) {
        cluster.reconfigure(member.id, |config| {
            config.checkpoint_every_s = every;
            config.checkpoint_log_mib = log_mib;
            config.checkpoint_transfer_mib_s = transfer;
            config.checkpoint_compression = compression;
        })?;
    }
    runtime()?
        .block_on(serve(&cluster, restart))
        .map_err(Failure::from)
}

fn plan(options: Options) -> anyhow::Result<Plan> {
    let mut command = options.command;
    let root = options.root.map(std::path::absolute).transpose()?;
    if let Some(name) = command.first_mut().filter(|_| root.is_none()) {
        *name = program_for_nodes(name)?;
    }
    Ok(Plan {
        data: options.data,
        replicas: options.replicas,
        addresses: options.addresses,
        genesis: options.genesis,
        env: options.env,
        perturb_us: options.perturb_us,
        host_loopback: options.host_loopback,
        syscall_filter: !options.no_syscall_filter,
        unix_sockets: options.unix,
        vote: options.vote,
        container: match root {
            Some(_) => Containment::Required,
            None => options.container,
        },
        root,
        policy: options.policy,
        command,
    })
}

/// A program name that a node resolves to the same file: nodes have another working directory and search
/// path.
pub(super) fn program_for_nodes(name: &str) -> anyhow::Result<String> {
    if !name.contains('/') && elf::find(name.as_ref(), SERVER_PATH).is_ok() {
        return Ok(name.to_owned());
    }
    let search_path = std::env::var("PATH").unwrap_or_else(|_| SERVER_PATH.into());
    let path = std::path::absolute(elf::find(name.as_ref(), &search_path)?)?;
    match path.to_str() {
        Some(path) => Ok(path.to_owned()),
        None => bail!("{}: the path of the program is not UTF-8", path.display()),
    }
}

async fn serve(cluster: &Cluster, restart: bool) -> anyhow::Result<()> {
    let mut stops = Stops::new()?;
    let mut supervisor = Supervisor::start(cluster, restart)?;
    let outcome = tokio::select! {
        outcome = attend(cluster, &mut supervisor) => outcome,
        () = stops.next() => Ok(()),
    };
    supervisor.stop().await;
    outcome
}

/// Prints events until one is fatal.
async fn attend(cluster: &Cluster, supervisor: &mut Supervisor) -> anyhow::Result<()> {
    let progress = progress();
    let cluster_status = tokio::select! {
        cluster_status = wait_until_ready(cluster, &progress) => cluster_status,
        error = first_failure(supervisor, &progress) => {
            progress.finish_and_clear();
            return Err(error);
        }
    };
    supervisor.note_up();
    progress.finish_and_clear();
    say(&welcome(cluster, &cluster_status));
    while let Some(event) = supervisor.event().await {
        if let Event::Failed { node, why } = event {
            bail!("replica {node}: {why}");
        }
        say(&line_for(&event));
    }
    Err(anyhow!("no replica is left"))
}

async fn wait_until_ready(cluster: &Cluster, progress: &ProgressBar) -> ClusterStatus {
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let cluster_status = ClusterStatus::collect(cluster.data(), cluster.file()).await;
        if cluster_status.ready() {
            return cluster_status;
        }
        progress.set_message(stage(&cluster_status));
    }
}

/// The current stage of the start.
fn stage(cluster_status: &ClusterStatus) -> String {
    let all = cluster_status.replicas.len();
    let listening = cluster_status
        .replicas
        .iter()
        .filter(|replica| replica.status.as_ref().is_some_and(NodeStatus::is_open))
        .count();
    if cluster_status.alive < all {
        format!("{} of {all} replicas started", cluster_status.alive)
    } else if cluster_status.leader.is_none() {
        "electing a leader".into()
    } else {
        format!("{listening} of {all} servers listen")
    }
}

/// Waits for a failure; other events are printed as they come.
async fn first_failure(supervisor: &mut Supervisor, progress: &ProgressBar) -> anyhow::Error {
    while let Some(event) = supervisor.event().await {
        match event {
            Event::Failed { node, why } => return anyhow!("replica {node}: {why}"),
            Event::Started { .. } => {}
            Event::Died { .. } => progress.suspend(|| say(&line_for(&event))),
        }
    }
    anyhow!("no replica is left")
}

fn progress() -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn welcome(cluster: &Cluster, cluster_status: &ClusterStatus) -> String {
    let mut text = format!(
        "cluster {} in {}\n",
        cluster_status.cluster,
        cluster.data().display()
    );
    for replica in &cluster_status.replicas {
        let mut listeners: Vec<String> = Vec::new();
        if let Some(status) = &replica.status {
            listeners.extend(status.listeners.iter().map(ToString::to_string));
            let datagrams = status.datagram_ports.iter();
            listeners.extend(datagrams.map(|address| format!("{address} (UDP)")));
        }
        let mark = if cluster_status.leader == Some(replica.id) {
            "  (leader)"
        } else {
            ""
        };
        text += &format!(
            "replica {} listens on {}{mark}\n",
            replica.id,
            listeners.join(" ")
        );
    }
    text + "Ctrl-C stops all of them."
}

fn line_for(event: &Event) -> String {
    match event {
        Event::Started { node, pid } => format!("replica {node} started (process {pid})"),
        Event::Died {
            node,
            how,
            again_in: Some(pause),
        } => {
            format!(
                "replica {node} {how}; starting it again in {} ms",
                pause.as_millis()
            )
        }
        Event::Died {
            node,
            how,
            again_in: None,
        } => format!("replica {node} {how}"),
        Event::Failed { node, why } => format!("replica {node} cannot work: {why}"),
    }
}

/// Prints a line. A closed standard output is no reason to stop the cluster.
fn say(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}

/// The signals by which a user stops a program.
pub(super) struct Stops {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Stops {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
