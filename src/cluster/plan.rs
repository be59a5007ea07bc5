//! A plan of the user for a cluster, and what it must not change about one that exists.

use super::{ClusterError, ClusterFile, shown};
use brolga_config::{Containment, Policy, root_problem};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// Most replicas of one cluster.
pub const REPLICAS_MAX: usize = 9;

/// The cluster that the user wants to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cluster's directory.
    pub data: PathBuf,
    /// Number of replicas.
    pub replicas: usize,
    /// The addresses of the replicas; empty: 127.0.0.1, .2, .3 …
    pub addresses: Vec<IpAddr>,
    /// Initial content of the server's working directory; used when the cluster is created.
    pub genesis: Option<PathBuf>,
    /// The root file system of the servers' containers, instead of the machine's.
    pub root: Option<PathBuf>,
    /// Environment as `NAME=VALUE`.
    pub env: Vec<String>,
    /// Random delays for tests, microseconds.
    pub perturb_us: u32,
    /// The server may connect to this machine's loopback addresses.
    pub host_loopback: bool,
    /// System calls that bypass the interposer are caught.
    pub syscall_filter: bool,
    /// UNIX sockets of the server that clients may use.
    pub unix_sockets: Vec<String>,
    /// Output is held back until a majority has computed the same.
    pub vote: bool,
    /// The containment of the servers.
    pub container: Containment,
    /// When threads of the server hand on the turn.
    pub policy: Policy,
    /// The server.
    pub command: Vec<String>,
}

pub(super) fn check(plan: &Plan) -> Result<(), ClusterError> {
    if plan.replicas == 0 || plan.replicas > REPLICAS_MAX {
        let text = format!("--replicas {}: from 1 to {REPLICAS_MAX}", plan.replicas);
        return Err(ClusterError::Plan(text));
    }
    if !plan.addresses.is_empty() && plan.addresses.len() != plan.replicas {
        let (given, wanted) = (plan.addresses.len(), plan.replicas);
        let text = format!("--addresses gives {given} addresses for {wanted} replicas");
        return Err(ClusterError::Plan(text));
    }
    if let Some(genesis) = plan.genesis.as_ref().filter(|genesis| !genesis.is_dir()) {
        let text = format!("--genesis {} is not a directory", genesis.display());
        return Err(ClusterError::Plan(text));
    }
    let root = plan.root.as_deref();
    if let Some(problem) = root.and_then(|root| root_problem(root, plan.container)) {
        return Err(ClusterError::Plan(problem));
    }
    let problem = plan
        .env
        .iter()
        .find_map(|pair| brolga_config::environment_problem(pair))
        .or_else(|| brolga_config::unix_problem(&plan.unix_sockets));
    problem.map_or(Ok(()), |problem| Err(ClusterError::Plan(problem)))
}

/// Refuses changes that would give the log another meaning.
pub(super) fn check_same(data: &Path, file: &ClusterFile, plan: &Plan) -> Result<(), ClusterError> {
    let members: Vec<String> = file
        .members
        .iter()
        .map(|it| it.address.to_string())
        .collect();
    let wanted: Vec<String> = addresses(plan).iter().map(ToString::to_string).collect();
    let same = [
        ("the command", &file.command, &plan.command),
        ("the environment", &file.env, &plan.env),
        (
            "the list of UNIX sockets",
            &file.unix_sockets,
            &plan.unix_sockets,
        ),
        ("the addresses", &members, &wanted),
    ];
    for (what, old, new) in same {
        if old != new {
            let (old, new) = (shown(old), shown(new));
            return Err(ClusterError::Differs {
                path: data.to_owned(),
                what,
                old,
                new,
            });
        }
    }
    let switches = [
        ("--host-loopback", plan.host_loopback, file.host_loopback),
        (
            "--no-syscall-filter",
            !plan.syscall_filter,
            !file.syscall_filter,
        ),
    ];
    for (switch, wanted, before) in switches {
        if wanted != before {
            let how = if before { "with" } else { "without" };
            let text = format!(
                "{} was created {how} {switch}; that cannot change later",
                data.display()
            );
            return Err(ClusterError::Plan(text));
        }
    }
    if plan.policy != file.policy {
        let text = format!(
            "{} was created with --policy {}; that cannot change later",
            data.display(),
            file.policy
        );
        return Err(ClusterError::Plan(text));
    }
    if plan.genesis.is_some() && !file.genesis {
        let text = format!(
            "{} was created without --genesis; it cannot be given later",
            data.display()
        );
        return Err(ClusterError::Plan(text));
    }
    Ok(())
}

pub(super) fn addresses(plan: &Plan) -> Vec<IpAddr> {
    if !plan.addresses.is_empty() {
        return plan.addresses.clone();
    }
    let count = u8::try_from(plan.replicas).unwrap_or(u8::MAX);
    (1..=count)
        .map(|last| Ipv4Addr::new(127, 0, 0, last).into())
        .collect()
}
