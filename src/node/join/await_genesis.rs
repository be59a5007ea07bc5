//! A member without the files that the server starts with gets them from another one.
//!
//! The member asks one after the other, before it does anything else, and waits for as long as none
//! has them: a node that began without would only have to be started anew. What came is named when
//! it is complete.
//!
//! Deliberately absent: a check that the files are those of the others. Nodes compare them when
//! they connect, as always.

use super::joiner::{ask, fetch_genesis, lock, reach};
use super::wire::{ClusterInfo, Request};
use anyhow::{Context, ensure};
use brolga_config::{Member, NodeConfig};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Time between two rounds of requests.
const PAUSE: Duration = Duration::from_millis(500);

/// Gets the genesis of a node that is to fetch it; returns when it is there. What keeps it from
/// that goes to the log, once each.
///
/// # Errors
/// The data directory cannot be used.
pub fn await_genesis(config: &mut NodeConfig) -> anyhow::Result<()> {
    let _lock = lock(&config.data_dir)?;
    let to = config.fetched_genesis();
    let mut told = BTreeMap::new();
    loop {
        let others = config.members.iter().filter(|it| it.id != config.node);
        for member in others {
            match get_from(member, config, &to) {
                Ok(()) => {
                    tracing::info!(from = member.id, "the genesis was fetched");
                    config.find_fetched_genesis();
                    return Ok(());
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    if told.get(&member.id) != Some(&why) {
                        tracing::warn!(from = member.id, "no genesis yet: {why}");
                        told.insert(member.id, why);
                    }
                }
            }
        }
        thread::sleep(PAUSE);
    }
}

fn get_from(member: &Member, config: &NodeConfig, to: &Path) -> anyhow::Result<()> {
    let mut socket = reach(&member.peer.to_string())?;
    let info = ask(&mut socket, Request::ClusterInfo)?;
    let info: ClusterInfo = serde_json::from_slice(&info).context("malformed answer")?;
    let theirs = info.config()?;
    ensure!(
        theirs.cluster == config.cluster,
        "it is of the cluster {}",
        theirs.cluster
    );
    ensure!(theirs.genesis.is_some(), "it has none");
    fetch_genesis(&mut socket, to)?;
    // What is in it was synced when it came.
    let parent = to.parent().unwrap_or(Path::new("/"));
    let synced = fs::File::open(parent).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("cannot sync {}", parent.display()))
}
