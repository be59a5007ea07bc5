//! The configuration of one replica, as `brolga node --config FILE` reads it.
//!
//! The file is TOML. Unknown keys are errors, so that a misspelt key does not silently leave a
//! default in place. What must be the same on every replica for determinism (command, environment,
//! genesis, clocks, descriptors …) is part of [`NodeConfig::fingerprint`].

pub mod defaults;
mod paths;

use brolga_checkpoint::Compression;
use brolga_consensus::LEARNERS_FROM;
use brolga_tape::unix::{PATH_BYTES, PATHS_MAX, Paths};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
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

/// Names a cluster for all time, so that a node never joins the wrong one.
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

/// One replica, as all replicas know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its number, from 1.
    pub id: u64,
    /// Where its clients find the server's ports.
    pub address: IpAddr,
    /// Where the other nodes reach it.
    pub peer: SocketAddr,
    /// Where sidecar frontends reach it.
    pub sidecar: SocketAddr,
}

/// A learner, as only it knows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learner {
    /// Where its clients find the server's ports.
    pub address: IpAddr,
    /// Where sidecar frontends reach it; port 0: one that nobody is told of.
    pub sidecar: SocketAddr,
}

/// Whether a server runs in a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Containment {
    /// As a process among the others of the machine; checkpoints cannot be taken.
    #[default]
    None,
    /// If the machine allows it; the log says why not.
    Auto,
    /// The node does not start otherwise.
    Required,
}

/// When threads of the server hand on the turn. The same on all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// One thread runs at a time: data races, atomics and spinning are deterministic too.
    #[default]
    Serial,
    /// Threads run beside each other between ordered operations: for programs without data races.
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

