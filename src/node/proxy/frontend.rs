//! The stand-alone frontend: a frontend that runs alone, next to the clients, attached to any one
//! node at a time.
//!
//! Clients' connections end here, so they outlive every node: when the node it is attached to
//! dies, it attaches to the next and goes on at its own positions in both directions. It knows
//! nothing of consensus and keeps nothing on disk.

use crate::clients::frontend::{Frontend, Tokens};
use crate::clients::listeners::Published;
use crate::ordering::leader_link::LeaderLink;
use crate::proxy::error::ProxyError;
use crate::proxy::wire::{self, Hello, Kind, Wire, each_progress};
use brolga_os::sys;
use brolga_os::timer::Timer;
use brolga_tape::ConnId;
use brolga_tape::record::{Record, decode};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WAKER: Token = Token(0);
const TIMER: Token = Token(1);
const UPLINK: Token = Token(2);
const TOKENS: Tokens = Tokens {
    listeners: 1 << 20,
    datagrams: (1 << 20) + (1 << 16),
    clients: 1 << 21,
};
const EVENTS_MAX: usize = 1024;
const READ_BYTES: usize = 256 * 1024;
/// A node has this long to answer a hello.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// An attached node is asked this often whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// A node that says nothing for this long is left.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// Pause after every node was tried in vain, shared out among them.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// After this long without any node the cluster may give the frontend up soon; it does so itself
/// before, so that nobody's bytes end in the void.
const DETACHED_MAX: Duration = Duration::from_secs(15);

/// Settings of a stand-alone frontend.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The cluster.
    pub cluster: u128,
    /// The address at which the server's ports are opened for clients.
    pub publish: IpAddr,
    /// The nodes' addresses for proxies.
    pub nodes: Vec<SocketAddr>,
}

/// Stops a stand-alone frontend, from any thread.
#[derive(Clone, Debug)]
pub struct ProxyHandle {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl ProxyHandle {
    /// Makes [`ProxyFrontend::run`] return. It may have done so already.
    pub fn shutdown(&self) {
        self.stop.store(true, Ordering::Release);
        // When the poll is gone, so is the stand-alone frontend.
        let _ = self.waker.wake();
    }
}

/// The way to a node.
#[derive(Debug)]
struct Uplink {
    wire: Wire,
    node: SocketAddr,
    welcome: bool,
    heard: Instant,
    pinged: Instant,
}

/// The stand-alone frontend.
#[derive(Debug)]
pub struct ProxyFrontend {
    config: ProxyConfig,
    poll: Poll,
    timer: Timer,
    frontend: Frontend,
    leader_link: LeaderLink,
    uplink: Option<Uplink>,
    next_node: usize,
    retry_at: Instant,
    detached_since: Option<Instant>,
    stop: Arc<AtomicBool>,
    buffer: Vec<u8>,
}

impl ProxyFrontend {
    /// A stand-alone frontend that is not attached yet.
    ///
    /// # Errors
    /// The operating system refuses something.
    pub fn open(config: ProxyConfig) -> Result<(Self, ProxyHandle), ProxyError> {
        Self::open_io(config).map_err(ProxyError::doing("cannot open the frontend"))
    }

    fn open_io(config: ProxyConfig) -> io::Result<(Self, ProxyHandle)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let stop = Arc::new(AtomicBool::new(false));
        let handle = ProxyHandle {
            stop: Arc::clone(&stop),
            waker,
        };
        let id = sys::random_u64()?;
        let registry = || poll.registry().try_clone();
        let registries = [registry()?, registry()?, registry()?, registry()?];
        let mut frontend = Frontend::new(id, id, config.publish, registries, TOKENS);
        frontend.notify_closes();
        let timer = Timer::new(poll.registry(), TIMER)?;
        let now = Instant::now();
        let proxy = Self {
            config,
            poll,
            timer,
            frontend,
            leader_link: LeaderLink::default(),
            uplink: None,
            next_node: 0,
            retry_at: now,
            detached_since: Some(now),
            stop,
            buffer: vec![0; READ_BYTES],
        };
        Ok((proxy, handle))
    }

