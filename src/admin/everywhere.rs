//! Requests to several nodes of a local cluster, one after the other.

use super::Client;
use crate::cluster::node_dir;
use anyhow::Context;
use brolga_node::{Role, WriterStatus};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;

/// Between looks at how far one is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Has each of `nodes` take a checkpoint, the leader last. Tells `taking` how far a node is, and
/// `taken` the slot when its checkpoint is whole.
///
/// # Errors
/// The first node that does not answer, or that takes none and why.
pub async fn checkpoints_now(
    data: &Path,
    nodes: &[u64],
    mut taking: impl FnMut(u64, &WriterStatus),
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
        let mut watcher = Client::connect(&node_dir(data, node).join("admin.sock")).await?;
        let mut whole = pin!(client.checkpoint());
        let slot = loop {
            // One that is nearly over is not waited for.
            match timeout(LOOK_EVERY, &mut whole).await {
                Ok(slot) => break slot,
                Err(_) => {
                    let status = watcher.status().await.ok();
                    if let Some(status) = status.and_then(|status| status.taking) {
                        taking(node, &status);
                    }
                }
            }
        };
        let slot = slot.with_context(|| format!("replica {node} took none"))?;
        taken(node, slot);
    }
    Ok(())
}