/// Everything a node needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// Which of the members this node is; or a learner's number, [`LEARNERS_FROM`] or greater.
    pub node: u64,
    /// Log, working directory, admin socket and output files. A relative path is relative to the
    /// file.
    pub data_dir: PathBuf,
    /// The address that the server's ports are opened on; the member's own unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<IpAddr>,
    /// How often a leader says that it lives.
    #[serde(default = "defaults::heartbeat_ms")]
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for a random time in this range tries to lead.
    #[serde(default = "defaults::election_timeout_ms")]
    pub election_timeout_ms: [u64; 2],
    /// N_clock: logical clock ticks granted with each event.
    #[serde(default = "defaults::n_clock")]
    pub n_clock: u32,
    /// W_timeout: how long the leader waits for more input before it proposes a bubble.
    #[serde(default = "defaults::w_timeout_us")]
    pub w_timeout_us: u64,
    /// When threads of the server hand on the turn.
    #[serde(default)]
    pub policy: Policy,
    /// Ticks after which a thread of the server hands on the turn (policy `serial`).
    #[serde(default = "defaults::quantum")]
    pub quantum: u32,
    /// Number of processors that the server is told of.
    #[serde(default = "defaults::cpus")]
    pub cpus: u32,
    /// Processor that the server's process tree stays on, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_cpu: Option<usize>,
    /// The server's `fsync` reaches the disk although the log makes it needless.
    #[serde(default)]
    pub keep_fsync: bool,
    /// Loopback addresses that the server does not listen on are those of the machine that makes the
    /// connection, the leader's; otherwise nobody is found there.
    #[serde(default)]
    pub host_loopback: bool,
    /// System calls that go round the interposer are caught by a seccomp filter.
    #[serde(default = "defaults::backstop")]
    pub backstop: bool,
    /// UNIX sockets of the server, by the paths that it gives them, that clients may use: each is
    /// published in the directory `sockets` of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unix: Vec<String>,
    /// Whether the server runs in a container, which is what checkpoints take.
    #[serde(default)]
    pub container: Containment,
    /// How many checkpoints are kept. The log goes back to the oldest of them.
    #[serde(default = "defaults::checkpoints_kept")]
    pub checkpoints_kept: usize,
    /// Whether checkpoints are compressed: `none`, `zstd` or `zstd:LEVEL`.
    #[serde(default)]
    pub checkpoint_compression: Compression,
    /// A checkpoint is taken so many seconds after the last one, if the log has grown; 0: never.
    #[serde(default)]
    pub checkpoint_every_s: u64,
    /// A checkpoint is taken when the log has grown by so many megabytes (of 2^20 bytes) since the last
    /// one; 0: never; not given: [`CHECKPOINT_LOG_MB`] with a container, never without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_log_mb: Option<u64>,
    /// Megabytes (of 2^20 bytes) per second of checkpoints that this node sends to others, all
    /// together; 0: no bound.
    #[serde(default = "defaults::checkpoint_transfer_mb_s")]
    pub checkpoint_transfer_mb_s: u64,
    /// Size of a file of the log, the unit in which it is dropped behind checkpoints.
    #[serde(default = "defaults::segment_bytes")]
    pub segment_bytes: u64,
    /// Upper bound of random delays put in at scheduling points, for tests.
    #[serde(default)]
    pub perturb_us: u32,
    /// This node's wall clock is taken to be wrong by this much, for tests.
    #[serde(default)]
    pub clock_skew_ms: i64,
    /// Every ordered operation of the server is recorded in files `trace-1`, `trace-2` …, for tests.
    #[serde(default)]
    pub trace: bool,
    /// Clients get an answer only when a majority of the replicas has computed the same.
    #[serde(default)]
    pub vote: bool,
    /// Open descriptors that the server may have.
    #[serde(default = "defaults::descriptors")]
    pub descriptors: u64,
    /// The server's working directory starts as a copy of this one. A relative path is relative to
    /// the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genesis: Option<PathBuf>,
    /// A node without a genesis of its own gets it from another member before its first start, and waits
    /// until one has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fetch_genesis: bool,
    /// The server's container has the files in this directory instead of the machine's. A relative path is
    /// relative to the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// The server: program and arguments.
    pub command: Vec<String>,
    /// Variables of the server's environment beyond the canonical ones, as `NAME=VALUE`.
    #[serde(default)]
    pub env: Vec<String>,
    /// This node is no member: it learns what is chosen, and does not vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learner: Option<Learner>,
    /// All members, this node too if it is one.
    pub members: Vec<Member>,
}

/// See [`NodeConfig::checkpoint_log_mb`].
pub const CHECKPOINT_LOG_MB: u64 = 256;

