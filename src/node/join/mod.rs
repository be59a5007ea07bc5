//! How a fresh machine becomes a learner: `brolga node --join ADDR`.
//!
//! ```text
//! newcomer ── join ──▶ a member, at its peer address
//!          ◀── introduction: the configuration of that node
//!          ── genesis, please ──▶        only if there is one
//!          ◀── entries and their bytes
//! ```
//!
//! The newcomer makes its own configuration of that, with a number of its own, and starts as any node
//! does: it dials all members, follows the log, and runs its own replica of the server.
//!
//! # Invariants
//!
//! * `config.toml` is written last: a directory that has one has everything. One without is begun anew.
//! * Nothing that comes in is trusted: lengths are bounded, paths stay below the genesis.
//!
//! Deliberately absent: encryption and authentication. Whoever reaches a peer address learns the
//! configuration, environment included; peer addresses belong in a closed network.

mod genesis;
mod handler;
mod joiner;
mod wire;

pub use handler::Receptionist;
pub use joiner::await_genesis;

use anyhow::{Context, bail, ensure};
use brolga_config::{Containment, Learner, NodeConfig, Policy};
use brolga_consensus::LEARNERS_FROM;
use brolga_os::files::write_whole;
use brolga_os::sys::allowed_processors;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::{Question, read_frame, write_frame};

/// A member that says nothing for longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Learners' numbers end before this, so that every reader of JSON gets them right.
const LEARNERS_UNTIL: u64 = 1 << 52;
/// Name of a node's configuration in its data directory.
pub const CONFIG_NAME: &str = "config.toml";
const GENESIS_NAME: &str = "genesis";

/// What a member tells a newcomer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Introduction {
    /// Its program's version, for the message when the rest cannot be understood.
    version: String,
    /// Its configuration.
    config: serde_json::Value,
}

impl Introduction {
    fn of(config: &NodeConfig) -> serde_json::Result<Self> {
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            config: serde_json::to_value(config)?,
        })
    }

    fn config(self) -> anyhow::Result<NodeConfig> {
        let (theirs, ours) = (self.version, env!("CARGO_PKG_VERSION"));
        let mut config: NodeConfig = serde_json::from_value(self.config).with_context(|| {
            format!("the cluster's configuration makes no sense here (brolga {theirs} there, {ours} here)")
        })?;
        // It is looked at again when it is complete; what a path of another machine holds is not known.
        let genesis = config.genesis.take();
        match config.problem() {
            Some(what) => bail!("the cluster's configuration cannot work: {what}"),
            None => {
                config.genesis = genesis;
                Ok(config)
            }
        }
    }
}

/// What the user wants.
#[derive(Clone, Debug)]
pub struct Wish {
    /// A member's peer address, as host and port.
    pub member: String,
    /// The node's data directory.
    pub data: PathBuf,
    /// Where its clients find the server's ports; otherwise where the member sees this machine.
    pub listen: Option<IpAddr>,
    /// Whether the server runs in a container; otherwise as at the member.
    pub container: Option<Containment>,
}

/// Makes the data directory of a learner, unless it is there; gives its configuration file.
///
/// # Errors
/// No introduction, one that cannot be used, or a directory that is somebody else's.
pub fn join(wish: &Wish) -> anyhow::Result<PathBuf> {
    let data = std::path::absolute(&wish.data).context("cannot resolve the data directory")?;
    let path = data.join(CONFIG_NAME);
    if data.join("cluster.toml").exists() {
        let data = data.display();
        bail!("{data} holds a whole cluster: give another --data directory");
    }
    if path.exists() {
        let config = NodeConfig::load(&path)?;
        let (node, data) = (config.node, data.display());
        ensure!(
            config.learner.is_some(),
            "{data} is that of member {node}: give another --data directory"
        );
        return Ok(path);
    }
    fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
    let _lock = lock(&data)?;
    let mut socket = reach(&wish.member)?;
    let introduction = ask(&mut socket, &Question::Introduction)?;
    let introduction: Introduction = serde_json::from_slice(&introduction)
        .with_context(|| format!("what {} says makes no sense", wish.member))?;
    let theirs = introduction.config()?;
    let (here, there) = (socket.local_addr()?.ip(), socket.peer_addr()?.ip());
    check_addresses(&theirs, there)?;
    let genesis = data.join(GENESIS_NAME);
    if theirs.genesis.is_some() {
        fetch_genesis(&mut socket, &genesis)?;
    }
    let config = own_config(theirs, wish, here);
    let text = toml::to_string(&config).context("cannot write TOML")?;
    let member = &wish.member;
    let text = format!("# Written by `brolga node --join {member}`, once.\n{text}");
    write_whole(&path, &text)?;
    // For the check of what was written, and of all paths in it.
    NodeConfig::load(&path)?;
    Ok(path)
}

