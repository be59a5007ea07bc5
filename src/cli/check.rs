//! `brolga check`: runs a server's replicas in perturbed environments and reports the first divergence.

use super::run::program_for_nodes;
use super::{Outcome, runtime};
use crate::check::{Check, Load, Verdict};
use crate::cluster::Plan;
use anyhow::{Context, anyhow};
use brolga_config::{Containment, Policy};
use brolga_server_image::elf;
use brolga_server_image::launch::SERVER_PATH;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// The time for which a server without a load is watched, in seconds.
const WATCH_SECONDS: u64 = 5;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Number of replicas.
    #[arg(long, value_name = "N", default_value_t = 3)]
    replicas: usize,
    /// A shell command that talks to the server and ends; `{address}`, `{port}`, `{ports}`,
    /// `{addresses}` and `{client}` in it are replaced, and in its environment as `BROLGA_PORT` etc.
    #[arg(long, value_name = "COMMAND")]
    load: Option<String>,
    /// The number of concurrent loads, each with another replica.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Repeat the load for N seconds; without a load, watch the server for N seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// The number of runs, each on a new cluster.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The seed of the perturbations, to repeat an earlier check.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The directory for the clusters; by default a temporary one. It is kept after a divergence.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Initial content of the server's working directory.
    #[arg(long, value_name = "DIR")]
    genesis: Option<PathBuf>,
    /// Add a variable to the server's environment.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// One address per replica instead of 127.0.0.1, .2, .3 …
    #[arg(long, value_name = "IP,IP,…", value_delimiter = ',')]
    addresses: Vec<IpAddr>,
    /// Let the server connect to this machine's loopback addresses.
    #[arg(long)]
    host_loopback: bool,
    /// Scheduling policy of the server's threads.
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = Policy::Serial)]
    policy: Policy,
    /// Run the servers in containers.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Containment::None)]
    container: Containment,
    /// The server and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub fn main(options: Options) -> Outcome {
    let seed = options.seed.unwrap_or_else(seed_by_clock);
    let runs = options.runs;
    let (data, temporary) = directory(options.data.clone())?;
    let check = check(options, data.clone(), seed)?;
    let argv: Vec<OsString> = check.plan.command.iter().map(Into::into).collect();
    elf::check_program(&argv, SERVER_PATH)?;
    let replicas = check.plan.replicas;
    let outcome = runtime()?.block_on(check.run(|line| eprintln!("{line}")));
    match outcome {
        Ok(Verdict::Alike(found)) => {
            println!(
                "no divergence in {} slots ({replicas} replicas, {runs} runs, {} replays, {} records \
                 compared, seed {seed})",
                found.slots, found.replays, found.records
            );
            Ok(())
        }
        Ok(Verdict::Diverged(found)) => {
            println!("{found}");
            let kept = keep(data, temporary);
            let kept = kept.display();
            Err(anyhow!("replicas differ (seed {seed}); the data stay in {kept}").into())
        }
        Err(error) => {
            let kept = keep(data, temporary);
            Err(error
                .context(format!("no answer (see {})", kept.display()))
                .into())
        }
    }
}

fn check(options: Options, data: PathBuf, seed: u64) -> anyhow::Result<Check> {
    let mut command = options.command;
    if let Some(name) = command.first_mut() {
        *name = program_for_nodes(name)?;
    }
    let seconds = match (options.seconds, &options.load) {
        (Some(seconds), _) => seconds,
        (None, Some(_)) => 0,
        (None, None) => WATCH_SECONDS,
    };
    Ok(Check {
        plan: Plan {
            syscall_filter: true,
            unix_sockets: Vec::new(),
            data,
            replicas: options.replicas,
            addresses: options.addresses,
            genesis: options.genesis,
            root: None,
            env: options.env,
            perturb_us: 0,
            host_loopback: options.host_loopback,
            vote: false,
            policy: options.policy,
            container: options.container,
            command,
        },
        load: Load {
            command: options.load,
            clients: options.clients,
            most: Duration::from_secs(seconds),
        },
        runs: options.runs,
        seed,
    })
}

fn directory(wanted: Option<PathBuf>) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    if let Some(data) = wanted {
        return Ok((std::path::absolute(data)?, None));
    }
    let dir = tempfile::Builder::new().prefix("brolga-check-").tempdir();
    let dir = dir.context("cannot create a temporary directory")?;
    Ok((dir.path().to_owned(), Some(dir)))
}

fn keep(data: PathBuf, temporary: Option<TempDir>) -> PathBuf {
    temporary.map_or(data, TempDir::keep)
}

fn seed_by_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_nanos() as u64 % 1_000_000_000
}
