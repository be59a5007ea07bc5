//! The reactor: one `mio` poll, one thread.

use crate::checkpoint::procedure::Checkpoints;
use crate::checkpoint::restore::StartPoint;
use crate::clients::connection_table::Conns;
use crate::clients::frontend::{Frontend, Tokens};
use crate::clients::unix_sockets::UnixSockets;
use crate::divergence::hash_log::HashLog;
use crate::divergence::monitor::Monitor;
use crate::divergence::quarantine::Quarantine;
use crate::error::NodeError;
use crate::join::JoinHandler;
use crate::ordering::leader_link::Upstream;
use crate::ordering::operator_signals::Operator;
use crate::ordering::proposer::{Knobs, Proposer};
use crate::peers::compatibility::Company;
use crate::peers::learners::Learners;
use crate::proxy::server::{Handshake, ProxyServer, Request};
use crate::server::feeder::Feeder;
use crate::server::output::Output;
use crate::server::process::{Process, ServerHost};
use crate::server::tape::TapeMap;
use crate::server::traces::TraceFile;
use crate::status::{NodeHandle, Query};
use crate::transfer::{Coordinator, TransferState};
use brolga_checkpoint::{Directory, ServerFingerprint};
use brolga_config::NodeConfig;
use brolga_consensus::{Ballot, Event as ReplicaEvent, NodeId, Replica, ReplicaConfig};
use brolga_os::sys;
use brolga_os::timer::Timer;
use mio::{Events, Poll, Token, Waker};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

pub(crate) const WAKER: Token = Token(0);
pub(crate) const TIMER: Token = Token(1);
pub(crate) const DOORBELL: Token = Token(2);
pub(crate) const PROCESS: Token = Token(3);
const PROXY_LISTENER: Token = Token(4);
/// Tokens of the links between nodes start here.
const FIRST_REPLICA_TOKEN: usize = 1 << 10;
/// Tokens of proxies' wires start here.
const FIRST_PROXY_TOKEN: usize = 1 << 19;
/// One token for each port that the server can listen on.
const FIRST_LISTENER_TOKEN: usize = 1 << 20;
/// One token for each port at which the server can take datagrams, and some more.
const FIRST_DATAGRAM_TOKEN: usize = FIRST_LISTENER_TOKEN + (1 << 16);
/// Tokens of clients start here and have no end.
const FIRST_CLIENT_TOKEN: usize = 1 << 21;
/// Ready descriptors taken from the kernel at once.
const EVENTS_MAX: usize = 1024;

/// What this node believes about who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) ballot: Ballot,
    pub(crate) leader: Option<NodeId>,
}

/// What stays when a node begins anew: what was given to it, and what those have who speak to it.
struct Lasting<H> {
    config: NodeConfig,
    identity: ServerFingerprint,
    host: H,
    poll: Poll,
    timer: Timer,
    waker: Arc<Waker>,
    queries: Receiver<Query>,
    transfer_state: TransferState,
}

/// Why a node's life is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It was asked to stop.
    Asked,
    /// It has fetched a checkpoint.
    ToBeginAnew,
}

/// One replica. [`Node::run`] is its whole life.
pub struct Node<H> {
    pub(crate) config: NodeConfig,
    pub(crate) id: NodeId,
    pub(crate) poll: Poll,
    timer: Timer,
    queries: Receiver<Query>,
    pub(crate) replica: Replica,
    pub(crate) replica_events: Vec<ReplicaEvent>,
    pub(crate) leadership: Leadership,
    /// Links to the other nodes that are up; the time says since when one is down.
    pub(crate) absent: BTreeMap<NodeId, Instant>,
    pub(crate) learners: Learners,
    join_handler: JoinHandler,
    /// When connections of the server were last given up because their node was away.
    pub(crate) dialler_given_up: Option<Instant>,
    pub(crate) host: H,
    pub(crate) process: Option<Process>,
    pub(crate) tape: Option<TapeMap>,
    pub(crate) feeder: Feeder,
    pub(crate) conns: Conns,
    pub(crate) output: Output,
    pub(crate) frontend: Frontend,
    pub(crate) proxies: ProxyServer,
    pub(crate) requests: Vec<Request>,
    /// When the leader is told which proxies live.
    pub(crate) alive_at: Option<Instant>,
    pub(crate) upstream: Upstream,
    pub(crate) proposer: Proposer,
    pub(crate) frame: Vec<u8>,
    pub(crate) life: crate::server::lifecycle::Life,
    pub(crate) company: Company,
    pub(crate) monitor: Monitor,
    pub(crate) operator: Operator,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) transfer: Coordinator,
    pub(crate) hash_log: HashLog,
    pub(crate) trace_file: Option<TraceFile>,
}

