//! The node: all rooms wired together, and the main loop.

use crate::checkpoint::procedure::Checkpoints;
use crate::checkpoint::restore::StartPoint;
use crate::clients::Clients;
use crate::divergence::hash_log::HashLog;
use crate::divergence::monitor::Monitor;
use crate::divergence::quarantine::Quarantine;
use crate::error::NodeError;
use crate::event_loop::opening;
use crate::event_loop::sources::{Sources, TIMER, WAKER};
use crate::join::JoinHandler;
use crate::ordering::Ordering;
use crate::ordering::proposer::ProposerConfig;
use crate::peers::Peers;
use crate::peers::compatibility::Compatibility;
use crate::peers::learners::Learners;
use crate::peers::links::Links;
use crate::proxy::server::{ProxyServer, Request};
use crate::server::lifecycle::Server;
use crate::server::process::ServerHost;
use crate::status::NodeHandle;
use crate::transfer::{Coordinator, TransferState};
use brolga_checkpoint::{Directory, ServerFingerprint};
use brolga_config::NodeConfig;
use brolga_os::timer::Timer;
use mio::{Events, Poll, Waker};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ready descriptors taken from the kernel at once.
const EVENTS_MAX: usize = 1024;

/// Everything that is carried over when a node restarts within its process: what was given to it,
/// and what other threads hold the other end of.
struct Carryover<H> {
    config: NodeConfig,
    identity: ServerFingerprint,
    host: H,
    sources: Sources,
    waker: Arc<Waker>,
    transfer: TransferState,
}

/// The reason why the main loop has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The node was asked to stop.
    Asked,
    /// The node has fetched a checkpoint.
    ToRestart,
}

/// Stand-alone frontends that are attached to this node.
#[derive(Debug)]
pub(super) struct Proxies {
    pub(super) server: ProxyServer,
    /// Their requests that are not on their way yet.
    pub(super) requests: Vec<Request>,
    /// The time at which the leader is told which ones are attached.
    pub(super) report_at: Option<Instant>,
}

/// A replica: all rooms of the node, wired together. [`Node::run`] is the main loop.
pub struct Node<H> {
    pub(super) config: NodeConfig,
    pub(super) sources: Sources,
    pub(super) links: Links,
    pub(super) peers: Peers,
    pub(super) joins: JoinHandler,
    pub(super) server: Server<H>,
    pub(super) clients: Clients,
    pub(super) proxies: Proxies,
    pub(super) ordering: Ordering,
    pub(super) monitor: Monitor,
    pub(super) hash_log: HashLog,
    pub(super) checkpoints: Checkpoints,
    pub(super) transfer: Coordinator,
}

impl<H> std::fmt::Debug for Node<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.config.node)
            .finish_non_exhaustive()
    }
}

impl<H: ServerHost> Node<H> {
    /// Opens the log and the links. The server is started by [`Node::run`]. `identity` is what a
    /// checkpoint has to be of to be restored here.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn open(
        config: NodeConfig,
        identity: ServerFingerprint,
        host: H,
    ) -> Result<(Self, NodeHandle), NodeError> {
        let system = NodeError::doing;
        let poll = Poll::new().map_err(system("cannot create a poll"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(system("cannot create a waker"))?;
        let waker = Arc::new(waker);
        let timer = Timer::new(poll.registry(), TIMER).map_err(system("cannot create a timer"))?;
        let (handle, queries) = NodeHandle::new(Arc::clone(&waker));
        let carryover = Carryover {
            config,
            identity,
            host,
            sources: Sources {
                poll,
                timer,
                queries,
            },
            waker,
            transfer: TransferState::default(),
        };
        Ok((Self::assemble(carryover)?, handle))
    }

    fn assemble(carryover: Carryover<H>) -> Result<Self, NodeError> {
        let Carryover {
            config,
            identity,
            host,
            sources,
            waker,
            transfer,
        } = carryover;
        let replica = opening::replica(&config, &sources.poll, &waker)?;
        opening::forget_that_it_is_new(&config)?;
        let directory = Directory::open(config.checkpoint_dir())?;
        let compatibility = Compatibility::new(&config, identity.clone());
        let source = (directory.clone(), identity.clone());
        let transfer = Coordinator::new(&config, source, Arc::clone(&waker), transfer);
        let checkpoints = Checkpoints::open(directory, identity, &config, waker);
        let frontend = opening::frontend(&config, &sources.poll)
            .map_err(NodeError::doing("cannot open the frontend"))?;
        let proxies = Proxies {
            server: opening::proxy_server(&config, &sources.poll)?,
            requests: Vec::new(),
            report_at: None,
        };
        let ordering = Ordering::new(ProposerConfig {
            clocks_per_event: config.clocks_per_event,
            bubble_wait: Duration::from_micros(config.bubble_wait_us),
        });
        let monitor = Monitor::new(&config, Quarantine::load(&config.data_dir)?);
        let peers = Peers {
            compatibility,
            learners: Learners::default(),
        };
        Ok(Self {
            links: Links::new(config.node, replica, config.others(), Instant::now()),
            joins: JoinHandler::new(&config),
            server: Server::new(host, &config, frontend.id()),
            clients: Clients::new(frontend),
            hash_log: HashLog::open(&config.data_dir),
            sources,
            peers,
            proxies,
            ordering,
            monitor,
            checkpoints,
            transfer,
            config,
        })
    }

    /// Ends everything but what is carried over, and starts again.
    fn restart(self) -> Result<Self, NodeError> {
        let Self {
            config,
            sources,
            links,
            server,
            clients,
            proxies,
            monitor,
            hash_log,
            checkpoints,
            transfer,
            ..
        } = self;
        // The server goes before its host is used again, sockets and files before their names are.
        let host = server.into_host();
        drop((clients, proxies, monitor, hash_log));
        links.replica.close();
        let (identity, waker) = checkpoints.into_carryover();
        let transfer = transfer.into_state();
        Self::assemble(Carryover {
            config,
            identity,
            host,
            sources,
            waker,
            transfer,
        })
    }

    /// Starts the server and works until asked to stop.
    ///
    /// The calling thread is the server's parent: it must not end before this returns.
    ///
    /// # Errors
    /// See [`NodeError`]; the server is stopped then.
    pub fn run(mut self) -> Result<(), NodeError> {
        while self.serve()? == Ended::ToRestart {
            tracing::info!("the node restarts with the checkpoint that was fetched");
            self = self.restart()?;
        }
        tracing::info!("asked to stop");
        self.links.replica.close();
        Ok(())
    }

    fn serve(&mut self) -> Result<Ended, NodeError> {
        if let Some(quarantine) = self.monitor.quarantine() {
            tracing::warn!(
                slot = quarantine.slot,
                "in quarantine: {}",
                quarantine.reason
            );
            self.stand_aside(Instant::now())?;
        }
        if self.restore_server(true, u64::MAX)? == StartPoint::FromGenesis {
            self.start_server()?;
        }
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut wait = Some(Duration::ZERO);
        loop {
            match self.sources.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                Err(source) => {
                    return Err(NodeError::System {
                        doing: "cannot poll",
                        source,
                    });
                }
                Ok(()) => {}
            }
            let now = Instant::now();
            if self.take_ready(&events, now)? {
                return Ok(Ended::Asked);
            }
            self.iterate(now)?;
            if self.advance_transfer(now)? {
                return Ok(Ended::ToRestart);
            }
            wait = self.prepare_sleep(now)?;
        }
    }
}
