//! The configuration of one replica, as `brolga node --config FILE` reads it.
//!
//! The file is TOML. Unknown keys are errors, so that a misspelt key does not silently leave a
//! default in place. What must be the same on every replica for determinism (command, environment,
//! genesis, clocks, descriptors …) is part of [`NodeConfig::fingerprint`].

pub mod defaults;
mod file;
mod paths;
mod validation;

pub use file::{ConfigError, read_toml};
pub use validation::{environment_problem, root_problem, unix_problem};

use brolga_checkpoint::Compression;
use brolga_tape::unix::Paths;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use xxhash_rust::xxh3::Xxh3;

/// The variable by which the dynamic linker finds the interposer.
pub const PRELOAD_VARIABLE: &str = "LD_PRELOAD";
/// Open descriptors a server may have unless configured otherwise.
pub const DESCRIPTORS_DEFAULT: u64 = 16_384;
/// The interposer's own descriptors lie just above 1000.
pub const DESCRIPTORS_MIN: u64 = 1100;

/// The permanent name of a cluster, so that a node never joins the wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<ClusterId> for String {
    fn from(id: ClusterId) -> Self {
        id.to_string()
    }
}

impl FromStr for ClusterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match u128::from_str_radix(text, 16) {
            Ok(id) if id != 0 && text.len() == 32 => Ok(Self(id)),
            _ => Err(format!(
                "`{text}` is not a cluster id (32 hexadecimal digits, not all 0)"
            )),
        }
    }
}

impl TryFrom<String> for ClusterId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A member of the cluster, as all nodes know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The node id, from 1.
    pub id: u64,
    /// The address on which clients find the server's ports.
    pub address: IpAddr,
    /// The address at which the other nodes reach it.
    pub peer: SocketAddr,
    /// The address at which stand-alone frontends reach it.
    pub sidecar: SocketAddr,
}

/// The addresses of a learner, which stand only in its own configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learner {
    /// The address on which clients find the server's ports.
    pub address: IpAddr,
    /// The address at which stand-alone frontends reach it; port 0: any free port.
    pub sidecar: SocketAddr,
}

/// The containment of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Containment {
    /// As an ordinary process of the machine; no checkpoints can be taken.
    #[default]
    None,
    /// In a container if the machine allows it; otherwise the log says why not.
    Auto,
    /// In a container; without one the node does not start.
    Required,
}

/// When threads of the server hand on the turn. Must be the same on all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// One thread runs at a time: data races, atomics and spinning are deterministic too.
    #[default]
    Serial,
    /// Threads run concurrently between ordered operations: for programs without data races.
    Parallel,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serial => "serial",
            Self::Parallel => "parallel",
        })
    }
}

