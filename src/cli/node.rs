//! `brolga node`: one replica, in the foreground; with `--join` a learner on a fresh machine.

use super::{Failure, Outcome};
use crate::admin;
use crate::cluster::supervisor::EXPLAINED;
use anyhow::Context;
use brolga_config::{Containment, NodeConfig};
use brolga_node::{Node, WrappedServer, join};
use brolga_server_image::identity;
use std::fs::OpenOptions;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

/// The environment variable with the log filter.
pub(super) const LOG_VARIABLE: &str = "BROLGA_LOG";
pub(super) const LOG_DEFAULT: &str = "info";

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The replica's configuration (TOML).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "join"])]
    #[arg(required_unless_present_any = ["data", "join"])]
    config: Option<PathBuf>,
    /// The replica's data directory, which holds its configuration.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Join the cluster of the member with this peer address as a learner: a replica that follows the log
    /// and does not vote. Needed at the first start only.
    #[arg(long, value_name = "HOST:PORT", requires = "data")]
    join: Option<String>,
    /// The address on which a new learner opens the server's ports; by default the one from which it
    /// reaches the member.
    #[arg(long, value_name = "IP", requires = "join")]
    listen: Option<IpAddr>,
    /// Run the server of a new learner in a container; by default as the member does.
    #[arg(long, value_name = "WHEN", value_enum, requires = "join")]
    container: Option<Containment>,
}

pub fn main(options: &Options) -> Outcome {
    // An error with a reason needs the user: a restart would not help.
    config_of(options)
        .and_then(|config| run(&config))
        .map_err(|error| Failure {
            error,
            code: EXPLAINED,
        })
}

fn config_of(options: &Options) -> anyhow::Result<PathBuf> {
    match options {
        Options {
            join: Some(member),
            data: Some(data),
            ..
        } => join::join(&join::JoinOptions {
            member: member.clone(),
            data: data.clone(),
            listen: options.listen,
            container: options.container,
        }),
        Options {
            config: Some(config),
            ..
        } => Ok(config.clone()),
        Options {
            data: Some(data), ..
        } => Ok(data.join(join::CONFIG_NAME)),
        // The command line's definition does not let that happen.
        Options { .. } => anyhow::bail!("give --config, --data or --join"),
    }
}

fn run(path: &Path) -> anyhow::Result<()> {
    let mut config = NodeConfig::load(path)?;
    let lacks_genesis = config.fetch_genesis && config.genesis.is_none();
    if lacks_genesis {
        let dir = &config.data_dir;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        log_to(&config)?;
        join::await_genesis(&mut config)?;
    }
    let lock = identity::claim(&config)?;
    if !lacks_genesis {
        log_to(&config)?;
    }
    tracing::info!(node = config.node, cluster = %config.cluster, "starting");
    let socket = config.admin_socket();
    let host = WrappedServer::new(&config);
    let (node, handle) = Node::open(config, lock.checkpoint_identity(), host)?;
    admin::serve(&socket, Arc::new(handle))
        .with_context(|| format!("cannot answer at {}", socket.display()))?;
    let outcome = node.run();
    match &outcome {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => tracing::error!("{error}"),
    }
    // A socket that is there must belong to a node that answers.
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::warn!(%error, "cannot remove the admin socket");
    }
    Ok(outcome?)
}

fn log_to(config: &NodeConfig) -> anyhow::Result<()> {
    let path = config.data_dir.join("node.log");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write the log file {}", path.display()))?;
    let wanted = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| LOG_DEFAULT.into());
    let filter = EnvFilter::try_new(&wanted)
        .with_context(|| format!("{LOG_VARIABLE}={wanted} is not a log filter"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(file)
        .init();
    Ok(())
}
