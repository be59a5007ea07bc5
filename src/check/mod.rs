//! `brolga check`: checks that a server behaves alike on all replicas under perturbation.
//!
//! A run starts a cluster whose replicas are perturbed in different ways (`perturbation`), drives a load
//! (`load`), waits until all have applied the same slots and compares them. Then a replica is killed, has
//! to replay everything under another perturbation, and is compared again. The nodes trace every ordered
//! operation meanwhile, so that the first one that differs is named, not only the slot (`verdict`). The
//! nodes compare themselves too: when they detect a divergence, the run ends at once.
//!
//! Left out: files outside of the genesis, the processor's model and the kernel are the same for all
//! replicas here. A server that looks at them through a hole is found where they differ by themselves.

mod load;
mod perturbation;
mod verdict;

pub use load::Load;
pub use verdict::Divergence;

use crate::cluster::status::ClusterStatus;
use crate::cluster::supervisor::{Event, Supervisor};
use crate::cluster::{Cluster, Plan};
use anyhow::{Context, anyhow, bail};
use brolga_node::ServerState;
use fastrand::Rng;
use load::Target;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use perturbation::Perturbation;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The interval between status requests.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// The time without progress after which a wait fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// The name of a wait that needs no progress.
const WATCHING: &str = "";

/// A check: the server, its load and the seed.
#[derive(Clone, Debug)]
pub struct Check {
    /// The cluster. Each run has a directory of its own below this one's.
    pub plan: Plan,
    /// The load of the server.
    pub load: Load,
    /// The number of runs.
    pub runs: u32,
    /// The seed of the perturbations.
    pub seed: u64,
}

/// The amount that was compared and found equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Slots, over all runs.
    pub slots: u64,
    /// Operations and outputs of a replica that were compared with another's.
    pub records: u64,
    /// Replicas that were killed and replayed everything.
    pub replays: u32,
}

/// The outcome of a check.
#[derive(Debug)]
pub enum Verdict {
    /// No divergence.
    Alike(Summary),
    /// A divergence. The data of the run are kept.
    Diverged(Box<Divergence>),
}

/// The outcome of a wait.
enum Waited {
    Reached(Box<ClusterStatus>),
    /// The nodes say that replicas differ.
    Unequal(Box<ClusterStatus>),
}

impl Check {
    /// Does it, telling how it goes on.
    ///
    /// # Errors
    /// A server that does not start, or a load that fails.
    pub async fn run(&self, tell: impl Fn(&str)) -> anyhow::Result<Verdict> {
        let mut rng = Rng::with_seed(self.seed);
        let mut summary = Summary::default();
        for number in 1..=self.runs {
            let data = self.plan.data.join(format!("run-{number}"));
            let plan = Plan {
                data: data.clone(),
                ..self.plan.clone()
            };
            match self.one_run(&plan, number, &mut rng, &tell).await? {
                Verdict::Alike(one) => {
                    summary.slots += one.slots;
                    summary.records += one.records;
                    summary.replays += one.replays;
                }
                diverged => return Ok(diverged),
            }
            std::fs::remove_dir_all(&data)
                .with_context(|| format!("cannot remove {}", data.display()))?;
        }
        Ok(Verdict::Alike(summary))
    }

    async fn one_run(
        &self,
        plan: &Plan,
        number: u32,
        rng: &mut Rng,
        tell: &impl Fn(&str),
    ) -> anyhow::Result<Verdict> {
        let cluster = Cluster::open_or_create(plan)?;
        let mut environment = BTreeMap::new();
        for member in &cluster.file().members {
            let perturbation = Perturbation::new(rng, cluster.data(), member.id)?;
            tell(&format!(
                "run {number}: replica {}: {perturbation}",
                member.id
            ));
            cluster.reconfigure(member.id, |config| perturbation.configure(config))?;
            environment.insert(member.id, perturbation.environment());
        }
        let supervisor = Supervisor::start_in_environments(&cluster, true, environment)?;
        let mut run = Run {
            cluster,
            supervisor,
            victim: None,
        };
        let outcome = run.script(self, number, rng, tell).await;
        let Run {
            cluster,
            supervisor,
            ..
        } = run;
        supervisor.stop().await;
        // A difference tells more than what followed from it.
        match (verdict::of(&cluster, number)?, outcome?) {
            (Verdict::Diverged(found), _) => Ok(Verdict::Diverged(found)),
            (Verdict::Alike(traced), Waited::Reached(cluster_status)) => {
                Ok(Verdict::Alike(Summary {
                    slots: cluster_status
                        .compared_slot
                        .unwrap_or_else(|| applied(&cluster_status)),
                    records: traced.records,
                    replays: 1,
                }))
            }
            (Verdict::Alike(_), Waited::Unequal(cluster_status)) => {
                let found = Divergence::told_by_nodes(&cluster_status, number);
                Ok(Verdict::Diverged(Box::new(found)))
            }
        }
    }
}

/// A running cluster.
struct Run {
    cluster: Cluster,
    supervisor: Supervisor,
    /// The node that is killed on purpose.
    victim: Option<u64>,
}

