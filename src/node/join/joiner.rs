//! The joining side: makes the data directory of a learner of what a member tells.

use super::wire::{ClusterInfo, Request, read_frame, write_frame};
use super::{CONFIG_NAME, PATIENCE, genesis};
use anyhow::{Context, bail, ensure};
use brolga_config::{Containment, Learner, NodeConfig, Policy};
use brolga_consensus::LEARNERS_FROM;
use brolga_os::files::write_whole;
use brolga_os::sys::allowed_processors;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// Learners' numbers end before this, so that every reader of JSON gets them right.
pub(super) const LEARNERS_UNTIL: u64 = 1 << 52;
const GENESIS_NAME: &str = "genesis";

/// The options of a joiner.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// A member's peer address, as host and port.
    pub member: String,
    /// The node's data directory.
    pub data: PathBuf,
    /// The address at which its clients find the server's ports; otherwise the one that the member
    /// sees.
    pub listen: Option<IpAddr>,
    /// The containment of the server; otherwise the member's.
    pub container: Option<Containment>,
}

/// Makes the data directory of a learner, unless it is there; returns its configuration file.
///
/// # Errors
/// No member answers, its configuration cannot be used, or the directory belongs to another node.
pub fn join(options: &JoinOptions) -> anyhow::Result<PathBuf> {
    let data = std::path::absolute(&options.data).context("cannot resolve the data directory")?;
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
    let mut socket = reach(&options.member)?;
    let info = ask(&mut socket, Request::ClusterInfo)?;
    let info: ClusterInfo = serde_json::from_slice(&info)
        .with_context(|| format!("malformed answer of {}", options.member))?;
    let theirs = info.config()?;
    let (here, there) = (socket.local_addr()?.ip(), socket.peer_addr()?.ip());
    check_addresses(&theirs, there)?;
    let genesis = data.join(GENESIS_NAME);
    if theirs.genesis.is_some() {
        fetch_genesis(&mut socket, &genesis)?;
    }
    let config = own_config(theirs, options, here);
    let text = toml::to_string(&config).context("cannot write TOML")?;
    let member = &options.member;
    let text = format!("# Written by `brolga node --join {member}`, once.\n{text}");
    write_whole(&path, &text)?;
    // For the check of what was written, and of all paths in it.
    NodeConfig::load(&path)?;
    Ok(path)
}

pub(super) fn lock(data: &Path) -> anyhow::Result<Flock<File>> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    lock.map_err(|_| anyhow::anyhow!("{} is in use by another brolga node", data.display()))
}

/// Connects to the first address of that name at which a node answers.
pub(super) fn reach(member: &str) -> anyhow::Result<TcpStream> {
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

pub(super) fn ask(socket: &mut TcpStream, request: Request) -> anyhow::Result<Vec<u8>> {
    let asked = write_frame(socket, &request.encode()).and_then(|()| socket.flush());
    asked.context("the member has closed the connection")?;
    read_frame(socket).context("the member does not tell what its cluster is")
}

/// The members are reached as the one that was asked reaches them.
pub(super) fn check_addresses(config: &NodeConfig, there: IpAddr) -> anyhow::Result<()> {
    let mut peers = config.members.iter().map(|member| member.peer);
    match peers.find(|peer| peer.ip().is_loopback() && !there.is_loopback()) {
        Some(peer) => bail!(
            "the members of that cluster know each other by addresses of their own machine ({peer}): \
             it can be joined only there"
        ),
        None => Ok(()),
    }
}

pub(super) fn fetch_genesis(socket: &mut TcpStream, to: &Path) -> anyhow::Result<()> {
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
    write_frame(socket, &Request::Genesis.encode()).context(words)?;
    genesis::receive(socket, &aside).context(words)?;
    fs::rename(&aside, to).with_context(|| format!("cannot write {}", to.display()))
}

/// The member's configuration, as it is for this node.
fn own_config(theirs: NodeConfig, options: &JoinOptions, here: IpAddr) -> NodeConfig {
    let random = RandomState::new().hash_one(std::process::id());
    let node = LEARNERS_FROM + random % (LEARNERS_UNTIL - LEARNERS_FROM);
    let address = options.listen.unwrap_or(here);
    let processors = allowed_processors();
    let pinned = theirs.policy == Policy::Serial;
    NodeConfig {
        node,
        data_dir: PathBuf::from("."),
        publish: None,
        pin_cpu: processors.last().copied().filter(|_| pinned),
        clock_skew_ms: 0,
        trace: false,
        container: options.container.unwrap_or(theirs.container),
        genesis: theirs.genesis.is_some().then(|| GENESIS_NAME.into()),
        learner: Some(Learner {
            address,
            sidecar: SocketAddr::new(address, 0),
        }),
        ..theirs
    }
}
