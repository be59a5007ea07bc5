//! The identity of a data directory: one replica of one cluster.
//!
//! A node's log is only valid for the same member of the same cluster, with the same server (its
//! program, libraries and initial files, see [`crate::fingerprint`] and [`crate::tree_digest`])
//! and the same interposer: replayed by anything else it leads to another state than the one that
//! clients have seen. So the first start records the identity, and later starts compare. Nodes compare
//! it with each other as well when they connect (`brolga_node`, room `peers`).

use crate::elf;
use crate::fingerprint::{self, FingerprintError};
use crate::launch::SERVER_PATH;
use crate::tree_digest::{Listing, ListingError};
use brolga_checkpoint::{FileFingerprint, Mismatch};
use brolga_config::{ClusterId, ConfigError, NodeConfig, read_toml};
use brolga_os::files::{FileError, write_whole};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// The content of `identity.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    cluster: ClusterId,
    node: u64,
    /// The server's fingerprints.
    server: brolga_checkpoint::ServerFingerprint,
}

/// Why a data directory is not this node's. One line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The directory cannot be used.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// The operation.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Another node daemon runs on it.
    #[error("{0} is in use by a node that is running")]
    InUse(PathBuf),
    /// The directory belongs to another node or cluster.
    #[error("{dir} belongs to {what} {theirs}, the configuration says {ours}: check data_dir")]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// The differing thing.
        what: &'static str,
        /// In the directory.
        theirs: String,
        /// In the configuration.
        ours: String,
    },
    /// The server has changed, so a replay would lead to another state.
    #[error(
        "{what} changed since the log in {dir} began, so a replay could end in another state: \
         put the old one back, or start afresh with another data directory"
    )]
    Changed {
        /// The directory.
        dir: PathBuf,
        /// The differing thing.
        what: String,
    },
    /// The server's program or libraries cannot be looked at.
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
    /// The files that it starts with cannot be looked at.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// The file that tells cannot be read or written.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file that tells cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
}

/// Keeps other node daemons off the data directory for as long as it lives.
#[derive(Debug)]
#[must_use]
pub struct DataDirLock {
    _file: Flock<File>,
    identity: Identity,
}

impl DataDirLock {
    /// The fingerprints that a checkpoint must have to be restored here.
    #[must_use]
    pub fn checkpoint_identity(&self) -> brolga_checkpoint::ServerFingerprint {
        self.identity.server.clone()
    }
}

/// What a checkpoint has to be of to be restored under this configuration, for whoever leaves the
/// node's directory alone.
///
/// # Errors
/// The program cannot be read.
pub fn checkpoint_identity(
    config: &NodeConfig,
) -> Result<brolga_checkpoint::ServerFingerprint, IdentityError> {
    Ok(look(config)?.identity.server)
}

/// Creates and locks the data directory, and makes sure that it is this node's.
///
/// # Errors
/// See [`IdentityError`].
pub fn claim(config: &NodeConfig) -> Result<DataDirLock, IdentityError> {
    let dir = &config.data_dir;
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let lock_path = dir.join("lock");
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path);
    let file = Flock::lock(
        file.map_err(failed("write to", &lock_path))?,
        FlockArg::LockExclusiveNonblock,
    )
    .map_err(|_| IdentityError::InUse(dir.clone()))?;
    let ours = look(config)?;
    let path = dir.join("identity.toml");
    if path.exists() {
        compare(config, &read_toml(&path)?, &ours)?;
    } else {
        for (list, path) in [
            (&ours.root, config.root_list()),
            (&ours.genesis, config.genesis_list()),
        ] {
            if let Some(list) = list {
                write_whole(&path, list.text())?;
            }
        }
        let text = toml::to_string(&ours.identity).map_err(|error| FileError {
            action: "write",
            path: path.clone(),
            source: io::Error::other(error),
        })?;
        write_whole(&path, &text)?;
    }
    Ok(DataDirLock {
        _file: file,
        identity: ours.identity,
    })
}