fn lock(data: &Path) -> anyhow::Result<Flock<File>> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    lock.map_err(|_| anyhow::anyhow!("{} is in use by another brolga node", data.display()))
}

/// Connects to the first address of that name at which a node answers.
fn reach(member: &str) -> anyhow::Result<TcpStream> {
    let addresses = member.to_socket_addrs();
    let addresses = addresses.with_context(|| format!("`{member}` is no address (HOST:PORT)"))?;
    let mut why = None;
    for address in addresses {
        match brolga_consensus::join(address, PATIENCE) {
            Ok(socket) => return Ok(socket),
            Err(error) => why = Some(error),
        }
    }
    match why {
        Some(error) => Err(error.into()),
        None => bail!("`{member}` has no address"),
    }
}

fn ask(socket: &mut TcpStream, question: &Question) -> anyhow::Result<Vec<u8>> {
    let asked = write_frame(socket, &question.encode()).and_then(|()| socket.flush());
    asked.context("the member hangs up")?;
    read_frame(socket).context("the member does not tell what its cluster is")
}

/// The members are reached as the one that was asked reaches them.
fn check_addresses(config: &NodeConfig, there: IpAddr) -> anyhow::Result<()> {
    let mut peers = config.members.iter().map(|member| member.peer);
    match peers.find(|peer| peer.ip().is_loopback() && !there.is_loopback()) {
        Some(peer) => bail!(
            "the members of that cluster know each other by addresses of their own machine ({peer}): \
             it can be joined only there"
        ),
        None => Ok(()),
    }
}

fn fetch_genesis(socket: &mut TcpStream, to: &Path) -> anyhow::Result<()> {
    let aside = to.with_extension("new");
    for old in [to, &aside] {
        match fs::remove_dir_all(old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", old.display()));
            }
            _ => {}
        }
    }
    let words = "cannot get the files that the server starts with";
    write_frame(socket, &Question::Genesis.encode()).context(words)?;
    genesis::receive(socket, &aside).context(words)?;
    fs::rename(&aside, to).with_context(|| format!("cannot write {}", to.display()))
}

/// The member's configuration, as it is for this node.
fn own_config(theirs: NodeConfig, wish: &Wish, here: IpAddr) -> NodeConfig {
    let random = RandomState::new().hash_one(std::process::id());
    let node = LEARNERS_FROM + random % (LEARNERS_UNTIL - LEARNERS_FROM);
    let address = wish.listen.unwrap_or(here);
    let processors = allowed_processors();
    let pinned = theirs.policy == Policy::Serial;
    NodeConfig {
        node,
        data_dir: PathBuf::from("."),
        publish: None,
        pin_cpu: processors.last().copied().filter(|_| pinned),
        clock_skew_ms: 0,
        trace: false,
        container: wish.container.unwrap_or(theirs.container),
        genesis: theirs.genesis.is_some().then(|| GENESIS_NAME.into()),
        learner: Some(Learner {
            address,
            sidecar: SocketAddr::new(address, 0),
        }),
        ..theirs
    }
}

#[cfg(test)]
mod tests;
