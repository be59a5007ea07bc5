//! `brolga frontend`: a stand-alone frontend, on the clients' machine.
//!
//! The clients' connections end here, so they survive the failure of any node.

use super::run::Stops;
use super::{Outcome, runtime};
use crate::cluster;
use brolga_config::ClusterId;
use brolga_node::{ProxyConfig, ProxyFrontend};
use std::io::stderr;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use tracing_subscriber::EnvFilter;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory of a cluster on this machine, instead of --cluster and --nodes.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["cluster", "nodes"],
        required_unless_present_all = ["cluster", "nodes"]
    )]
    data: Option<PathBuf>,
    /// The cluster's id, as in the nodes' configurations.
    #[arg(long, value_name = "ID", requires = "nodes")]
    cluster: Option<ClusterId>,
    /// The nodes' `sidecar` addresses.
    #[arg(
        long,
        value_name = "IP:PORT,…",
        value_delimiter = ',',
        requires = "cluster"
    )]
    nodes: Vec<SocketAddr>,
    /// The address on which the server's ports are opened.
    #[arg(long, value_name = "IP")]
    listen: IpAddr,
}

pub fn main(options: &Options) -> Outcome {
    let filter = EnvFilter::try_from_env(super::node::LOG_VARIABLE)
        .unwrap_or_else(|_| EnvFilter::new(super::node::LOG_DEFAULT));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .init();
    let (frontend, handle) = ProxyFrontend::open(config(options)?)?;
    let (runtime, stops) = {
        let runtime = runtime()?;
        let entered = runtime.enter();
        let stops = Stops::new()?;
        drop(entered);
        (runtime, stops)
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut stops = stops;
            runtime.block_on(stops.next());
            handle.shutdown();
        })?;
    Ok(frontend.run()?)
}

fn config(options: &Options) -> Result<ProxyConfig, super::Failure> {
    let (cluster, nodes) = match (&options.data, options.cluster) {
        (Some(data), _) => {
            let file = cluster::read(data)?;
            let nodes = file.members.iter().map(|member| member.sidecar).collect();
            (file.cluster, nodes)
        }
        (None, Some(cluster)) => (cluster, options.nodes.clone()),
        (None, None) => return Err(anyhow::anyhow!("give --data, or --cluster and --nodes").into()),
    };
    Ok(ProxyConfig {
        cluster: cluster.0,
        publish: options.listen,
        nodes,
    })
}
