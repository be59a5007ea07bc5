//! `brolga status`: the state of a cluster, or of one node, for people or for programs.

use super::{Outcome, runtime};
use crate::admin::ask_status;
use crate::cluster;
use crate::cluster::status::ClusterStatus;
use anyhow::anyhow;
use brolga_config::{ConfigError, NodeConfig};
use brolga_node::join::CONFIG_NAME;
use brolga_node::{NodeStatus, Role};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Directory of the cluster, or the data directory of one node.
    #[arg(long, value_name = "DIR", default_value = "brolga-data")]
    data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn main(options: &Options) -> Outcome {
    if let Some(config) = one_node(&options.data)? {
        return show_node(&config, options.json);
    }
    let file = cluster::read(&options.data)?;
    let status = runtime()?.block_on(ClusterStatus::collect(&options.data, &file));
    let text = if options.json {
        serde_json::to_string_pretty(&status)? + "\n"
    } else {
        status.to_string()
    };
    std::io::stdout().write_all(text.as_bytes())?;
    // Replicas that are down are a state to be shown; replicas that differ are an error.
    if status.differs() {
        let warning = status.warning.unwrap_or_default();
        return Err(anyhow!("{warning}: keep the data directory and report it").into());
    }
    Ok(())
}

/// The configuration of the node whose data directory this is, if it is one.
fn one_node(data: &Path) -> Result<Option<NodeConfig>, ConfigError> {
    let path = data.join(CONFIG_NAME);
    let is_node = path.exists() && !data.join("cluster.toml").exists();
    is_node.then(|| NodeConfig::load(&path)).transpose()
}

fn show_node(config: &NodeConfig, json: bool) -> Outcome {
    let status = runtime()?.block_on(ask_status(&config.admin_socket()));
    let Some(status) = status else {
        let (node, data) = (config.node, config.data_dir.display());
        return Err(anyhow!("node {node} does not run: brolga node --data {data}").into());
    };
    let text = match json {
        true => serde_json::to_string_pretty(&status)? + "\n",
        false => described(config, &status)?,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn described(config: &NodeConfig, status: &NodeStatus) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let role = match status.role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Searching => "searching",
        Role::Learner => "learner",
    };
    let leader = status.leader.map_or("none".into(), |id| id.to_string());
    writeln!(text, "cluster  {}", status.cluster)?;
    writeln!(text, "server   {}", cluster::shown(&config.command))?;
    writeln!(text, "node     {}, {role}", status.node)?;
    writeln!(text, "leader   {leader}, ballot {}", status.ballot)?;
    let behind = status.last_entry.saturating_sub(status.applied.slot);
    let (chosen, applied) = (status.chosen, status.applied.slot);
    writeln!(
        text,
        "log      chosen {chosen}, applied {applied}, {behind} behind"
    )?;
    for address in status.listeners.iter().chain(&status.datagram_ports) {
        writeln!(text, "serves   {address}")?;
    }
    let quarantine = status.quarantine.as_ref();
    let news = quarantine.map(|it| format!("in quarantine: {}", it.reason));
    for line in news.iter().chain(&status.waiting) {
        writeln!(text, "{line}")?;
    }
    Ok(text)
}