/// What is wrong with a configuration. One line, with the place in the file when there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Not TOML, an unknown key, a value of the wrong type.
    #[error("{path}:{line}: {what}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The complaint.
        what: String,
    },
    /// Well-formed, but it cannot work.
    #[error("{path}: {what}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The complaint and what to do.
        what: String,
    },
}

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

    /// Takes the genesis that was fetched, if it is here.
    pub fn find_fetched_genesis(&mut self) {
        let fetched = self.fetched_genesis();
        if self.fetch_genesis && self.genesis.is_none() && fetched.is_dir() {
            self.genesis = Some(fetched);
        }
    }

    /// The first thing in the configuration that cannot work.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        members_problem(&self.members)
            .or_else(|| self.own_problem())
            .or_else(|| self.timing_problem())
            .or_else(|| self.server_problem())
    }

    fn own_problem(&self) -> Option<String> {
        let listed = self.members.iter().any(|member| member.id == self.node);
        match (&self.learner, listed) {
            (None, true) => None,
            (None, false) => Some(format!("node = {} is not one of the members", self.node)),
            (Some(_), true) => Some(format!(
                "node = {} is one of the members and cannot be a learner",
                self.node
            )),
            (Some(_), false) if self.node < LEARNERS_FROM => Some(format!(
                "node = {} is too small for a learner: from {LEARNERS_FROM} on",
                self.node
            )),
            (Some(_), false) => None,
        }
    }

    fn timing_problem(&self) -> Option<String> {
        let [least, most] = self.election_timeout_ms;
        if self.heartbeat_ms == 0 {
            return Some("heartbeat_ms must be at least 1".into());
        }
        if least > most {
            return Some(format!(
                "election_timeout_ms = [{least}, {most}]: the first must not be the larger"
            ));
        }
        if least < 2 * self.heartbeat_ms {
            return Some(format!(
                "election_timeout_ms = [{least}, {most}] must start at twice heartbeat_ms ({})",
                2 * self.heartbeat_ms
            ));
        }
        let positive = [
            ("n_clock", self.n_clock),
            ("quantum", self.quantum),
            ("cpus", self.cpus),
        ];
        let zero = positive.iter().find(|(_, value)| *value == 0);
        zero.map(|(name, _)| format!("{name} must be at least 1"))
    }

    fn server_problem(&self) -> Option<String> {
        if self.command.first().is_none_or(String::is_empty) {
            return Some("command must name the server's program".into());
        }
        if self.segment_bytes < SEGMENT_BYTES_MIN {
            return Some(format!(
                "segment_bytes must be at least {SEGMENT_BYTES_MIN}"
            ));
        }
        if self.descriptors < DESCRIPTORS_MIN {
            return Some(format!("descriptors must be at least {DESCRIPTORS_MIN}"));
        }
        if let Some(genesis) = self.genesis.as_ref().filter(|genesis| !genesis.is_dir()) {
            return Some(format!(
                "genesis = {} is not a directory",
                genesis.display()
            ));
        }
        let root = self.root.as_deref();
        root.and_then(|root| root_problem(root, self.container))
            .or_else(|| self.env.iter().find_map(|pair| environment_problem(pair)))
            .or_else(|| unix_problem(&self.unix))
    }

    /// The UNIX sockets that clients may use, as the interposer is told of them.
    #[must_use]
    pub fn unix_paths(&self) -> Paths {
        let mut paths = Paths::NONE;
        let added = self.unix.iter().all(|path| paths.add(path.as_bytes()));
        debug_assert!(added, "a checked configuration has paths that fit");
        paths
    }

    /// Where they are published.
    #[must_use]
    pub fn unix_dir(&self) -> PathBuf {
        self.data_dir.join("sockets")
    }

    /// Where clients and sidecar frontends reach this node.
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

    /// The address that the server's ports are opened on.
    #[must_use]
    pub fn publish_address(&self) -> IpAddr {
        self.publish.unwrap_or_else(|| self.place().address)
    }

    /// The members but this node.
    pub fn others(&self) -> impl Iterator<Item = u64> + '_ {
        let ids = self.members.iter().map(|member| member.id);
        ids.filter(|id| *id != self.node)
    }

    /// Whether a node of this number is one of the members.
    #[must_use]
    pub fn is_member(&self, id: u64) -> bool {
        self.members.iter().any(|member| member.id == id)
    }

    /// The environment as pairs.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let pairs = self.env.iter().filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// Hash over what every replica must have alike, so that nodes can notice when they do not.
    /// The content of the genesis is not in it.
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
        let backstop = u32::from(self.backstop);
        for number in [self.quantum, self.cpus, loopback, parallel, backstop] {
            hash.update(&number.to_le_bytes());
        }
        for path in &self.unix {
            hash.update(path.as_bytes());
            hash.update(&[0]);
        }
        hash.update(&self.descriptors.to_le_bytes());
        hash.digest()
    }

    /// Whether the server gets a seccomp filter. Where threads run beside each other, the calls that libc
    /// makes inside (a new arena of the allocator, a lock that is taken) are a matter of speed, which must
    /// not show in the schedule.
    #[must_use]
    pub fn catches_calls(&self) -> bool {
        self.backstop && self.policy == Policy::Serial
    }

    /// Time between checkpoints, if any.
    #[must_use]
    pub fn checkpoint_period(&self) -> Option<Duration> {
        let every = Duration::from_secs(self.checkpoint_every_s);
        (!every.is_zero()).then_some(every)
    }

    /// Bytes per second of checkpoints for other nodes; 0: no bound.
    #[must_use]
    pub fn transfer_bytes_per_second(&self) -> u64 {
        self.checkpoint_transfer_mb_s.saturating_mul(1 << 20)
    }

    /// Growth of the log between checkpoints in bytes, if any.
    #[must_use]
    pub fn checkpoint_log_bytes(&self) -> Option<u64> {
        let usual = match self.container {
            Containment::None => 0,
            Containment::Auto | Containment::Required => CHECKPOINT_LOG_MB,
        };
        let megabytes = self.checkpoint_log_mb.unwrap_or(usual);
        (megabytes > 0).then(|| megabytes.saturating_mul(1 << 20))
    }
}

