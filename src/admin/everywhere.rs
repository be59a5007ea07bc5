//! What is asked of several nodes of a cluster on this machine, one after the other.

use super::Client;
use crate::cluster::node_dir;
use crate::node::Role;
use anyhow::Context;
use std::path::Path;

/// Has each of `nodes` take a checkpoint, the leader last, and tells `taken` its number and the
/// slot when one is whole.
///
/// # Errors
/// The first node that does not answer, or that takes none and why.
pub async fn checkpoints_now(
    data: &Path,
    nodes: &[u64],
    mut taken: impl FnMut(u64, u64),
) -> anyhow::Result<()> {
    let mut order = Vec::new();
    for node in nodes.iter().copied() {
        let socket = node_dir(data, node).join("admin.sock");
        let client = Client::connect(&socket).await;
        let mut client = client.with_context(|| format!("replica {node} does not answer"))?;
        let leads = client.status().await?.role == Role::Leader;
        order.push((leads, node, client));
    }
    order.sort_by_key(|(leads, node, _)| (*leads, *node));
    for (_, node, mut client) in order {
        let slot = client.checkpoint().await;
        let slot = slot.with_context(|| format!("replica {node} took none"))?;
        taken(node, slot);
    }
    Ok(())
}
