//! The fallback frontend: while a node is in quarantine, its clients are served from the other
//! replicas.

use crate::proxy::error::ProxyError;
use crate::proxy::frontend::{ProxyConfig, ProxyFrontend, ProxyHandle};
use brolga_config::NodeConfig;
use std::thread::{self, JoinHandle};

/// A stand-alone frontend at this node's address, attached to the other replicas.
#[derive(Debug)]
pub struct FallbackFrontend {
    handle: ProxyHandle,
    thread: Option<JoinHandle<()>>,
}

impl FallbackFrontend {
    /// Starts it; the node itself must have closed its ports.
    ///
    /// # Errors
    /// The operating system refuses something.
    pub fn start(config: &NodeConfig) -> Result<Self, ProxyError> {
        let others = config.members.iter().filter(|it| it.id != config.node);
        let (frontend, handle) = ProxyFrontend::open(ProxyConfig {
            cluster: config.cluster.0,
            publish: config.publish_address(),
            nodes: others.map(|member| member.sidecar).collect(),
        })?;
        let run = move || {
            if let Err(error) = frontend.run() {
                tracing::warn!(%error, "clients cannot be served from other replicas");
            }
        };
        let thread = thread::Builder::new().name("fallback".into()).spawn(run);
        let thread = thread.map_err(ProxyError::doing("cannot start a thread"))?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }
}

impl Drop for FallbackFrontend {
    fn drop(&mut self) {
        self.handle.shutdown();
        // A panic of the thread has been shown already; its ports are closed either way.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