/// The first thing that is not as it was when the log of this node began, in words.
///
/// # Errors
/// See [`IdentityError`]; the directory is another node's, or not one of a node.
pub fn change(config: &NodeConfig) -> Result<Option<String>, IdentityError> {
    let ours = look(config)?;
    let theirs = read_toml(&config.data_dir.join("identity.toml"))?;
    belongs(&config.data_dir, &theirs, &ours.identity)?;
    Ok(first_change(config, &theirs, &ours))
}

/// The current identity of a node, with the lists of which it only has hashes.
struct Looked {
    identity: Identity,
    root: Option<Listing>,
    genesis: Option<Listing>,
}

fn look(config: &NodeConfig) -> Result<Looked, IdentityError> {
    let genesis = config.genesis.as_deref().map(Listing::of).transpose()?;
    let root = config.root.as_deref().map(Listing::of).transpose()?;
    let hash = |list: &Option<Listing>| list.as_ref().map(Listing::hash).unwrap_or_default();
    let server = brolga_checkpoint::ServerFingerprint {
        configuration: format!("{:016x}", config.fingerprint()),
        interposer: format!("{:016x}", xxh3_64(crate::launch::interposer_image())),
        root: hash(&root),
        genesis: hash(&genesis),
        files: match root {
            Some(_) => Vec::new(),
            None => machines_files(config)?,
        },
    };
    let identity = Identity {
        cluster: config.cluster,
        node: config.node,
        server,
    };
    Ok(Looked {
        identity,
        root,
        genesis,
    })
}

/// Those of the machine's files that the server is made of.
fn machines_files(config: &NodeConfig) -> Result<Vec<FileFingerprint>, FingerprintError> {
    let argv: Vec<OsString> = config.command.iter().map(Into::into).collect();
    let program = elf::check_program(&argv, SERVER_PATH)?;
    let directory = config.genesis.as_deref().unwrap_or(Path::new("/"));
    fingerprint::of_server(&program, &config.environment(), directory)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::File {
        action,
        path,
        source,
    }
}

fn compare(config: &NodeConfig, theirs: &Identity, ours: &Looked) -> Result<(), IdentityError> {
    let dir = &config.data_dir;
    belongs(dir, theirs, &ours.identity)?;
    match first_change(config, theirs, ours) {
        Some(what) => Err(IdentityError::Changed {
            dir: dir.to_owned(),
            what,
        }),
        None => Ok(()),
    }
}

/// In what the node is not as it was when its log began.
fn first_change(config: &NodeConfig, before: &Identity, now: &Looked) -> Option<String> {
    let mismatch = now.identity.server.mismatch(&before.server)?;
    let words = mismatch.describe(NOW, BEFORE);
    let (now, list) = match mismatch {
        Mismatch::Genesis => (&now.genesis, config.genesis_list()),
        Mismatch::Root => (&now.root, config.root_list()),
        _ => return Some(words),
    };
    // Without the list it is still known that something differs.
    let before = fs::read_to_string(list).map(Listing::from_text).ok();
    Some(match (now, before) {
        (Some(now), Some(before)) => differing_file(&words, now, &before, NOW, BEFORE),
        _ => words,
    })
}

/// Names the first file in which two lists of `what` differ.
#[must_use]
pub fn differing_file(
    what: &str,
    ours: &Listing,
    theirs: &Listing,
    here: &str,
    there: &str,
) -> String {
    match ours.first_difference(theirs) {
        Some([path, ours, theirs]) => {
            format!("{path} in {what} ({ours}, {here}; {theirs}, {there})")
        }
        None => what.to_owned(),
    }
}

const NOW: &str = "now";
const BEFORE: &str = "when the log began";

fn belongs(dir: &Path, theirs: &Identity, ours: &Identity) -> Result<(), IdentityError> {
    let foreign = |what, theirs: String, ours: String| {
        Err(IdentityError::Foreign {
            dir: dir.to_owned(),
            what,
            theirs,
            ours,
        })
    };
    if theirs.cluster != ours.cluster {
        return foreign(
            "the cluster",
            theirs.cluster.to_string(),
            ours.cluster.to_string(),
        );
    }
    if theirs.node != ours.node {
        return foreign("node", theirs.node.to_string(), ours.node.to_string());
    }
    Ok(())
}