/// A segment has to hold the largest entry.
const SEGMENT_BYTES_MIN: u64 = 2 * brolga_tape::ENTRY_BYTES_MAX as u64;

/// Name of the file that says that a node has never run.
pub const NEW_MARK: &str = "new";

/// Reads a TOML file into anything, with one-line errors.
///
/// # Errors
/// [`ConfigError::Unreadable`] or [`ConfigError::Syntax`].
pub fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(&text, error.span()),
        what: error.message().replace('\n', " "),
    })
}

fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start.min(text.len()));
    text.bytes()
        .take(start)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

/// What is wrong with a root for the server.
#[must_use]
pub fn root_problem(root: &Path, container: Containment) -> Option<String> {
    if !root.is_dir() {
        return Some(format!("root = {} is not a directory", root.display()));
    }
    if root.canonicalize().is_ok_and(|root| root == Path::new("/")) {
        return Some("root = / is the machine's: leave it out".into());
    }
    let contained = container == Containment::Required;
    (!contained).then(|| "root is for servers in containers: add container = \"required\"".into())
}

/// What is wrong with a list of UNIX sockets to be published.
pub fn unix_problem(all: &[String]) -> Option<String> {
    let mut paths = Paths::NONE;
    let mut names = Vec::new();
    for path in all {
        let name = Path::new(path).file_name();
        if name.is_none() || names.contains(&name) {
            return Some(format!(
                "unix = {path}: the last parts of the paths are the names of the published sockets, so \
                 each needs one of its own"
            ));
        }
        names.push(name);
        if !paths.add(path.as_bytes()) {
            return Some(format!(
                "unix = {path}: at most {PATHS_MAX} paths of at most {} bytes can be published",
                PATH_BYTES - 1
            ));
        }
    }
    None
}

/// What is wrong with one `NAME=VALUE` of the environment.
#[must_use]
pub fn environment_problem(pair: &str) -> Option<String> {
    match pair.split_once('=') {
        None | Some(("", _)) => Some(format!("environment `{pair}` is not NAME=VALUE")),
        Some((PRELOAD_VARIABLE, _)) => Some(format!(
            "environment {PRELOAD_VARIABLE} is needed for the wrapper itself"
        )),
        Some(_) if pair.contains('\0') => Some("environment must not contain NUL".into()),
        Some(_) => None,
    }
}

fn members_problem(members: &[Member]) -> Option<String> {
    if members.is_empty() {
        return Some("members must list every replica".into());
    }
    let mut ids = BTreeSet::new();
    let mut sockets = BTreeSet::new();
    for member in members {
        if member.id == 0 {
            return Some("member ids count from 1".into());
        }
        if !ids.insert(member.id) {
            return Some(format!("two members have id = {}", member.id));
        }
        for socket in [member.peer, member.sidecar] {
            if socket.port() == 0 {
                return Some(format!("member {} needs fixed ports, not 0", member.id));
            }
            if !sockets.insert(socket) {
                return Some(format!("{socket} is given twice among the members"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
