//! The demonstration: a leader dies in the middle of a client's work, who notices a pause.
//!
//! Three replicas of the bundled store in a temporary directory. A client on one TCP connection to a
//! follower counts with `INCR`, one request at a time, so that every reply says how many requests
//! have been carried out: a lost or repeated one shows at once. In the middle, with a request on
//! its way, the leader's node daemon is killed. Nothing here is staged: it is the code of
//! `brolga run`, and the first reply that is wrong ends the demonstration with an error.

use crate::cluster::{Cluster, Plan};
use crate::config::{Containment, Policy};
use crate::run::{Event, Supervisor, own_program};
use crate::survey::Survey;
use anyhow::{Context, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::Cell;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Requests before the leader is killed, and again after.
const HALF: u64 = 1000;
/// Each wait below, at most.
const PATIENCE: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Tries to find a port that is free on all addresses.
const PORTS_TRIED: usize = 100;
const COUNTER: &str = "counter";

/// Runs it and tells the story on standard output.
///
/// # Errors
/// Whatever was not as it should be. The cluster's directory is kept then, and named.
pub async fn run() -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("brolga-demo-").tempdir()?;
    let cluster = Cluster::open_or_create(&plan(directory.path())?)?;
    let mut supervisor = Supervisor::start(&cluster, true)?;
    let victim = Cell::new(None);
    let outcome = tokio::select! {
        outcome = script(&cluster, &victim) => outcome,
        error = unexpected_death(&mut supervisor, &victim) => Err(error),
    };
    supervisor.stop().await;
    outcome.map_err(|error| {
        let kept = directory.keep();
        error.context(format!("the demonstration failed (see {})", kept.display()))
    })
}

fn plan(directory: &std::path::Path) -> anyhow::Result<Plan> {
    let program = own_program()?;
    let program = program
        .to_str()
        .context("the path of brolga is not UTF-8")?;
    let listen = format!("0.0.0.0:{}", free_port()?);
    let command = [program, "store", "--listen", &listen, "--data", "store"];
    Ok(Plan {
        data: directory.join("data"),
        replicas: 3,
        addresses: Vec::new(),
        genesis: None,
        env: Vec::new(),
        perturb_us: 0,
        host_loopback: false,
        vote: false,
        container: Containment::None,
        policy: Policy::Serial,
        command: command.map(str::to_owned).to_vec(),
    })
}

/// A port that is free on the addresses of all three replicas.
fn free_port() -> anyhow::Result<u16> {
    let address = |last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last));
    for _ in 0..PORTS_TRIED {
        let first = TcpListener::bind((address(1), 0))?;
        let port = first.local_addr()?.port();
        if TcpListener::bind((address(2), port)).is_ok()
            && TcpListener::bind((address(3), port)).is_ok()
        {
            return Ok(port);
        }
    }
    bail!("no port is free on 127.0.0.1, .2 and .3");
}

/// Ends when a node dies that was not killed on purpose.
async fn unexpected_death(
    supervisor: &mut Supervisor,
    victim: &Cell<Option<u64>>,
) -> anyhow::Error {
    while let Some(event) = supervisor.event().await {
        match event {
            Event::Failed { node, why } => return anyhow!("replica {node}: {why}"),
            Event::Died { node, how, .. } if victim.get() != Some(node) => {
                return anyhow!("replica {node} {how}");
            }
            _ => {}
        }
    }
    anyhow!("no replica is left")
}

