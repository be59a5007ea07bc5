//! Opening of what a node is assembled from, with the settings and poll tokens that each gets.

use crate::clients::frontend::{Frontend, Tokens};
use crate::clients::unix_sockets::UnixSockets;
use crate::error::NodeError;
use crate::event_loop::sources::{
    FIRST_CLIENT_TOKEN, FIRST_DATAGRAM_TOKEN, FIRST_LISTENER_TOKEN, FIRST_PROXY_TOKEN,
    FIRST_REPLICA_TOKEN, PROXY_LISTENER,
};
use crate::proxy::server::ProxyServer;
use brolga_config::NodeConfig;
use brolga_consensus::{Replica, ReplicaConfig};
use brolga_os::sys;
use mio::{Poll, Waker};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Removes the mark of a new node: from now on an empty log is one that was lost.
pub(super) fn forget_that_it_is_new(config: &NodeConfig) -> Result<(), NodeError> {
    match std::fs::remove_file(config.new_mark()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(NodeError::doing(
            "cannot remove the mark of a new node",
        )(error)),
        _ => Ok(()),
    }
}

/// Opens the log and the links.
pub(super) fn replica(
    config: &NodeConfig,
    poll: &Poll,
    waker: &Arc<Waker>,
) -> Result<Replica, NodeError> {
    let waker = Arc::clone(waker);
    let wake = Arc::new(move || {
        // The descriptor lives as long as the closure; there is nobody to tell of a failure.
        let _ = waker.wake();
    });
    let replica = Replica::open(
        replica_config(config),
        poll.registry(),
        FIRST_REPLICA_TOKEN,
        wake,
    );
    Ok(replica?)
}

fn replica_config(config: &NodeConfig) -> ReplicaConfig {
    let [least, most] = config.election_timeout_ms;
    ReplicaConfig {
        cluster: config.cluster.0,
        id: config.node,
        members: config
            .members
            .iter()
            .map(|member| (member.id, member.peer))
            .collect(),
        dir: config.log_dir(),
        heartbeat: Duration::from_millis(config.heartbeat_ms),
        election_timeout_min: Duration::from_millis(least),
        election_timeout_max: Duration::from_millis(most),
        new_cluster: config.new_mark().exists(),
        segment_bytes: config.log_segment_bytes,
    }
}

/// Listens for stand-alone frontends.
pub(super) fn proxy_server(config: &NodeConfig, poll: &Poll) -> Result<ProxyServer, NodeError> {
    let registry = poll.registry().try_clone();
    let registry = registry.map_err(NodeError::doing("cannot clone the poll"))?;
    let address = config.place().sidecar;
    ProxyServer::open(address, registry, PROXY_LISTENER, FIRST_PROXY_TOKEN)
        .map_err(|source| NodeError::ProxyListen { address, source })
}

/// Returns a frontend without clients.
pub(super) fn frontend(config: &NodeConfig, poll: &Poll) -> io::Result<Frontend> {
    let registry = || poll.registry().try_clone();
    let registries = [registry()?, registry()?, registry()?, registry()?];
    let tokens = Tokens {
        listeners: FIRST_LISTENER_TOKEN,
        datagrams: FIRST_DATAGRAM_TOKEN,
        clients: FIRST_CLIENT_TOKEN,
    };
    let id = sys::random_u64()?;
    let node = config.node;
    let mut frontend = Frontend::new(id, node, config.publish_address(), registries, tokens);
    frontend.publish_unix(UnixSockets::new(config.unix_dir(), config.unix_paths()));
    Ok(frontend)
}