    /// Works until asked to stop.
    ///
    /// # Errors
    /// See [`ProxyError`].
    pub fn run(mut self) -> Result<(), ProxyError> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut wait = Some(Duration::ZERO);
        loop {
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
                other => other.map_err(ProxyError::doing("cannot poll"))?,
            }
            if self.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    WAKER => {}
                    TIMER => self.timer.rang(),
                    UPLINK => self.listen_up(now)?,
                    _ => self.frontend.handle(event, now),
                }
            }
            self.turn(now)?;
            wait = None;
            let deadline = self.deadline();
            self.timer
                .arm(deadline, now)
                .map_err(ProxyError::doing("cannot set a timer"))?;
        }
    }

    fn turn(&mut self, now: Instant) -> Result<(), ProxyError> {
        self.look_after_uplink(now)?;
        self.frontend.tick(now);
        self.frontend.serve_touched();
        self.pump(now);
        self.flush(now);
        Ok(())
    }

    fn deadline(&self) -> Instant {
        let uplink = match &self.uplink {
            None => self.retry_at,
            Some(uplink) if uplink.welcome => {
                (uplink.pinged + PING_INTERVAL).min(uplink.heard + SILENCE_MAX)
            }
            Some(uplink) => uplink.heard + GREETING_TIMEOUT,
        };
        let others = [self.frontend.wakeup(), self.leader_link.wakeup()];
        others.into_iter().flatten().fold(uplink, Instant::min)
    }

    // ---- attaching ----

    fn look_after_uplink(&mut self, now: Instant) -> Result<(), ProxyError> {
        match &mut self.uplink {
            None if self.retry_at <= now => self.connect(now),
            None => {}
            Some(uplink) => {
                let patience = if uplink.welcome {
                    SILENCE_MAX
                } else {
                    GREETING_TIMEOUT
                };
                if now >= uplink.heard + patience {
                    self.leave("it does not answer", now);
                } else if uplink.welcome && now >= uplink.pinged + PING_INTERVAL {
                    uplink.pinged = now;
                    uplink.wire.send(Kind::Ping, &[]);
                }
            }
        }
        let detached = self
            .detached_since
            .is_some_and(|since| now >= since + DETACHED_MAX);
        if detached && self.frontend.client_count() > 0 {
            tracing::warn!("no node could be reached for long: the clients are disconnected");
            self.start_over()?;
        }
        Ok(())
    }

    fn connect(&mut self, now: Instant) {
        let node = self.config.nodes[self.next_node % self.config.nodes.len()];
        self.next_node += 1;
        match self.attach(node, now) {
            Ok(uplink) => self.uplink = Some(uplink),
            Err(error) => {
                tracing::debug!(%node, %error, "cannot connect");
                self.retry_at = now + RETRY_PAUSE;
            }
        }
    }

    fn attach(&mut self, node: SocketAddr, now: Instant) -> io::Result<Uplink> {
        let mut stream = TcpStream::connect(node)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, UPLINK, interest)?;
        let hello = Hello {
            version: wire::VERSION,
            cluster: self.config.cluster,
            frontend: self.frontend.id(),
            conns: self.frontend.positions(),
        };
        let mut wire = Wire::new(stream);
        wire.send(Kind::Hello, &[&hello.encode()]);
        Ok(Uplink {
            wire,
            node,
            welcome: false,
            heard: now,
            pinged: now,
        })
    }

    fn leave(&mut self, why: &str, now: Instant) {
        let Some(uplink) = self.uplink.take() else {
            return;
        };
        tracing::info!(node = %uplink.node, why, "leaving a node");
        self.retry_at = now + RETRY_PAUSE;
        if uplink.welcome {
            self.detached_since = Some(now);
            self.retry_at = now;
        }
        self.leader_link.lost();
    }

    fn start_over(&mut self) -> Result<(), ProxyError> {
        let id = sys::random_u64().map_err(ProxyError::doing("cannot get random bytes"))?;
        self.frontend.start_over(id);
        self.frontend.belongs_to(id);
        // A wire that was opened under the old identity must not carry events of the new one.
        self.uplink = None;
        self.retry_at = Instant::now();
        self.detached_since = Some(self.retry_at);
        self.leader_link.lost();
        Ok(())
    }

    // ---- talking ----

    fn listen_up(&mut self, now: Instant) -> Result<(), ProxyError> {
        let Some(uplink) = &mut self.uplink else {
            return Ok(());
        };
        let received = uplink.wire.receive(&mut self.buffer);
        uplink.heard = now;
        loop {
            let Some(uplink) = &mut self.uplink else {
                return Ok(());
            };
            match uplink.wire.next() {
                Ok(Some((kind, payload))) => self.take_frame(kind, &payload, now)?,
                Ok(None) => break,
                Err(_) => {
                    self.leave("malformed frame", now);
                    return Ok(());
                }
            }
        }
        if let Err(error) = received {
            self.leave(&error.to_string(), now);
        }
        Ok(())
    }

    fn take_frame(&mut self, kind: Kind, payload: &[u8], now: Instant) -> Result<(), ProxyError> {
        match kind {
            Kind::Welcome => self.welcome(payload),
            Kind::Refused => {
                self.leave(&String::from_utf8_lossy(payload), now);
                Ok(())
            }
            Kind::Records => each_record(payload, |record| match *record {
                Record::Listen {
                    listener,
                    address,
                    transport,
                    chosen,
                } => self.frontend.listen(Published {
                    listener,
                    address,
                    transport,
                    chosen,
                }),
                Record::Unlisten { listener } => {
                    self.frontend.unlisten(listener);
                    Ok(())
                }
                _ => {
                    self.frontend.record(record);
                    Ok(())
                }
            }),
            Kind::Committed => {
                let frontend = self.frontend.id();
                for (counter, progress) in each_progress(payload) {
                    let conn = ConnId { frontend, counter };
                    self.frontend.committed(conn, progress);
                }
                Ok(())
            }
            Kind::Resend => {
                self.leader_link.lost();
                Ok(())
            }
            Kind::Gone => {
                tracing::warn!("the cluster has given this frontend up");
                self.start_over()
            }
            Kind::Pong => Ok(()),
            Kind::Hello | Kind::Events | Kind::Ping => {
                self.leave("it speaks like a stand-alone frontend", now);
                Ok(())
            }
        }
    }

    fn welcome(&mut self, payload: &[u8]) -> Result<(), ProxyError> {
        if let Some(uplink) = &mut self.uplink {
            tracing::info!(node = %uplink.node, "attached");
            uplink.welcome = true;
        }
        self.detached_since = None;
        self.leader_link.lost();
        let mut ports = Vec::new();
        each_record(payload, |record| {
            if let Record::Listen {
                listener,
                address,
                transport,
                chosen,
            } = *record
            {
                ports.push(Published {
                    listener,
                    address,
                    transport,
                    chosen,
                });
            }
            Ok::<(), ProxyError>(())
        })?;
        self.frontend.listen_exactly(&ports)?;
        Ok(self.frontend.start_serving()?)
    }

    fn pump(&mut self, now: Instant) {
        let (progress, frontend) = (self.frontend.progress(), &self.frontend);
        self.leader_link
            .check(now, progress, || frontend.has_outstanding());
        let Some(uplink) = self.uplink.as_mut().filter(|uplink| uplink.welcome) else {
            self.frontend.outbox().clear();
            self.leader_link.needs_resend();
            return;
        };
        if self.leader_link.take_resend() {
            self.frontend.resend(now);
        }
        while let Some(chunk) = self.frontend.outbox().pop() {
            let header = wire::events_header(chunk.event_count());
            uplink
                .wire
                .send(Kind::Events, &[&header, chunk.encoded_events()]);
            self.leader_link.sent(now);
        }
    }

    fn flush(&mut self, now: Instant) {
        let flushed = self.uplink.as_mut().map(|uplink| uplink.wire.flush());
        if let Some(Err(error)) = flushed {
            self.leave(&error.to_string(), now);
        }
    }
}

fn each_record<E: Into<ProxyError>>(
    mut bytes: &[u8],
    mut each: impl FnMut(&Record<'_>) -> Result<(), E>,
) -> Result<(), ProxyError> {
    while !bytes.is_empty() {
        let (record, used) = decode(bytes)?;
        each(&record).map_err(Into::into)?;
        bytes = &bytes[used..];
    }
    Ok(())
}
