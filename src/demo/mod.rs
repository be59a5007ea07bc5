//! The demonstration: a leader fails while a client works; the client only sees a pause.
//!
//! Three replicas of the bundled store in a temporary directory. A client on one TCP connection to a
//! follower counts with `INCR`, one request at a time, so that every reply says how many requests
//! have been executed: a lost or repeated one shows at once. In the middle, with a request in
//! flight, the leader's node daemon is killed. Nothing here is staged: it is the code of
//! `brolga run`, and the first reply that is wrong ends the demonstration with an error.
//!
//! Where the machine allows it, the servers are in containers, all replicas take a checkpoint while the
//! client counts, and the killed one has to restore from its own, as its node reports. Elsewhere a line
//! says why not, and the killed replica replays the whole log. Only the probe decides that: a checkpoint
//! that fails afterwards is a failure.

mod client;

use crate::admin::checkpoints_now;
use crate::cluster::status::ClusterStatus;
use crate::cluster::supervisor::{Event, Supervisor, own_program};
use crate::cluster::{Cluster, Plan};
use anyhow::{Context, anyhow, bail, ensure};
use brolga_checkpoint::CheckpointError;
use brolga_config::{Containment, Policy};
use brolga_node::NodeStatus;
use brolga_os::ports;
use client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Requests before the leader is killed, and again after; half of them before and after checkpoints.
const HALF: u64 = 1000;
/// Each wait below, at most.
const PATIENCE: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Runs it and tells the story on standard output.
///
/// # Errors
/// Whatever was not as it should be. The cluster's directory is kept then, and named.
pub async fn run() -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("brolga-demo-").tempdir()?;
    let checkpoints = match brolga_checkpoint::probe(directory.path()) {
        Ok(_) => true,
        Err(error) => {
            let why = match error {
                CheckpointError::Unsupported(why) => why,
                other => other.to_string(),
            };
            tell(&format!("no checkpoint is taken: {why}"));
            false
        }
    };
    let cluster = Cluster::open_or_create(&plan(directory.path(), checkpoints)?)?;
    let mut supervisor = Supervisor::start(&cluster, true)?;
    let stage = Stage {
        cluster: &cluster,
        checkpoints,
        victim: Cell::new(None),
    };
    let outcome = tokio::select! {
        outcome = stage.script() => outcome,
        error = unexpected_death(&mut supervisor, &stage.victim) => Err(error),
    };
    supervisor.stop().await;
    outcome.map_err(|error| {
        let kept = directory.keep();
        error.context(format!("the demonstration failed (see {})", kept.display()))
    })
}

fn plan(directory: &Path, checkpoints: bool) -> anyhow::Result<Plan> {
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
        root: None,
        env: Vec::new(),
        perturb_us: 0,
        host_loopback: false,
        syscall_filter: true,
        unix_sockets: Vec::new(),
        vote: false,
        container: match checkpoints {
            true => Containment::Required,
            false => Containment::None,
        },
        policy: Policy::Serial,
        command: command.map(str::to_owned).to_vec(),
    })
}

/// A port that is free on the addresses of all three replicas.
fn free_port() -> anyhow::Result<u16> {
    let addresses = [1, 2, 3].map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)));
    Ok(ports::reserve(&addresses)?)
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

/// The state that the steps share.
struct Stage<'a> {
    cluster: &'a Cluster,
    /// Checkpoints are taken.
    checkpoints: bool,
    /// The replica that was killed on purpose.
    victim: Cell<Option<u64>>,
}