async fn script(cluster: &Cluster, victim: &Cell<Option<u64>>) -> anyhow::Result<()> {
    tell("starting three replicas of the bundled store, an ordinary single-node server");
    let survey = wait_for("the cluster to be up", cluster, Survey::ready).await?;
    let leader = survey.leader.context("no leader")?;
    for replica in &survey.replicas {
        let mark = if replica.id == leader {
            "  (leader)"
        } else {
            ""
        };
        tell(&format!(
            "  replica {} listens on {}{mark}",
            replica.id,
            address_of(&survey, replica.id)?
        ));
    }
    let follower = survey.replicas.iter().find(|replica| replica.id != leader);
    let follower = follower.context("no follower")?.id;
    let mut client = Client::connect(address_of(&survey, follower)?).await?;
    tell(&format!(
        "a client of replica {follower}, a follower, sends INCR over one TCP connection"
    ));

    for expected in 1..=HALF {
        client.count(expected).await?;
    }
    let started = Instant::now();
    client.send(&["INCR", COUNTER]).await?;
    victim.set(Some(leader));
    let pid = kill_node(&survey, leader)?;
    tell(&format!(
        "  {HALF} replies; kill -9 of the leader's node (replica {leader}, process {pid})"
    ));
    client.expect(HALF + 1).await?;
    let pause = started.elapsed();
    for expected in HALF + 2..=2 * HALF {
        client.count(expected).await?;
    }
    tell(&format!(
        "  {} replies on the same connection, none lost, none repeated; the pause was {} ms",
        2 * HALF,
        pause.as_millis()
    ));

    let survey = wait_for("the killed node to catch up", cluster, caught_up).await?;
    for replica in &survey.replicas {
        let mut reader = Client::connect(address_of(&survey, replica.id)?).await?;
        reader.send(&["GET", COUNTER]).await?;
        reader
            .expect(2 * HALF)
            .await
            .with_context(|| format!("reading at replica {}", replica.id))?;
    }
    drop(client);
    let survey = wait_for("equal hashes", cluster, |survey| {
        caught_up(survey) && survey.equal == Some(true)
    });
    let survey = survey.await?;
    let new_leader = survey.leader.context("no leader")?;
    ensure!(
        new_leader != leader || survey.ballot.is_some(),
        "the dead leader still leads"
    );
    tell(&format!(
        "replica {leader} is back and has caught up; replica {new_leader} leads\n"
    ));
    tell(&survey.to_string());
    tell(&format!(
        "all replicas count {}, and their hashes are equal",
        2 * HALF
    ));
    Ok(())
}

/// All are up, and nobody lags behind what is known to be chosen.
fn caught_up(survey: &Survey) -> bool {
    let statuses = || {
        survey
            .replicas
            .iter()
            .filter_map(|replica| replica.status.as_ref())
    };
    let last = statuses().map(|status| status.last_entry).max();
    survey.ready() && statuses().all(|status| Some(status.applied.slot) >= last)
}

async fn wait_for(
    what: &str,
    cluster: &Cluster,
    reached: impl Fn(&Survey) -> bool,
) -> anyhow::Result<Survey> {
    let mut latest = None;
    let waiting = async {
        loop {
            let survey = Survey::take(cluster.data(), cluster.file()).await;
            if reached(&survey) {
                return survey;
            }
            latest = Some(survey);
            sleep(ASK_EVERY).await;
        }
    };
    match timeout(PATIENCE, waiting).await {
        Ok(survey) => Ok(survey),
        Err(_) => {
            let state = latest.map(|survey| survey.to_string()).unwrap_or_default();
            bail!(
                "waited {} s for {what}; the state is\n{state}",
                PATIENCE.as_secs()
            )
        }
    }
}

fn address_of(survey: &Survey, node: u64) -> anyhow::Result<SocketAddr> {
    let replica = survey.replicas.iter().find(|replica| replica.id == node);
    let status = replica.and_then(|replica| replica.status.as_ref());
    let listener = status.and_then(|status| status.listeners.first());
    listener
        .copied()
        .with_context(|| format!("replica {node} does not listen"))
}

fn kill_node(survey: &Survey, node: u64) -> anyhow::Result<u32> {
    let replica = survey.replicas.iter().find(|replica| replica.id == node);
    let status = replica.and_then(|replica| replica.status.as_ref());
    let pid = status.context("the leader is down already")?.pid;
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)?;
    Ok(pid)
}

/// A line of the story. That nobody reads it is no reason to stop.
fn tell(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A client of the store, one request at a time.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await?;
        let stream = stream.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    async fn send(&mut self, words: &[&str]) -> anyhow::Result<()> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream
            .write_all(request.as_bytes())
            .await
            .context("the connection broke")
    }

    /// One `INCR` and its reply.
    async fn count(&mut self, expected: u64) -> anyhow::Result<()> {
        self.send(&["INCR", COUNTER]).await?;
        self.expect(expected).await
    }

    /// Reads one reply, an integer or a string that is one.
    async fn expect(&mut self, expected: u64) -> anyhow::Result<()> {
        let mut reply = self.line().await?;
        if reply.starts_with('$') {
            reply = format!(":{}", self.line().await?);
        }
        ensure!(
            reply == format!(":{expected}"),
            "the reply was `{reply}` instead of :{expected}"
        );
        Ok(())
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await;
        let bytes = read.context("no reply")?.context("the connection broke")?;
        ensure!(bytes > 0, "the connection was closed");
        Ok(line.trim_end().to_owned())
    }
}