/// The configuration of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// The id of this node: one of the members, or a learner's id from
    /// [`LEARNERS_FROM`](brolga_consensus::LEARNERS_FROM) on.
    pub node: u64,
    /// The directory for log, working directory, admin socket and output files. A relative path is
    /// relative to the configuration file.
    pub data_dir: PathBuf,
    /// The address on which the server's ports are opened; the member's `address` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<IpAddr>,
    /// The interval between heartbeats of a leader, in milliseconds.
    #[serde(default = "defaults::heartbeat_ms")]
    pub heartbeat_ms: u64,
    /// The range of the random election timeout, in milliseconds.
    #[serde(default = "defaults::election_timeout_ms")]
    pub election_timeout_ms: [u64; 2],
    /// The logical clock ticks granted with each event of an entry (CRANE's N_clock).
    #[serde(default = "defaults::clocks_per_event")]
    pub clocks_per_event: u32,
    /// The time that the leader waits for more input before it proposes a bubble, in microseconds
    /// (CRANE's W_timeout).
    #[serde(default = "defaults::bubble_wait_us")]
    pub bubble_wait_us: u64,
    /// The scheduling policy: when threads of the server hand on the turn.
    #[serde(default)]
    pub policy: Policy,
    /// The ticks after which a thread of the server hands on the turn (policy `serial`).
    #[serde(default = "defaults::quantum_ticks")]
    pub quantum_ticks: u32,
    /// The number of processors that the server sees.
    #[serde(default = "defaults::cpus")]
    pub cpus: u32,
    /// The processor that the server's process tree is pinned to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_cpu: Option<usize>,
    /// Pass the server's `fsync` on to the disk, although the log makes it unnecessary.
    #[serde(default)]
    pub keep_fsync: bool,
    /// Let the server connect to loopback addresses of the leader's machine. Otherwise it finds only
    /// itself there.
    #[serde(default)]
    pub host_loopback: bool,
    /// Catch system calls that bypass the interposer with a seccomp filter.
    #[serde(default = "defaults::syscall_filter")]
    pub syscall_filter: bool,
    /// The UNIX sockets of the server that clients may use, by the server's own paths. Each is
    /// published in the node's directory `sockets`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unix_sockets: Vec<String>,
    /// Run the server in a container; checkpoints need one.
    #[serde(default)]
    pub container: Containment,
    /// The number of checkpoints that are kept. The log goes back to the oldest of them.
    #[serde(default = "defaults::checkpoints_kept")]
    pub checkpoints_kept: usize,
    /// The compression of checkpoints: `none`, `zstd` or `zstd:LEVEL`.
    #[serde(default)]
    pub checkpoint_compression: Compression,
    /// The seconds between checkpoints, if the log has grown in between; 0: never.
    #[serde(default)]
    pub checkpoint_every_s: u64,
    /// The growth of the log after which a checkpoint is taken, in MiB; 0: never. The default is
    /// [`CHECKPOINT_LOG_MIB`] with a container, never without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_log_mib: Option<u64>,
    /// The rate at which this node sends checkpoints to all others together, in MiB per second;
    /// 0: no limit.
    #[serde(default = "defaults::checkpoint_transfer_mib_s")]
    pub checkpoint_transfer_mib_s: u64,
    /// The size of a log segment in bytes, the unit of log truncation.
    #[serde(default = "defaults::log_segment_bytes")]
    pub log_segment_bytes: u64,
    /// The upper bound of random delays at scheduling points, in microseconds, for tests.
    #[serde(default)]
    pub perturb_us: u32,
    /// A constant error of this node's wall clock, in milliseconds, for tests.
    #[serde(default)]
    pub clock_skew_ms: i64,
    /// Record every ordered operation of the server in files `trace-1`, `trace-2` …, for tests.
    #[serde(default)]
    pub trace: bool,
    /// Hold output back until a majority of the replicas has computed the same (output commit).
    #[serde(default)]
    pub vote: bool,
    /// The limit of open descriptors of the server.
    #[serde(default = "defaults::descriptors")]
    pub descriptors_max: u64,
    /// The initial content of the server's working directory. A relative path is relative to the
    /// configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genesis: Option<PathBuf>,
    /// Fetch the genesis from another member before the first start, and wait until one has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fetch_genesis: bool,
    /// The root file system of the server's container instead of the machine's. A relative path is
    /// relative to the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// The command of the server: program and arguments.
    pub command: Vec<String>,
    /// Environment variables of the server beyond the canonical ones, as `NAME=VALUE`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Present if this node is a learner: it learns what is chosen, and does not vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learner: Option<Learner>,
    /// All members, including this node unless it is a learner.
    pub members: Vec<Member>,
}

/// The default of [`NodeConfig::checkpoint_log_mib`] for servers in containers, in MiB.
pub const CHECKPOINT_LOG_MIB: u64 = 256;