impl Stage<'_> {
    async fn script(&self) -> anyhow::Result<()> {
        let (follower, mut client) = self.open().await?;
        let taken = self.count_to_the_middle(&mut client).await?;
        let (victim, ballot) = self.kill_leader(follower, &mut client).await?;
        let until = client.counted + HALF - 1;
        client.count_while(|counted| counted < until).await?;
        tell(&format!(
            "  {until} replies on the same connection, none lost, none repeated"
        ));
        self.back(victim, taken.get(&victim).copied()).await?;
        self.same_everywhere(client).await?;
        let cluster_status = self.wait_for("equal hashes", |cluster_status| {
            caught_up(cluster_status) && cluster_status.equal == Some(true)
        });
        let cluster_status = cluster_status.await?;
        ensure!(
            cluster_status.ballot != ballot,
            "the dead leader still leads"
        );
        tell(&format!("\n{cluster_status}"));
        tell(&format!(
            "all replicas count {until}, and their hashes are equal"
        ));
        Ok(())
    }

    /// A replica that does not lead, and a client of it.
    async fn open(&self) -> anyhow::Result<(u64, Client)> {
        let where_to = match self.checkpoints {
            true => ", each in a container",
            false => "",
        };
        tell(&format!(
            "starting three replicas of the bundled store, an ordinary single-node server{where_to}"
        ));
        let cluster_status = self
            .wait_for("the cluster to be up", ClusterStatus::ready)
            .await?;
        let leader = cluster_status.leader.context("no leader")?;
        for replica in &cluster_status.replicas {
            let mark = match replica.id == leader {
                true => "  (leader)",
                false => "",
            };
            let address = address_of(&cluster_status, replica.id)?;
            tell(&format!(
                "  replica {} listens on {address}{mark}",
                replica.id
            ));
        }
        let follower = cluster_status
            .replicas
            .iter()
            .find(|replica| replica.id != leader);
        let follower = follower.context("no follower")?.id;
        tell(&format!(
            "a client of replica {follower}, a follower, sends INCR over one TCP connection"
        ));
        let client = Client::connect(address_of(&cluster_status, follower)?).await?;
        Ok((follower, client))
    }

    /// Half of the requests; in the middle of them checkpoints, whose slots are returned.
    async fn count_to_the_middle(&self, client: &mut Client) -> anyhow::Result<BTreeMap<u64, u64>> {
        let mut taken = BTreeMap::new();
        client.count_while(|counted| counted < HALF / 2).await?;
        if self.checkpoints {
            let before = client.counted;
            let whole = Cell::new(false);
            let members = &self.cluster.file().members;
            let nodes: Vec<u64> = members.iter().map(|member| member.id).collect();
            let taking = async {
                let note = |node, slot| {
                    taken.insert(node, slot);
                };
                checkpoints_now(self.cluster.data(), &nodes, |_, _| (), note).await?;
                whole.set(true);
                Ok(())
            };
            let ((), longest) = tokio::try_join!(taking, client.count_while(|_| !whole.get()))?;
            let slots: Vec<String> = taken.values().map(u64::to_string).collect();
            tell(&format!(
                "  {before} replies; checkpoints of all replicas (slots {}) during the next {}, of \
                 which the slowest took {} ms",
                slots.join(", "),
                client.counted - before,
                longest.as_millis()
            ));
        }
        let until = client.counted + HALF / 2;
        client.count_while(|counted| counted < until).await?;
        Ok(taken)
    }

    /// Kills the leader's node with a request on its way, and awaits the reply. The dead node, and its
    /// ballot if it led.
    async fn kill_leader(
        &self,
        follower: u64,
        client: &mut Client,
    ) -> anyhow::Result<(u64, Option<String>)> {
        let cluster_status = self.wait_for("all replicas", ClusterStatus::ready).await?;
        // On a machine that is busy the client's own replica may have come to lead. The connection
        // would die with that one, so it is another's turn.
        let leads = cluster_status.leader.filter(|leader| *leader != follower);
        let mut others = cluster_status.replicas.iter().map(|replica| replica.id);
        let victim = leads.or_else(|| others.find(|id| *id != follower));
        let victim = victim.context("no other replica")?;
        let started = Instant::now();
        client.ask_to_count().await?;
        self.victim.set(Some(victim));
        let pid = kill_node(&cluster_status, victim)?;
        let whose = match leads {
            Some(_) => "the leader's node",
            None => "a node (the client's replica leads by now)",
        };
        tell(&format!(
            "  {} replies; kill -9 of {whose} (replica {victim}, process {pid})",
            client.counted
        ));
        client.expect_count().await?;
        tell(&format!(
            "  the next reply came after {} ms",
            started.elapsed().as_millis()
        ));
        Ok((victim, cluster_status.ballot.filter(|_| leads.is_some())))
    }

    /// The killed replica is back, from the checkpoint that it took if there is one.
    async fn back(&self, victim: u64, taken: Option<u64>) -> anyhow::Result<()> {
        let cluster_status = self.wait_for("the killed node to catch up", caught_up);
        let cluster_status = cluster_status.await?;
        let status = status_of(&cluster_status, victim).context("the killed node is not up")?;
        ensure!(
            status.restored_from == taken,
            "replica {victim} took a checkpoint of slot {taken:?} and is back from {:?}",
            status.restored_from
        );
        let live_at = status.live_at.context("the killed node is not live")?;
        let how = match taken {
            Some(slot) => format!(
                "restored from its checkpoint of slot {slot}, replayed {} slots instead of {live_at}",
                live_at.saturating_sub(slot)
            ),
            None => format!("started from nothing, replayed all {live_at} slots of its log"),
        };
        let leader = cluster_status.leader.context("no leader")?;
        tell(&format!(
            "replica {victim} is back: {how}; replica {leader} leads"
        ));
        Ok(())
    }

    /// All replicas have counted what the client has.
    async fn same_everywhere(&self, client: Client) -> anyhow::Result<()> {
        let cluster_status = ClusterStatus::collect(self.cluster.data(), self.cluster.file()).await;
        for replica in &cluster_status.replicas {
            let mut reader = Client::connect(address_of(&cluster_status, replica.id)?).await?;
            let read = reader.read(client.counted).await;
            read.with_context(|| format!("reading at replica {}", replica.id))?;
        }
        Ok(())
    }

    async fn wait_for(
        &self,
        what: &str,
        reached: impl Fn(&ClusterStatus) -> bool,
    ) -> anyhow::Result<ClusterStatus> {
        let mut latest = None;
        let waiting = async {
            loop {
                let cluster_status =
                    ClusterStatus::collect(self.cluster.data(), self.cluster.file()).await;
                if reached(&cluster_status) {
                    return cluster_status;
                }
                latest = Some(cluster_status);
                sleep(ASK_EVERY).await;
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(cluster_status) => Ok(cluster_status),
            Err(_) => {
                let state = latest
                    .map(|cluster_status| cluster_status.to_string())
                    .unwrap_or_default();
                bail!(
                    "waited {} s for {what}; the state is\n{state}",
                    PATIENCE.as_secs()
                )
            }
        }
    }
}

/// All are up, and nobody lags behind what is known to be chosen.
fn caught_up(cluster_status: &ClusterStatus) -> bool {
    let statuses = || {
        cluster_status
            .replicas
            .iter()
            .filter_map(|replica| replica.status.as_ref())
    };
    let last = statuses().map(|status| status.last_entry).max();
    cluster_status.ready() && statuses().all(|status| Some(status.applied.slot) >= last)
}

fn status_of(cluster_status: &ClusterStatus, node: u64) -> Option<&NodeStatus> {
    let mut replicas = cluster_status.replicas.iter();
    replicas.find(|replica| replica.id == node)?.status.as_ref()
}

fn address_of(cluster_status: &ClusterStatus, node: u64) -> anyhow::Result<SocketAddr> {
    let listener = status_of(cluster_status, node).and_then(|status| status.listeners.first());
    listener
        .copied()
        .with_context(|| format!("replica {node} does not listen"))
}

fn kill_node(cluster_status: &ClusterStatus, node: u64) -> anyhow::Result<u32> {
    let pid = status_of(cluster_status, node)
        .context("the victim is down already")?
        .pid;
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)?;
    Ok(pid)
}

/// A line of the story. That nobody reads it is no reason to stop.
fn tell(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