impl<H> std::fmt::Debug for Node<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id)
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
        let lasting = Lasting {
            config,
            identity,
            host,
            poll,
            timer,
            waker,
            queries,
            transfer_state: TransferState::default(),
        };
        Ok((Self::assemble(lasting)?, handle))
    }

    fn assemble(lasting: Lasting<H>) -> Result<Self, NodeError> {
        let Lasting {
            config,
            identity,
            host,
            poll,
            timer,
            waker,
            queries,
            transfer_state,
        } = lasting;
        let system = NodeError::doing;
        let replica = open_replica(&config, &poll, &waker)?;
        forget_that_it_is_new(&config)?;
        let directory = Directory::open(config.checkpoint_dir())?;
        let company = Company::new(&config, identity.clone());
        let transfer = Coordinator::new(
            &config,
            (directory.clone(), identity.clone()),
            Arc::clone(&waker),
            transfer_state,
        );
        let checkpoints = Checkpoints::open(directory, identity, &config, waker);
        let frontend = open_frontend(&config, &poll).map_err(system("cannot open the frontend"))?;
        let proxies = open_proxies(&config, &poll)?;
        let knobs = Knobs {
            clocks_per_event: config.clocks_per_event,
            starvation_wait: Duration::from_micros(config.bubble_wait_us),
        };
        let monitor = Monitor::new(&config, Quarantine::load(&config.data_dir)?);
        let perturb = Duration::from_micros(u64::from(config.perturb_us));
        let now = Instant::now();
        let id = config.node;
        Ok(Self {
            id,
            poll,
            timer,
            queries,
            replica,
            replica_events: Vec::new(),
            leadership: Leadership::default(),
            absent: config.others().map(|other| (other, now)).collect(),
            learners: Learners::default(),
            join_handler: JoinHandler::new(&config),
            dialler_given_up: None,
            host,
            process: None,
            tape: None,
            feeder: Feeder::new(perturb, frontend.id()),
            conns: Conns::new(),
            output: Output::new(),
            frontend,
            proxies,
            requests: Vec::new(),
            alive_at: None,
            upstream: Upstream::default(),
            proposer: Proposer::new(knobs),
            frame: Vec::new(),
            life: crate::server::lifecycle::Life::default(),
            company,
            monitor,
            operator: Operator::default(),
            checkpoints,
            transfer,
            hash_log: HashLog::open(&config.data_dir),
            trace_file: None,
            config,
        })
    }

    /// Ends everything but what lasts, and begins again as a node does that starts.
    fn anew(self) -> Result<Self, NodeError> {
        let Self {
            config,
            poll,
            timer,
            queries,
            replica,
            host,
            checkpoints,
            transfer,
            process,
            tape,
            frontend,
            proxies,
            monitor,
            hash_log,
            ..
        } = self;
        // The server goes before its host is used again, sockets and files before their names are.
        drop((process, tape, frontend, proxies, monitor, hash_log));
        replica.close();
        let (identity, waker) = checkpoints.into_carryover();
        let transfer_state = transfer.into_state();
        Self::assemble(Lasting {
            config,
            identity,
            host,
            poll,
            timer,
            waker,
            queries,
            transfer_state,
        })
    }

    /// Starts the server and works until asked to stop.
    ///
    /// The calling thread is the server's parent: it must not end before this returns.
    ///
    /// # Errors
    /// See [`NodeError`]; the server is stopped then.
    pub fn run(mut self) -> Result<(), NodeError> {
        while self.live()? == Ended::ToBeginAnew {
            tracing::info!("the node begins anew, with the checkpoint that was fetched");
            self = self.anew()?;
        }
        tracing::info!("asked to stop");
        self.replica.close();
        Ok(())
    }

    fn live(&mut self) -> Result<Ended, NodeError> {
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
            match self.poll.poll(&mut events, wait) {
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
            self.turn(now)?;
            if self.advance_transfer(now)? {
                return Ok(Ended::ToBeginAnew);
            }
            wait = self.prepare_sleep(now)?;
        }
    }

    /// Handles what the poll has ready; true when the node was asked to stop.
    fn take_ready(&mut self, events: &Events, now: Instant) -> Result<bool, NodeError> {
        if let Some(tape) = &mut self.tape {
            tape.tape_mut().cancel_doorbell();
        }
        for event in events {
            match event.token() {
                WAKER => {
                    if self.answer_queries() {
                        return Ok(true);
                    }
                }
                TIMER => self.timer.rang(),
                DOORBELL => {
                    if let Some(tape) = &self.tape {
                        sys::drain_counter(tape.doorbell());
                    }
                }
                PROCESS => self.server_process_changed(now)?,
                token if self.frontend.owns(token) => self.frontend.handle(event, now),
                token if self.replica.owns(token) => {
                    self.replica.handle(event, now, &mut self.replica_events);
                    self.serve_fetchers();
                    for joiner in self.replica.take_joiners() {
                        self.join_handler.accept(joiner);
                    }
                }
                token if self.proxies.owns(token) => self.proxy_ready(event),
                token => tracing::debug!(?token, "event for nobody"),
            }
        }
        Ok(false)
    }

    fn proxy_ready(&mut self, event: &mio::event::Event) {
        let listeners = self.frontend.known_listeners();
        let handshake = Handshake {
            cluster: self.config.cluster.0,
            conns: &self.conns,
            listeners: listeners.as_deref(),
        };
        self.proxies.handle(event, &handshake, &mut self.requests);
    }

    fn answer_queries(&mut self) -> bool {
        loop {
            // Whoever asked may have given up waiting: then the answer is dropped.
            match self.queries.try_recv() {
                Ok(Query::Status(reply)) => drop(reply.send(self.status())),
                Ok(Query::HashesAt(slot, reply)) => drop(reply.send(self.output.hashes_at(slot))),
                Ok(Query::Signal(signal, reply)) => self.signal(signal, reply),
                Ok(Query::Checkpoint(reply)) => self.checkpoints.request(reply),
                Ok(Query::Shutdown) => return true,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// How long the poll may sleep: `None` until something happens or the timer rings.
    fn prepare_sleep(&mut self, now: Instant) -> Result<Option<Duration>, NodeError> {
        let proposer = self.proposer.wakeup(&self.view(now));
        let others = [
            proposer,
            self.feeder.wakeup(),
            self.frontend.wakeup(),
            self.upstream.wakeup(),
            self.absence_deadline(now),
            self.alive_at,
            self.monitor.wakeup(now),
            self.hash_log.wakeup(),
            self.checkpoints.wakeup(now),
            self.transfer.wakeup(),
        ];
        let deadline = others
            .into_iter()
            .flatten()
            .fold(self.replica.next_wakeup(), Instant::min);
        if deadline <= now || self.feeder.has_more(self.replica.chosen_upto()) {
            return Ok(Some(Duration::ZERO));
        }
        self.timer
            .arm(deadline, now)
            .map_err(NodeError::doing("cannot set a timer"))?;
        let output_waits = self
            .tape
            .as_mut()
            .is_some_and(|tape| tape.tape_mut().ask_for_doorbell());
        Ok(output_waits.then_some(Duration::ZERO))
    }
}

/// From now on an empty log is one that was lost.
fn forget_that_it_is_new(config: &NodeConfig) -> Result<(), NodeError> {
    match std::fs::remove_file(config.new_mark()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(NodeError::doing(
            "cannot remove the mark of a new node",
        )(error)),
        _ => Ok(()),
    }
}

fn open_replica(
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

fn open_proxies(config: &NodeConfig, poll: &Poll) -> Result<ProxyServer, NodeError> {
    let registry = poll.registry().try_clone();
    let registry = registry.map_err(NodeError::doing("cannot clone the poll"))?;
    let address = config.place().sidecar;
    ProxyServer::open(address, registry, PROXY_LISTENER, FIRST_PROXY_TOKEN)
        .map_err(|source| NodeError::ProxyListen { address, source })
}

fn open_frontend(config: &NodeConfig, poll: &Poll) -> io::Result<Frontend> {
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
