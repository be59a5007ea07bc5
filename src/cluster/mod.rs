//! A local cluster on disk: what `brolga run` creates once and finds again.
//!
//! ```text
//! DATA/cluster.toml          identity, command, members; written once
//! DATA/lock                  held while a `brolga run` uses the directory
//! DATA/genesis/              copy of --genesis
//! DATA/node-N/config.toml    written again at every start; the rest is the node's own
//! DATA/node-N/new            until the node's first start
//! ```
//!
//! The mark `new` is written once, before the cluster exists. A node that finds it starts with an empty
//! log; one that finds neither mark nor log has lost its disk, and does not vote before the others have
//! told it what it may have voted on.
//!
//! The command belongs to the cluster's identity: the log says what the server was told, and told
//! to another program it means something else.

mod plan;
pub mod restore;
pub mod status;
pub mod supervisor;

pub use plan::{Plan, REPLICAS_MAX};

use brolga_checkpoint::Compression;
use brolga_config::{
    ClusterId, ConfigError, DESCRIPTORS_DEFAULT, Member, NEW_MARK, NodeConfig, Policy, read_toml,
};
use brolga_os::files::{FileError, write_whole};
use brolga_os::ports;
use brolga_os::sys::allowed_processors;
use brolga_server_image::launch::{
    WorkdirError, descriptor_limit, prepare_workdir, sync_directory,
};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The content of `cluster.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// The cluster.
    pub cluster: ClusterId,
    /// The server.
    pub command: Vec<String>,
    /// The server's environment as `NAME=VALUE`.
    pub env: Vec<String>,
    /// True if there is a genesis directory.
    pub genesis: bool,
    /// Open descriptors of a server.
    #[serde(alias = "descriptors")]
    pub descriptors_max: u64,
    /// Loopback addresses that the server does not listen on are those of the leader's machine.
    #[serde(default)]
    pub host_loopback: bool,
    /// System calls that go round the interposer are caught by a seccomp filter.
    #[serde(
        default = "brolga_config::defaults::syscall_filter",
        alias = "backstop"
    )]
    pub syscall_filter: bool,
    /// UNIX sockets of the server that clients may use.
    #[serde(default, alias = "unix", skip_serializing_if = "Vec::is_empty")]
    pub unix_sockets: Vec<String>,
    /// When threads of the server hand on the turn.
    #[serde(default)]
    pub policy: Policy,
    /// All replicas.
    pub members: Vec<Member>,
}

/// Why a cluster could not be created or used. One line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A file or directory cannot be used.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// The operation.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file in it cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// The directory holds no cluster.
    #[error("{0} holds no cluster: start one with brolga run --data {0} -- COMMAND")]
    NoCluster(PathBuf),
    /// Another process uses the directory.
    #[error("{0} is in use by another brolga run: stop it, or give another --data directory")]
    InUse(PathBuf),
    /// An attempt to change something that is fixed.
    #[error(
        "{path} holds a cluster with {what} `{old}`, not `{new}`: give another --data directory, \
         or run it as it was"
    )]
    Differs {
        /// The cluster's directory.
        path: PathBuf,
        /// Which thing.
        what: &'static str,
        /// As the cluster has it.
        old: String,
        /// As asked for.
        new: String,
    },
    /// The plan cannot work.
    #[error("{0}")]
    Plan(String),
    /// A file in it cannot be understood.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The genesis directory cannot be copied.
    #[error(transparent)]
    Genesis(#[from] WorkdirError),
}

/// A cluster on disk, locked for this process.
#[derive(Debug)]
pub struct Cluster {
    data: PathBuf,
    file: ClusterFile,
    _lock: Flock<File>,
}

impl Cluster {
    /// Creates the cluster, or takes the one that is there if it is the same.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn open_or_create(plan: &Plan) -> Result<Self, ClusterError> {
        plan::check(plan)?;
        let data = std::path::absolute(&plan.data)
            .map_err(|source| failed("resolve", &plan.data)(source))?;
        fs::create_dir_all(&data).map_err(failed("create", &data))?;
        let lock = lock(&data)?;
        let path = data.join("cluster.toml");
        let file = if path.exists() {
            let file: ClusterFile = read_toml(&path)?;
            plan::check_same(&data, &file, plan)?;
            file
        } else {
            create(&data, plan)?
        };
        let cluster = Self {
            data,
            file,
            _lock: lock,
        };
        cluster.write_configs(plan)?;
        Ok(cluster)
    }

    /// The cluster's directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The fixed properties of the cluster.
    #[must_use]
    pub fn file(&self) -> &ClusterFile {
        &self.file
    }

    /// A node's configuration file.
    #[must_use]
    pub fn config_path(&self, node: u64) -> PathBuf {
        node_dir(&self.data, node).join("config.toml")
    }

    /// Changes a node's configuration, with effect from the node's next start.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub fn reconfigure(
        &self,
        node: u64,
        change: impl FnOnce(&mut NodeConfig),
    ) -> Result<(), ClusterError> {
        let path = self.config_path(node);
        let mut config = NodeConfig::load(&path)?;
        change(&mut config);
        let text = toml::to_string(&config)
            .map_err(|error| ClusterError::Plan(format!("cannot write TOML: {error}")))?;
        Ok(write_whole(&path, &text)?)
    }

    fn write_configs(&self, plan: &Plan) -> Result<(), ClusterError> {
        let processors = allowed_processors();
        for (index, member) in self.file.members.iter().enumerate() {
            let mut config = self.config(member.id, plan);
            // The turn changes hands eight times faster on one processor than between two, but threads
            // that run beside each other need more than one.
            if config.policy == Policy::Serial {
                config.pin_cpu = processors.get(index % processors.len().max(1)).copied();
            }
            let text = toml::to_string(&config)
                .map_err(|error| ClusterError::Plan(format!("cannot write TOML: {error}")))?;
            let text = format!("# Written by `brolga run` at every start.\n{text}");
            let dir = node_dir(&self.data, member.id);
            fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
            write_whole(&dir.join("config.toml"), &text)?;
        }
        Ok(())
    }

    fn config(&self, node: u64, plan: &Plan) -> NodeConfig {
        NodeConfig {
            cluster: self.file.cluster,
            node,
            data_dir: PathBuf::from("."),
            publish: None,
            heartbeat_ms: brolga_config::defaults::heartbeat_ms(),
            election_timeout_ms: brolga_config::defaults::election_timeout_ms(),
            clocks_per_event: brolga_config::defaults::clocks_per_event(),
            bubble_wait_us: brolga_config::defaults::bubble_wait_us(),
            quantum_ticks: brolga_config::defaults::quantum_ticks(),
            cpus: brolga_config::defaults::cpus(),
            pin_cpu: None,
            learner: None,
            keep_fsync: false,
            log_segment_bytes: brolga_config::defaults::log_segment_bytes(),
            checkpoints_kept: brolga_config::defaults::checkpoints_kept(),
            checkpoint_transfer_mib_s: brolga_config::defaults::checkpoint_transfer_mib_s(),
            checkpoint_compression: Compression::None,
            checkpoint_every_s: 0,
            checkpoint_log_mib: None,
            perturb_us: plan.perturb_us,
            clock_skew_ms: 0,
            trace: false,
            vote: plan.vote,
            container: plan.container,
            policy: self.file.policy,
            descriptors_max: self.file.descriptors_max,
            host_loopback: self.file.host_loopback,
            syscall_filter: self.file.syscall_filter,
            unix_sockets: self.file.unix_sockets.clone(),
            genesis: self.file.genesis.then(|| PathBuf::from("../genesis")),
            fetch_genesis: false,
            root: plan.root.clone(),
            command: self.file.command.clone(),
            env: self.file.env.clone(),
            members: self.file.members.clone(),
        }
    }
}

/// Reads the cluster of a directory without locking it.
///
/// # Errors
/// [`ClusterError::NoCluster`], or a file that cannot be read.
pub fn read(data: &Path) -> Result<ClusterFile, ClusterError> {
    let path = data.join("cluster.toml");
    if !path.exists() {
        return Err(ClusterError::NoCluster(data.to_owned()));
    }
    Ok(read_toml(&path)?)
}

/// The data directory of one node.
#[must_use]
pub fn node_dir(data: &Path, node: u64) -> PathBuf {
    data.join(format!("node-{node}"))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClusterError {
    let path = path.to_owned();
    move |source| ClusterError::File {
        action,
        path,
        source,
    }
}

fn create(data: &Path, plan: &Plan) -> Result<ClusterFile, ClusterError> {
    if let Some(genesis) = &plan.genesis {
        let copy = data.join("genesis");
        prepare_workdir(&copy, Some(genesis))?;
        sync_directory(&copy)?;
    }
    let limit = descriptor_limit().unwrap_or(DESCRIPTORS_DEFAULT);
    let file = ClusterFile {
        cluster: random_id()?,
        command: plan.command.clone(),
        env: plan.env.clone(),
        genesis: plan.genesis.is_some(),
        descriptors_max: DESCRIPTORS_DEFAULT.min(limit),
        host_loopback: plan.host_loopback,
        syscall_filter: plan.syscall_filter,
        unix_sockets: plan.unix_sockets.clone(),
        policy: plan.policy,
        members: members(&plan::addresses(plan))?,
    };
    for member in &file.members {
        let dir = node_dir(data, member.id);
        fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
        write_whole(&dir.join(NEW_MARK), "This node has never run.\n")?;
    }
    let text = toml::to_string(&file)
        .map_err(|error| ClusterError::Plan(format!("cannot write TOML: {error}")))?;
    write_whole(&data.join("cluster.toml"), &text)?;
    Ok(file)
}

fn random_id() -> Result<ClusterId, ClusterError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    let mut file = File::open(source).map_err(failed("open", source))?;
    file.read_exact(&mut bytes)
        .map_err(failed("read", source))?;
    Ok(ClusterId(u128::from_le_bytes(bytes) | 1)) // 0 is no cluster
}

/// Members with two ports each that are free now.
fn members(addresses: &[IpAddr]) -> Result<Vec<Member>, ClusterError> {
    let free = |address: IpAddr| -> Result<SocketAddr, ClusterError> {
        let port = ports::reserve(&[address]).map_err(|error| {
            ClusterError::Plan(format!("cannot listen on the address {address}: {error}"))
        })?;
        Ok(SocketAddr::new(address, port))
    };
    let mut members = Vec::new();
    for (address, id) in addresses.iter().zip(1..) {
        let (peer, sidecar) = (free(*address)?, free(*address)?);
        members.push(Member {
            id,
            address: *address,
            peer,
            sidecar,
        });
    }
    Ok(members)
}

fn lock(data: &Path) -> Result<Flock<File>, ClusterError> {
    let path = data.join("lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(failed("write to", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| ClusterError::InUse(data.to_owned()))
}

/// A command line for people to read, not for a shell.
#[must_use]
pub fn shown(words: &[String]) -> String {
    let plain = |word: &String| !word.is_empty() && !word.contains([' ', '\t', '\n', '"', '\'']);
    let texts: Vec<String> = words
        .iter()
        .map(|word| {
            if plain(word) {
                word.clone()
            } else {
                format!("{word:?}")
            }
        })
        .collect();
    texts.join(" ")
}

#[cfg(test)]
mod tests;