impl Run {
    async fn script(
        &mut self,
        check: &Check,
        number: u32,
        rng: &mut Rng,
        tell: &impl Fn(&str),
    ) -> anyhow::Result<Waited> {
        let up = match self
            .wait("all replicas to be up", ClusterStatus::ready)
            .await?
        {
            Waited::Reached(cluster_status) => cluster_status,
            unequal => return Ok(unequal),
        };
        self.supervisor.note_up();
        let targets = Target::all(&up);
        let output = self.cluster.data().join("load");
        let doing = match check.load.command {
            Some(_) => "the load to end",
            None => WATCHING,
        };
        let rounds = tokio::select! {
            rounds = check.load.drive(&targets, &output) => rounds,
            // Ends only when there is nothing more to be gained from a load.
            waited = self.wait(doing, |_| false) => return waited,
        }?;
        tell(&format!("run {number}: {}", check.load.account(rounds)));
        let settled = match self.settle().await? {
            Waited::Reached(cluster_status) => cluster_status,
            unequal => return Ok(unequal),
        };
        let victim = self.kill_one(&settled, number, rng)?;
        tell(&format!(
            "run {number}: replica {victim} is killed after slot {} and repeats everything",
            applied(&settled)
        ));
        self.settle().await
    }

    /// Waits until all replicas have done what any of them knows of now, with equal hashes.
    async fn settle(&mut self) -> anyhow::Result<Waited> {
        let now = self.cluster_status().await;
        let statuses = now.replicas.iter().filter_map(|it| it.status.as_ref());
        let target = statuses.map(|status| status.last_entry).max().unwrap_or(0);
        let reached = |cluster_status: &ClusterStatus| {
            let done = cluster_status.replicas.iter().all(|replica| {
                let ended = |state: &ServerState| {
                    matches!(
                        state,
                        ServerState::Exited { .. } | ServerState::Faulted { .. }
                    )
                };
                let status = replica.status.as_ref();
                status.is_some_and(|it| it.applied.slot >= target || ended(&it.server))
            });
            let alone = cluster_status.replicas.len() == 1;
            done && (alone || cluster_status.equal == Some(true))
        };
        self.wait("all replicas to do the same slots", reached)
            .await
    }

    /// Kills a replica, which is started again with other disturbances.
    fn kill_one(
        &mut self,
        cluster_status: &ClusterStatus,
        number: u32,
        rng: &mut Rng,
    ) -> anyhow::Result<u64> {
        let count = cluster_status.replicas.len() as u64;
        // The leader first: another one's clock goes on then.
        let victim = match (number, cluster_status.leader) {
            (1, Some(leader)) => leader,
            _ => cluster_status.replicas[rng.u64(..count) as usize].id,
        };
        let perturbation = Perturbation::new(rng, self.cluster.data(), victim)?;
        let configure = |config: &mut _| perturbation.configure(config);
        self.cluster.reconfigure(victim, configure)?;
        let mut replicas = cluster_status.replicas.iter();
        let status = replicas.find(|it| it.id == victim);
        let status = status.and_then(|it| it.status.as_ref());
        let pid = status
            .with_context(|| format!("replica {victim} is down"))?
            .pid;
        self.victim = Some(victim);
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)
            .with_context(|| format!("cannot kill replica {victim}"))?;
        Ok(victim)
    }

    async fn cluster_status(&self) -> ClusterStatus {
        ClusterStatus::collect(self.cluster.data(), self.cluster.file()).await
    }

    /// Waits for something, or until the nodes say that replicas differ.
    async fn wait(
        &mut self,
        what: &str,
        reached: impl Fn(&ClusterStatus) -> bool,
    ) -> anyhow::Result<Waited> {
        let mut moved = (String::new(), Instant::now());
        loop {
            let cluster_status = Box::new(self.cluster_status().await);
            if cluster_status.differs() || cluster_status.difference.is_some() {
                return Ok(Waited::Unequal(cluster_status));
            }
            if reached(&cluster_status) {
                return Ok(Waited::Reached(cluster_status));
            }
            let state = cluster_status.to_string();
            if state != moved.0 {
                moved = (state, Instant::now());
            } else if moved.1.elapsed() > PATIENCE && what != WATCHING {
                let warning = cluster_status.warning.unwrap_or_default();
                bail!("waited for {what} in vain: {warning}\n{state}");
            }
            tokio::select! {
                () = sleep(ASK_EVERY) => {}
                event = self.supervisor.event() => self.note(event)?,
            }
        }
    }

    /// Something has happened to a node; an error when it should not have.
    fn note(&self, event: Option<Event>) -> anyhow::Result<()> {
        match event {
            Some(Event::Died { node, .. }) if self.victim == Some(node) => Ok(()),
            Some(Event::Died { node, how, .. }) => Err(anyhow!("replica {node} {how}")),
            Some(Event::Failed { node, why }) => Err(anyhow!("replica {node}: {why}")),
            Some(Event::Started { .. }) => Ok(()),
            None => Err(anyhow!("no replica is left")),
        }
    }
}

/// The last slot that every replica has done.
fn applied(cluster_status: &ClusterStatus) -> u64 {
    let statuses = cluster_status
        .replicas
        .iter()
        .filter_map(|it| it.status.as_ref());
    statuses.map(|it| it.applied.slot).min().unwrap_or(0)
}