impl NodeConfig {
    /// Reads and checks a file. Relative paths in it become absolute.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = read_toml(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let folder = std::path::absolute(folder).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        config.data_dir = folder.join(&config.data_dir);
        config.genesis = config.genesis.map(|genesis| folder.join(genesis));
        config.find_fetched_genesis();
        config.root = config.root.map(|root| folder.join(root));
        match config.problem() {
            None => Ok(config),
            Some(what) => Err(ConfigError::Invalid {
                path: path.to_owned(),
                what,
            }),
        }
    }

    /// Uses the fetched genesis, if there is one.
    pub fn find_fetched_genesis(&mut self) {
        let fetched = self.fetched_genesis();
        if self.fetch_genesis && self.genesis.is_none() && fetched.is_dir() {
            self.genesis = Some(fetched);
        }
    }

    /// The UNIX sockets that clients may use, as the interposer is told of them.
    #[must_use]
    pub fn unix_paths(&self) -> Paths {
        let mut paths = Paths::NONE;
        let added = self
            .unix_sockets
            .iter()
            .all(|path| paths.add(path.as_bytes()));
        debug_assert!(added, "a checked configuration has paths that fit");
        paths
    }

    /// The directory in which the server's UNIX sockets are published.
    #[must_use]
    pub fn unix_dir(&self) -> PathBuf {
        self.data_dir.join("sockets")
    }

    /// The addresses at which clients and stand-alone frontends reach this node.
    ///
    /// # Panics
    /// When the configuration was not checked: [`NodeConfig::load`] makes sure that it is a learner's or
    /// lists its own node.
    #[must_use]
    pub fn place(&self) -> Learner {
        let me = self.members.iter().find(|member| member.id == self.node);
        let as_member = me.map(|me| Learner {
            address: me.address,
            sidecar: me.sidecar,
        });
        let place = self.learner.or(as_member);
        place.expect("a checked configuration lists its own node")
    }

    /// The address on which the server's ports are opened.
    #[must_use]
    pub fn publish_address(&self) -> IpAddr {
        self.publish.unwrap_or_else(|| self.place().address)
    }

    /// The ids of all members except this node.
    pub fn others(&self) -> impl Iterator<Item = u64> + '_ {
        let ids = self.members.iter().map(|member| member.id);
        ids.filter(|id| *id != self.node)
    }

    /// Returns whether `id` is a member.
    #[must_use]
    pub fn is_member(&self, id: u64) -> bool {
        self.members.iter().any(|member| member.id == id)
    }

    /// The server's additional environment variables as pairs.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let pairs = self.env.iter().filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The hash over all settings that must be equal on every replica. The content of the genesis is
    /// not part of it.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Xxh3::new();
        for text in self.command.iter().chain(&self.env) {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(&self.cluster.0.to_le_bytes());
        let parallel = u32::from(self.policy == Policy::Parallel);
        let loopback = u32::from(self.host_loopback);
        let filter = u32::from(self.syscall_filter);
        for number in [self.quantum_ticks, self.cpus, loopback, parallel, filter] {
            hash.update(&number.to_le_bytes());
        }
        for path in &self.unix_sockets {
            hash.update(path.as_bytes());
            hash.update(&[0]);
        }
        hash.update(&self.descriptors_max.to_le_bytes());
        hash.digest()
    }

    /// Returns whether the server gets a seccomp filter. Under the policy `parallel` it gets none: there
    /// the calls that libc makes internally (a new arena of the allocator, a contended lock) depend on
    /// timing, which must not show in the schedule.
    #[must_use]
    pub fn catches_calls(&self) -> bool {
        self.syscall_filter && self.policy == Policy::Serial
    }

    /// The time between checkpoints, if any.
    #[must_use]
    pub fn checkpoint_period(&self) -> Option<Duration> {
        let every = Duration::from_secs(self.checkpoint_every_s);
        (!every.is_zero()).then_some(every)
    }

    /// The rate limit of checkpoint transfers, in bytes per second; 0: no limit.
    #[must_use]
    pub fn transfer_bytes_per_second(&self) -> u64 {
        self.checkpoint_transfer_mib_s.saturating_mul(1 << 20)
    }

    /// The growth of the log between checkpoints, in bytes, if any.
    #[must_use]
    pub fn checkpoint_log_bytes(&self) -> Option<u64> {
        let usual = match self.container {
            Containment::None => 0,
            Containment::Auto | Containment::Required => CHECKPOINT_LOG_MIB,
        };
        let megabytes = self.checkpoint_log_mib.unwrap_or(usual);
        (megabytes > 0).then(|| megabytes.saturating_mul(1 << 20))
    }
}

/// The name of the file that marks a node that has never run.
pub const NEW_MARK: &str = "new";

#[cfg(test)]
mod tests;
